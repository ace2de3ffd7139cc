// The page that computes: the reader's text through MiniLM (minilm.js), and one head cut at rank r.
document.addEventListener("DOMContentLoaded", () => {
  const SVG = "http://www.w3.org/2000/svg";
  const COLOURS = { kept: "#2a7fc9", cut: "#8a8a8a" }; // "trained" and "baseline" of the book's figures
  const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
  const MOST_NAMES = 28; // tokens whose names fit beside a heat map

  const form = document.querySelector(".af-your-text"), computed = document.querySelector(".af-computed");
  const [field, button, progress, status] = ["textarea", "button", "progress", "[role=status]"].map((part) => form.querySelector(part));
  const [list, heads, slider, readout, figure, ranksLine] = [".af-tokens", ".af-heads", "#your-rank", ".widget-readout", "figure", ".af-ranks"]
    .map((part) => computed.querySelector(part));
  let tokens, spectra; // spectra: of each head its A, singular values, right singular vectors and ranks
  let chosen = 0, rank = 0, busy = false;

  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const name = (head) => `layer ${Math.floor(head / MiniLM.HEADS) + 1}, head ${head % MiniLM.HEADS + 1}`;
  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // --- Ranks, as helpers.maths.spectrum computes them -----------------------------------------------------

  const total = (values) => values.reduce((a, b) => a + b, 0);
  function smallestCount(weights, fraction) {
    const enough = (fraction - 8 * Number.EPSILON) * total(weights);
    let held = 0;
    return weights.findIndex((weight) => (held += weight) >= enough) + 1;
  }
  function ranks(values) {
    const squares = values.map((value) => value ** 2), sum = total(values);
    const entropy = -total(values.map((value) => (value ? value / sum * Math.log(value / sum) : 0)));
    return {
      "k₉₉": smallestCount(squares, 0.99), "nuclear rank (90 %)": smallestCount(values, 0.9),
      "effective rank": Math.exp(entropy).toFixed(1), "stable rank": (total(squares) / squares[0]).toFixed(1),
    };
  }

  // --- Panels, in the style of the book's figures ---------------------------------------------------------

  function draw(parent, tag, attributes, text = "") {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    parent.append(made);
    return made;
  }
  const LEFT = 46, TOP = 20, SIDE = 150;
  function panel(title, x, y) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 202 214");
    svg.setAttribute("aria-hidden", "true");
    const middle = { "text-anchor": "middle", fill: "currentColor", "font-size": 9 };
    draw(svg, "text", { ...middle, x: LEFT + SIDE / 2, y: TOP - 7 }, title);
    draw(svg, "text", { ...middle, x: LEFT + SIDE / 2, y: TOP + SIDE + 25 }, x);
    draw(svg, "text", { ...middle, transform: `translate(8 ${TOP + SIDE / 2}) rotate(-90)` }, y);
    return svg;
  }
  const tick = (svg, place, text, size = 8) => draw(svg, "text", { fill: "currentColor", "font-size": size, ...place }, text);

  function heatMap(title, matrix, largest) {
    const n = tokens.length, named = n <= MOST_NAMES, step = SIDE / n;
    const svg = panel(title, named ? "" : "key j", named ? "" : "query i");
    const canvas = element("canvas", { width: n, height: n }), context = canvas.getContext("2d");
    const pixels = context.createImageData(n, n);
    matrix.forEach((weight, place) => {
      const at = (VIRIDIS.length - 1) * Math.min(Math.max(weight / largest, 0), 1);
      const low = Math.min(Math.floor(at), VIRIDIS.length - 2);
      const colour = VIRIDIS[low].map((part, i) => part + (at - low) * (VIRIDIS[low + 1][i] - part));
      pixels.data.set([...colour, 255], 4 * place);
    });
    context.putImageData(pixels, 0, 0);
    const href = canvas.toDataURL();
    draw(svg, "image", { href, x: LEFT, y: TOP, width: SIDE, height: SIDE, preserveAspectRatio: "none", style: "image-rendering: pixelated" });
    const shown = named ? tokens.map((token, i) => [i, [...token].slice(0, 9).join("")]) : [0, n / 2 | 0, n - 1].map((i) => [i, i + 1]);
    for (const [i, text] of shown) {
      const at = (i + 0.5) * step, size = named ? Math.min(7, step) : 8;
      tick(svg, { x: LEFT - 3, y: TOP + at, "text-anchor": "end", "dominant-baseline": "central" }, text, size);
      const turned = named ? `translate(${LEFT + at} ${TOP + SIDE + 4}) rotate(-90)` : `translate(${LEFT + at} ${TOP + SIDE + 11})`;
      tick(svg, { transform: turned, "text-anchor": named ? "end" : "middle", "dominant-baseline": named ? "central" : "auto" }, text, size);
    }
    return svg;
  }

  function valuesPanel(values, k99) {
    const n = values.length, svg = panel("singular values", "k", "σₖ");
    const top = Math.log10(values[0]) + 0.1, bottom = Math.max(Math.log10(values.at(-1)), top - 3) - 0.1;
    const x = (k) => LEFT + SIDE * (k - 0.5) / n, y = (value) => TOP + SIDE * (top - Math.log10(value)) / (top - bottom);
    draw(svg, "path", { d: `M${LEFT} ${TOP}v${SIDE}h${SIDE}`, fill: "none", stroke: "currentColor", "stroke-width": 0.6 });
    for (const k of new Set([1, Math.ceil(n / 2), n])) tick(svg, { x: x(k), y: TOP + SIDE + 11, "text-anchor": "middle" }, k);
    for (let power = Math.ceil(bottom); power <= top; power++) {
      tick(svg, { x: LEFT - 4, y: y(10 ** power), "text-anchor": "end", "dominant-baseline": "central" }, String(10 ** power));
    }
    const edge = x(k99 + 0.5), right = k99 > n / 2;
    draw(svg, "path", { d: `M${edge} ${TOP}v${SIDE}`, stroke: "currentColor", "stroke-dasharray": "2 2" });
    tick(svg, { x: edge + (right ? -3 : 3), y: TOP + 8, "text-anchor": right ? "end" : "start" }, `k₉₉ = ${k99}`);
    values.forEach((value, i) => {
      if (Math.log10(value) < bottom) return;
      const [stroke, fill] = i < rank ? [COLOURS.kept, COLOURS.kept] : [COLOURS.cut, "none"];
      draw(svg, "circle", { cx: x(i + 1), cy: y(value), r: 2, stroke, fill });
    });
    return svg;
  }

  // --- One head at one rank ---------------------------------------------------------------------------------

  function show() {
    const { A, values, vectors, ranks } = spectra[chosen], n = tokens.length;
    const squares = values.map((value) => value ** 2), energy = total(squares.slice(0, rank)) / total(squares);
    const error = Math.sqrt(total(squares.slice(rank)) / total(squares));
    const largest = Math.max(...A), place = A.indexOf(largest);
    const said = `relative error ${percent(error)}, energy kept ${percent(energy)}`;
    readout.textContent = `r = ${rank} of ${n}: ${said}`;
    slider.setAttribute("aria-valuetext", readout.textContent);
    figure.dataset.singularValues = JSON.stringify(values);
    const panels = figure.firstElementChild;
    panels.replaceChildren(
      heatMap(`A, ${name(chosen)}`, A, largest), heatMap(`Aᵣ at r = ${rank}`, MiniLM.truncate(A, vectors, rank), largest),
      valuesPanel(values, ranks["k₉₉"]),
    );
    panels.setAttribute("aria-label", `Attention of ${name(chosen)} on ${n} tokens. The largest weight is ${largest.toFixed(2)}, from `
      + `“${tokens[Math.floor(place / n)]}” to “${tokens[place % n]}”. The first singular values are `
      + `${values.slice(0, 3).map((value) => value.toFixed(2)).join(", ")}. Cut at rank ${rank}: ${said}.`);
    figure.lastElementChild.textContent = `Each row is a token that looks, each column one that is looked at. First: A; yellow is its `
      + `largest weight, ${largest.toFixed(2)}. Second: its best approximation of rank r, in the same colours. Third: the singular `
      + "values on a log scale, filled where they are kept; those below a thousandth of the largest are left out.";
    ranksLine.textContent = `Ranks of ${name(chosen)}: ${Object.entries(ranks).map(([kind, value]) => `${kind} ${value}`).join(", ")}.`;
  }

  function choose(head) {
    chosen = head;
    show();
  }

  // Radio buttons in a table: one stop of the tab key, arrow keys go on, up and down by a layer.
  function listHeads() {
    const numbers = Array.from({ length: MiniLM.HEADS }, (_, head) => head);
    const header = (scope, text) => element("th", { scope }, text);
    const radio = (head) => {
      const k99 = spectra[head].ranks["k₉₉"];
      const input = element("input", { type: "radio", name: "head", value: head, checked: head === chosen });
      input.setAttribute("aria-label", `${name(head)}, k₉₉ ${k99}`);
      const cell = element("td", {}, element("label", {}, input, String(k99)));
      cell.style.setProperty("--share", k99 / tokens.length);
      return cell;
    };
    const layers = Array.from({ length: MiniLM.LAYERS }, (_, layer) => (
      element("tr", {}, header("row", `layer ${layer + 1}`), ...numbers.map((head) => radio(layer * MiniLM.HEADS + head)))
    ));
    heads.replaceChildren(element("table", {},
      element("caption", {}, `k₉₉ of every head, of ${tokens.length}. Choose a head to see it below.`),
      element("thead", {}, element("tr", {}, header("col", "head"), ...numbers.map((head) => header("col", head + 1)))),
      element("tbody", {}, ...layers)));
  }
  heads.addEventListener("change", (event) => choose(Number(event.target.value)));
  heads.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -MiniLM.HEADS, ArrowDown: MiniLM.HEADS }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = heads.querySelector(`input[value="${chosen + step}"]`);
    next?.focus();
    next?.click();
  });
  slider.addEventListener("input", () => {
    rank = slider.valueAsNumber;
    show();
  });

  // --- From the text to the figure ----------------------------------------------------------------------------

  async function moved(share) {
    progress.value = share;
    await new Promise((resolve) => { setTimeout(resolve); }); // the browser draws, and listens
  }

  async function compute() {
    status.textContent = "Loading the model, at most 30 MB …";
    const read = await MiniLM.tokenize(field.value);
    if (!read.pieces) {
      status.textContent = "There is nothing to read yet. Write a few words, then press the button.";
      computed.hidden = true;
      return field.focus();
    }
    const maps = await MiniLM.attention(read.ids, moved, () => { status.textContent = "Computing …"; });
    const found = [];
    for (const A of maps) {
      const { values, vectors } = MiniLM.decompose(A, read.ids.length);
      found.push({ A, values, vectors, ranks: ranks(values) });
      if (found.length % MiniLM.HEADS === 0) await moved(0.8 + 0.2 * found.length / maps.length);
    }
    [tokens, spectra] = [read.tokens, found];
    const n = tokens.length, kept = n - 2, unknown = tokens.filter((token) => token === "[UNK]").length;
    list.dir = getComputedStyle(field).direction;
    list.replaceChildren(...tokens.map((token) => element("li", { dir: "auto" }, token)));
    slider.max = n;
    rank = Math.min(rank || Math.ceil(spectra[chosen].ranks["k₉₉"] / 3), n);
    slider.value = rank;
    computed.hidden = false;
    listHeads();
    show();
    window.dispatchEvent(new Event("resize")); // book.js looks which boxes scroll
    if (computed.getBoundingClientRect().top > innerHeight / 2) button.scrollIntoView(); // a phone shows the results, too
    status.textContent = `Done: ${n} tokens, ${maps.length} heads.`
      + (kept < read.pieces ? ` The text is longer than MiniLM gets here: the first ${kept} of ${read.pieces} word pieces are read.` : "")
      + (unknown ? ` Not in its vocabulary and read as [UNK]: ${unknown} of ${kept}.` : "");
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    button.setAttribute("aria-disabled", "true");
    progress.value = 0;
    progress.hidden = false;
    try {
      await compute();
    } catch {
      status.textContent = "A file of the model did not load. Press the button to try again; what has come is kept.";
    }
    progress.hidden = true;
    button.removeAttribute("aria-disabled");
    busy = false;
  });
});
