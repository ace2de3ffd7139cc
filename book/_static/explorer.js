// The sliders of an explorer: its pictures stand in the page as text, in the order of the sliders' values.
function moveExplorer(explorer) {
  const sliders = [...explorer.querySelectorAll("input[type=range]")];
  const picture = explorer.querySelector(".af-picture");
  let pictures;

  function draw() {
    pictures ??= JSON.parse(explorer.querySelector(".af-pictures").textContent);
    // The pictures of all values of the last slider lie beside each other.
    const index = sliders.reduce((sum, slider) => sum * (Number(slider.max) + 1) + slider.valueAsNumber, 0);
    picture.innerHTML = pictures[index];
  }

  for (const slider of sliders) {
    const values = JSON.parse(slider.dataset.values);
    const readout = slider.parentElement.querySelector(".widget-readout");
    slider.addEventListener("input", () => {
      readout.textContent = values[slider.valueAsNumber];
      draw();
      const shown = picture.querySelector("[role=img]")?.getAttribute("aria-label");
      slider.setAttribute("aria-valuetext", [readout.textContent, shown].filter(Boolean).join(": "));
    });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".af-explorer").forEach(moveExplorer);
});
