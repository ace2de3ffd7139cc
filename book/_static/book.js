// Accessible names and keyboard access that the theme leaves out.
document.addEventListener("DOMContentLoaded", () => {
  const each = (selector, action) => document.querySelectorAll(selector).forEach(action);

  // Without a server a page cannot fetch other pages, so searching shows titles without excerpts.
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object") {
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  }
  // An index entry's anchor is empty, and Sphinx's search then fails to add an excerpt: it gets the page's.
  if (typeof Search === "object") {
    const { makeSearchSummary } = Search;
    Search.makeSearchSummary = (html, words, anchor) =>
      makeSearchSummary(html, words, anchor) ?? makeSearchSummary(html, words);
  }

  // The visible text of these buttons is their name; a differing label hides it from voice control.
  each(".search-button-field, summary[aria-label]", (button) => button.removeAttribute("aria-label"));
  each(".theme-switch-button", (button) => {
    const names = [...button.querySelectorAll("[title], title")].map((icon) => icon.title || icon.textContent);
    button.setAttribute("aria-label", `Color mode: ${names.join(", ")}`);
  });
  each("#pst-primary-sidebar", (sidebar) => {
    sidebar.setAttribute("role", "region");
    sidebar.setAttribute("aria-label", "Book");
  });

  // A guess is compared when its fold opens, and when it changes.
  function comparison(guess, answer, isChoice) {
    if (Number.isNaN(guess)) return "";
    const times = Math.max(guess / answer, answer / guess).toFixed(1);
    if (guess === answer || times === "1.0") return `Your guess: ${guess}, which is right.`;
    if (isChoice) return `Your guess: ${guess}, another one is right.`;
    const size = Number.isFinite(Number(times)) ? `${times} times ` : "";
    return `Your guess: ${guess}, ${size}too ${guess < answer ? "few" : "many"}.`;
  }
  each(".af-guess", (box) => {
    const [input, fold, said] = ["input", "details", "output > span"].map((part) => box.querySelector(part));
    const compare = () => {
      if (fold.open) said.textContent = comparison(input.valueAsNumber, Number(box.dataset.answer), "choice" in box.dataset);
    };
    fold.addEventListener("toggle", compare);
    input.addEventListener("input", compare);
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") fold.open = true; });
  });

  // The drawers of a narrow window have no name, and closing one loses the place.
  for (const [side, name] of [["primary", "Book"], ["secondary", "On this page"]]) {
    each(`#pst-${side}-sidebar-modal`, (drawer) => {
      drawer.setAttribute("aria-label", name);
      drawer.addEventListener("close", () => document.querySelector(`.${side}-toggle`)?.focus());
    });
  }

  // A box that scrolls has to be reachable by keyboard.
  const boxes = ".bd-article :is(pre, .output, .math, .af-table, .af-panels, .pst-scrollable-table-container)";
  const repair = () => each(boxes, (box) => {
    const down = getComputedStyle(box).overflowY !== "hidden" && box.scrollHeight > box.clientHeight;
    // A formula in a line is often two pixels wider than its box, with nothing to scroll to.
    if (down || box.scrollWidth > box.clientWidth + 4) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  repair();
  window.addEventListener("load", repair);
  window.addEventListener("resize", repair);
  document.addEventListener("toggle", repair, true); // a fold has opened
});
