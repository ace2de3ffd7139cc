// Accessible names and keyboard access that the theme leaves out.
(() => {
  const each = (selector, action, root = document) => root.querySelectorAll(selector).forEach(action);

  // Without a server a page cannot fetch other pages, so searching shows titles without excerpts.
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object") {
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  }

  // An index entry's anchor is empty, and Sphinx's search then fails to add an excerpt: it gets the page's.
  function repairSearch() {
    if (typeof Search !== "object") return;
    const { makeSearchSummary } = Search;
    Search.makeSearchSummary = (html, words, anchor) =>
      makeSearchSummary(html, words, anchor) ?? makeSearchSummary(html, words);
  }

  function repairTheme() {
    // The visible text of these buttons is their name; a differing label hides it from voice control.
    each(".search-button-field, summary[aria-label]", (button) => button.removeAttribute("aria-label"));
    each(".theme-switch-button", (button) => {
      const names = [...button.querySelectorAll("i[title]")].map((icon) => icon.title);
      button.setAttribute("aria-label", `Color mode: ${names.join(", ")}`);
    });
    each("#pst-primary-sidebar", (sidebar) => {
      sidebar.setAttribute("role", "region");
      sidebar.setAttribute("aria-label", "Book");
    });
  }

  // A box that scrolls has to be reachable by keyboard.  Which ones do is known once all is laid out (see book.css),
  // which is done when somebody uses the keyboard.
  function watchScrolling() {
    const repair = () => {
      each(".bd-article :is(pre, .output, .math, .af-table, .pst-scrollable-table-container)", (box) => {
        const down = getComputedStyle(box).overflowY !== "hidden" && box.scrollHeight > box.clientHeight;
        if (down || box.scrollWidth > box.clientWidth) box.tabIndex = 0;
        else box.removeAttribute("tabindex");
      });
    };
    window.addEventListener("keydown", () => {
      document.documentElement.classList.add("af-laid-out");
      repair();
      window.addEventListener("resize", repair);
    }, { once: true });
  }

  // Heights above the place that a link leads to are guessed at first (see book.css); once more when they are known.
  function settle() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    requestAnimationFrame(() => requestAnimationFrame(() => target?.scrollIntoView({ behavior: "instant" })));
  }

  document.addEventListener("DOMContentLoaded", () => {
    repairSearch();
    repairTheme();
    watchScrolling();
  });
  window.addEventListener("load", () => {
    const [visit] = performance.getEntriesByType("navigation");
    if (visit?.type === "navigate") settle();
  });
  window.addEventListener("hashchange", settle);
})();
