// After the fonts have loaded: what is too wide is made smaller, what is short is kept on one page.
async () => {
  await document.fonts.ready;
  const wide = [];
  for (const box of document.querySelectorAll("table, div.math, pre")) {
    const room = box.parentElement.clientWidth;
    const fits = () => box.scrollWidth <= room + 1;
    for (let size = 96; size >= 60 && !fits(); size -= 4) box.style.fontSize = `${size}%`;
    if (!fits()) wide.push(box.textContent.trim().slice(0, 80));
  }
  // The browser would print everything smaller for the sake of one wide box.
  if (document.documentElement.scrollWidth > innerWidth) wide.push("the document");
  const most = 105 * 96 / 25.4; // 105 mm, less than half of the page's text
  const short = (box) => box.getBoundingClientRect().height < most;
  const boxes = document.querySelectorAll(
    ".cell, .admonition, .proof, .unfolded, .af-claim, .af-entry, table, pre, dl.py");
  [...boxes].filter(short).forEach((box) => box.classList.add("keep"));

  const places = [...document.querySelectorAll("[id]")].map((place) => place.id);
  const links = [...document.querySelectorAll("a[href^='#']")];
  const targets = [...new Set(links.map((link) => link.getAttribute("href").slice(1)))];
  return {
    wide,
    dangling: targets.filter((target) => !places.includes(target)),
    ambiguous: targets.filter(
      (target) => places.indexOf(target) !== places.lastIndexOf(target)),
    headings: [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(
      (heading) => heading.dataset.spoken),
  };
}
