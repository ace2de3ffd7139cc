// The sliders of an explorer: its pictures lie in a file of their own, which is fetched when the explorer
// comes near the window.  A script file and no JSON, because a page opened from a disk may fetch only scripts.
(() => {
  function fetchPictures(address) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.addEventListener("load", () => resolve(script.pictures));
      script.addEventListener("error", reject);
      script.src = address;
      document.head.append(script);
    });
  }

  function start(explorer) {
    const sliders = [...explorer.querySelectorAll("input[type=range]")];
    const picture = explorer.querySelector(".af-picture");
    const trouble = explorer.querySelector(".af-trouble");
    let pictures, loading;

    function draw() {
      // The pictures of all values of the last slider lie beside each other.
      const index = sliders.reduce((sum, slider) => sum * (Number(slider.max) + 1) + slider.valueAsNumber, 0);
      if (pictures) picture.innerHTML = pictures[index];
    }

    function load() {
      loading ??= fetchPictures(explorer.dataset.pictures).then((fetched) => {
        pictures = fetched;
        trouble.textContent = "";
        explorer.dataset.live = "";
        if (sliders.some((slider) => slider.valueAsNumber)) draw();
      }, () => {
        loading = undefined;
        trouble.textContent = "The other pictures could not be loaded. Move a slider to try again.";
      });
    }

    for (const slider of sliders) {
      const values = JSON.parse(slider.dataset.values);
      const readout = slider.parentElement.querySelector(".widget-readout");
      slider.addEventListener("input", () => {
        readout.textContent = values[slider.valueAsNumber];
        slider.setAttribute("aria-valuetext", readout.textContent);
        load();
        draw();
      });
    }
    // What lies in a cell that isn't laid out yet is no place to observe, but the cell is.
    const nearby = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      nearby.disconnect();
      load();
    }, { rootMargin: "50%" });
    nearby.observe(explorer.closest(".cell") ?? explorer);
  }

  document.querySelectorAll(".af-explorer").forEach(start);
})();
