// Runs before html-manager's embed.js, on the pages that hold widgets.
(() => {
  // 1. Fonts come from beside embed.js; its own default is a CDN.
  window.__jupyter_widgets_assets_path__ = new URL(
    "../vendor/html-manager/dist/", document.currentScript.src).href;

  // 2. The theme's FontAwesome replaces every <i> by an <svg> as it appears.  A Play widget looks for its <i>
  //    again, throws, and every slider linked to it stops working.  So: no watching of later changes.
  window.FontAwesomeConfig = { observeMutations: false };

  // 3. ipywidgets 8 asks for typesetting in the manner of MathJax 2; the pages load MathJax 3, which is there
  //    by the load event.  embed.js draws its widgets on the same event, after this listener.
  window.addEventListener("load", () => {
    if (window.MathJax?.typesetPromise) {
      MathJax.Hub ??= { Queue: ([, , element]) => MathJax.typesetPromise([element]) };
    }
  });
})();
