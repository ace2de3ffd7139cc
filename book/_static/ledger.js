// The ledger's filter. Without this script all claims show and the controls stay hidden.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".af-filter");
  if (!form) return;
  const entries = [...document.querySelectorAll(".af-entry")].map((box) => ({
    box,
    text: box.textContent.toLowerCase(),
    tile: document.querySelector(`.af-tile[href="#${box.id}"]`),
  }));
  const sections = [...document.querySelectorAll("section")].filter(
    (section) => section.querySelector(":scope > .af-entry"),
  );

  const fits = ({ box, text }, { words, ...choices }) =>
    words.toLowerCase().split(/\s+/).every((word) => text.includes(word)) &&
    Object.entries(choices).every(([name, value]) => !value || box.classList.contains(`af-${name}-${value}`));

  function filter() {
    const wanted = Object.fromEntries(new FormData(form));
    for (const entry of entries) {
      entry.box.hidden = !fits(entry, wanted);
      entry.tile?.classList.toggle("af-faded", entry.box.hidden);
    }
    for (const section of sections) section.hidden = !section.querySelector(":scope > .af-entry:not([hidden])");
    const shown = entries.filter(({ box }) => !box.hidden).length;
    form.querySelector("output").textContent = `${shown} of ${entries.length} claims${shown ? "" : "; press “all claims”"}`;
    // The address keeps the choice, so that a filtered ledger can be linked to.
    const kept = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
    history.replaceState(null, "", `${location.pathname}${kept.size ? `?${kept}` : ""}${location.hash}`);
  }

  // A link to a claim that the filter hides takes the filter off.
  function reveal() {
    const target = document.getElementById(location.hash.slice(1));
    if (!target?.closest("[hidden]")) return;
    form.reset();
    filter();
    target.scrollIntoView();
  }

  for (const [name, value] of new URLSearchParams(location.search)) {
    if (form.elements[name]) form.elements[name].value = value;
  }
  form.hidden = false;
  filter();
  reveal();
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter)); // the fields are emptied after the event
  window.addEventListener("hashchange", reveal);
});
