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

  // A guess is compared when its fold opens.
  each(".af-guess", (box) => box.querySelector("details").addEventListener("toggle", () => {
    const [guess, answer] = [box.querySelector("input").valueAsNumber, Number(box.dataset.answer)];
    const times = Math.max(guess / answer, answer / guess).toFixed(1);
    const said = times === "1.0" ? "which is right" : `${times} times too ${guess < answer ? "few" : "many"}`;
    box.querySelector("output").textContent = guess > 0 ? `Your guess: ${guess}, ${said}.` : "";
  }));

  // A box that scrolls has to be reachable by keyboard.
  const boxes = ".bd-article :is(pre, .output, .math, .af-table, .pst-scrollable-table-container)";
  const repair = () => each(boxes, (box) => {
    const down = getComputedStyle(box).overflowY !== "hidden" && box.scrollHeight > box.clientHeight;
    if (down || box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  repair();
  window.addEventListener("load", repair);
  window.addEventListener("resize", repair);
  document.addEventListener("toggle", repair, true); // a fold has opened
});
