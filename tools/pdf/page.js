// Takes one built page apart for print: its article, without what only a screen needs, as HTML.
// `documents` are the addresses of the book's pages ("book/ledger"), `own` is that of this one.
async ({ documents, own }) => {
  document.documentElement.dataset.theme = "light";
  const article = document.querySelector("article.bd-article");
  const all = (selector, action) => article.querySelectorAll(selector).forEach(action);
  const element = (tag, className, ...children) => {
    const made = document.createElement(tag);
    made.className = className;
    made.append(...children);
    return made;
  };
  const root = new URL(document.documentElement.dataset.content_root ?? "./", location.href).href;

  // Screen readers of the PDF are told the TeX source; what is drawn is only letters in places.
  // Behind "\\(" it is recognised as a formula by pdf_tags.py.
  all(".katex", (formula) => {
    const source = formula.querySelector("annotation").textContent.trim();
    formula.querySelector(".katex-mathml").remove();
    formula.setAttribute("aria-label", `\\(${source}`);
    formula.setAttribute("role", "img");
  });
  all(".katex-html, [role=img] > svg", (drawing) => drawing.removeAttribute("aria-hidden"));

  // No line ends between a formula and the bracket or the full stop that belongs to it.
  all(".katex:not(.katex-display *)", (formula) => {
    const whole = formula.closest("span.math") ?? formula;
    const [before, after] = [whole.previousSibling, whole.nextSibling];
    const part = (node, pattern) => (node instanceof Text && node.data.match(pattern)?.[0]) || "";
    const head = part(before, /[(\[“‘]+$/);
    const tail = part(after, /^([)\].,;:!?%’”]+|[-’]\w+)/);
    if (!head && !tail) return;
    if (head) before.deleteData(before.length - head.length, head.length);
    if (tail) after.deleteData(0, tail.length);
    const glued = element("span", "glued");
    whole.replaceWith(glued);
    glued.append(head, whole, tail);
  });

  // An explorer stands still: its picture, and under it where its sliders are and what it shows.
  all(".af-explorer", (explorer) => {
    const values = [...explorer.querySelectorAll(".widget-slider")].map((slider) => {
      const text = (part) => slider.querySelector(part).textContent.trim();
      return `${text(".widget-label")} = ${text(".widget-readout")}`;
    });
    const figure = explorer.querySelector("figure");
    const shown = figure.querySelector("[role=img]").getAttribute("aria-label");
    const caption = figure.querySelector("figcaption") ?? element("figcaption", "");
    const opening = caption.textContent ? " Here with" : "Explorer, here with";
    caption.append(element("b", "", `${opening} ${values.join(", ")}: `), shown);
    figure.append(caption);
    explorer.replaceWith(figure);
  });

  // Folded plotting code is left out; solutions, proofs and asides are opened.
  all(".cell:not(.tag_solution) > details.hide", (folded) => {
    folded.replaceWith(...folded.querySelectorAll(":scope > .cell_output"));
  });
  all("details", (folded) => {
    const summary = folded.querySelector(":scope > summary");
    const name = folded.closest(".tag_solution") ? "Solution" : summary.textContent.trim();
    summary.remove();
    const body = folded.querySelector(":scope > .sd-summary-content") ?? folded;
    const [first, ...rest] = body.children;
    // The first block stands with its title, so that no page ends between them.
    const head = element("div", "unfolded-head", element("p", "unfolded-title", name), first);
    folded.replaceWith(element("div", "unfolded", head, ...rest));
  });
  all(".toggle-hidden", (folded) => folded.classList.remove("toggle-hidden"));

  const furniture = "script, style, form, button, input, .headerlink, .toctree-wrapper";
  all(`${furniture}, .genindex-jumpbox, .af-pdf`, (part) => part.remove());
  const hidden = [...article.querySelectorAll("*:not(svg *, .katex *)")].filter(
    (part) => getComputedStyle(part).display === "none");
  hidden.forEach((part) => part.remove());
  all(".cell", (cell) => {
    if (!cell.textContent.trim() && !cell.querySelector("svg, img")) cell.remove();
  });

  // Names and punctuation, which have the colour of the page, need no mark of their own.
  const unwrap = (part) => part.replaceWith(...part.childNodes);
  const plain = [...article.querySelectorAll("pre span")].filter((token) => {
    const { color, fontWeight, fontStyle } = getComputedStyle(token);
    const page = getComputedStyle(token.closest("pre")).color;
    return color === page && fontWeight === "400" && fontStyle === "normal";
  });
  plain.forEach(unwrap);
  all("code span, dt.sig span:not(.sig-name, .sig-prename), dt.sig em", unwrap);
  all("pre, code, dt.sig", (code) => code.normalize());

  // An index entry's empty anchor would cost the heading behind it its distance.
  all("span[id]:empty + :is(h2, h3, h4)", (heading) => {
    let anchor;
    while ((anchor = heading.previousElementSibling)?.matches("span[id]:empty")) {
      heading.prepend(anchor);
    }
  });

  // The index flows in columns of its own.
  all("table.genindextable", (table) => table.replaceWith(...table.querySelectorAll("td > ul")));

  // All pages become one document: an id gets its page's address in front, as does a link to it.
  const place = (page, id) => (id ? `${page}:${id}` : page);
  all("[id]:not(svg *, .katex *)", (part) => { part.id = place(own, part.id); });
  all("a[href]", (link) => {
    const target = new URL(link.getAttribute("href"), location.href);
    if (!target.href.startsWith(root)) return;
    const address = target.href.slice(root.length).split(/[?#]/)[0].replace(/\.html$/, "");
    const page = address === "index" ? documents[0] : address;
    if (documents.includes(page)) {
      link.setAttribute("href", `#${place(page, decodeURIComponent(target.hash.slice(1)))}`);
    } else {
      link.replaceWith(...link.childNodes); // a file of the site that is no page of the book
    }
  });
  all("img", (image) => image.setAttribute("src", image.src)); // absolute
  // On paper a link needs its page: in the index, and from the ledger to the tests.
  all(`${own === "genindex" ? "li a, " : ""}.af-kind a`, (link) => {
    const number = element("span", "page-number", "000");
    number.dataset.pageOf = link.getAttribute("href").slice(1);
    if (/^\[\d+\]$/.test(link.textContent)) link.replaceChildren(number);
    else link.append(own === "genindex" ? ", " : ", page ", number);
  });
  all("[tabindex]", (part) => part.removeAttribute("tabindex"));

  // The title of the book stands on the title page.
  if (own === documents[0]) article.querySelector("h1").textContent = "Introduction";

  const spoken = (heading) => {
    const copy = heading.cloneNode(true);
    copy.querySelectorAll(".katex").forEach((formula) => {
      formula.replaceWith(formula.getAttribute("aria-label").replace("\\(", ""));
    });
    return copy.textContent.trim().replace(/\s+/g, " ");
  };
  all("h1, h2, h3, h4, h5, h6", (heading) => { heading.dataset.spoken = spoken(heading); });
  const headings = [...article.querySelectorAll("h1, h2")].map((heading) => ({
    level: Number(heading.tagName[1]),
    id: heading.closest("section[id]")?.id ?? own,
    html: heading.innerHTML.replace(/<span id="[^"]*"><\/span>/g, ""), // an anchor is there once
    text: heading.dataset.spoken,
  }));
  all("h1 .section-number", (number) => {
    number.textContent = number.textContent.replace(/\.\s*$/, " ");
  });

  return { html: article.innerHTML, headings };
}
