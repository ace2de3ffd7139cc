// Typesets the formulas of several pages with MathJax:  node typeset.cjs FOLDER < pages.json > results.json
// In:  [[{tex, display}, …] for each page].  Out:  [{html: [one for each formula], css} for each page].
const folder = process.argv[2];
const pages = JSON.parse(require("fs").readFileSync(0, "utf8"));

require(`${folder}/node-main.js`)
  .init({
    loader: { paths: { mathjax: folder }, load: ["input/tex-full", "output/chtml", "a11y/assistive-mml"] },
    // Without the packages that draw errors in red: an error should stop the build.
    tex: { packages: ["base", "ams", "newcommand", "boldsymbol", "configmacros"] },
    chtml: { fontURL: "FONTS", matchFontHeight: false },
    options: { enableAssistiveMml: true },
  })
  .then((MathJax) => {
    const { adaptor, output } = MathJax.startup;
    const results = pages.map((formulas) => {
      output.clearCache(); // the style sheet then has only the letters of this page
      const html = formulas.map(({ tex, display }) => {
        const drawn = adaptor.outerHTML(MathJax.tex2chtml(tex, { display }));
        const error = drawn.match(/data-mjx-error="([^"]*)"/);
        if (error) throw new Error(`${error[1]} in ${tex}`);
        return drawn;
      });
      const css = adaptor.textContent(MathJax.chtmlStylesheet());
      return { html, css: css.replace(/\/\*.*?\*\//g, "").replace(/\s+/g, " ") };
    });
    process.stdout.write(JSON.stringify(results));
  })
  .catch((error) => {
    process.stderr.write(`${error.message ?? error}\n`);
    process.exitCode = 1;
  });
