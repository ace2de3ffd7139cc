// Accessible names and keyboard access that the theme and ipywidgets leave out.
(() => {
  const each = (selector, action, root = document) => root.querySelectorAll(selector).forEach(action);

  // Without a server a page cannot fetch other pages, so searching shows titles without excerpts.
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object") {
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  }

  function repairTheme() {
    // The visible text of these buttons is their name; a differing label hides it from voice control.
    each(".search-button-field, summary[aria-label]", (button) => button.removeAttribute("aria-label"));
    each(".theme-switch-button", (button) => {
      // Its icons carry their names as an attribute, or as an element once FontAwesome has drawn them.
      const names = [...button.querySelectorAll("i[title], svg > title")].map((e) => e.title ?? e.textContent);
      button.setAttribute("aria-label", `Color mode: ${names.join(", ")}`);
    });
    each("#pst-primary-sidebar", (sidebar) => {
      sidebar.setAttribute("role", "region");
      sidebar.setAttribute("aria-label", "Book");
    });
  }

  // A box that scrolls has to be reachable by keyboard.
  function repairScrolling() {
    each(".bd-article :is(pre, .output, .math, .af-table, .pst-scrollable-table-container)", (box) => {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    });
  }

  function repairSlider(slider) {
    const handle = slider.querySelector(".noUi-handle");
    const readout = slider.querySelector(".widget-readout");
    if (!handle || handle.hasAttribute("aria-label")) return;
    handle.setAttribute("aria-label", slider.querySelector(".widget-label")?.textContent || "Value");
    readout.removeAttribute("contenteditable"); // it looks like text, and typing into it does nothing
    const speak = () => handle.setAttribute("aria-valuetext", readout.textContent);
    new MutationObserver(speak).observe(readout, { childList: true, characterData: true, subtree: true });
    speak();
  }

  function repairWidgets(root) {
    each(".widget-slider", repairSlider, root);
    each(".widget-play button", (button) => {
      button.setAttribute("aria-label", button.title || "Play");
    }, root);
    each("label.widget-label[title='null']", (label) => label.removeAttribute("title"), root);
  }

  document.addEventListener("DOMContentLoaded", () => {
    repairTheme();
    repairWidgets(document);
    repairScrolling();
    // Widgets are drawn after the page has loaded.
    new MutationObserver((changes) => {
      if (changes.some((change) => change.addedNodes.length)) repairWidgets(document);
    }).observe(document.querySelector(".bd-article") ?? document.body, { childList: true, subtree: true });
  });
  window.addEventListener("load", repairScrolling);
  window.addEventListener("resize", repairScrolling);
})();
