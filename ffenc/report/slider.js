"use strict";
// One picture over another, with a bar between; at 1:1 or larger.
function slider(name, under, over, labels, width, height, zoom = 2) {
  const one = make("img", { src: under, alt: labels[0], width, height });
  const two = make("img", { src: over, alt: labels[1], width, height, class: "over" });
  const bar = make("div", { class: "bar" });
  const box = make("div", { class: "ab" }, one, two, bar);
  const range = make("input", { type: "range", min: 0, max: 1000, value: 500, "aria-label": `${name}: ${labels.join(" and ")}` });
  const left = make("span", { class: "faint", text: `left: ${labels[0]}` });
  const right = make("span", { class: "faint" });
  const buttons = [1, 2, 4].map((scale) => make("button", { type: "button", text: scale === 1 ? "1:1" : `${scale}x`, onclick: () => zoomed(scale) }));
  const held = { element: null, over: two, range, buttons };
  function moved() {
    const share = range.value / 1000;
    two.style.clipPath = `inset(0 0 0 ${share * 100}%)`;
    bar.style.left = `calc(${share * 100}% - 1px)`;
  }
  function zoomed(scale) {
    for (const image of [one, two]) {
      image.style.width = `${width * scale}px`;
      image.style.height = `${height * scale}px`;
    }
    box.style.width = `${width * scale}px`;
    range.style.width = `min(100%, ${width * scale}px)`;
    buttons.forEach((button, i) => button.classList.toggle("on", [1, 2, 4][i] === scale));
  }
  held.show = (source, label) => {
    two.src = source;
    two.alt = label;
    right.textContent = `right: ${label}`;
  };
  range.addEventListener("input", moved);
  box.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" || event.buttons) {
      const place = box.getBoundingClientRect();
      range.value = Math.round(((event.clientX - place.left) / place.width) * 1000);
      moved();
    }
  });
  held.show(over, labels[1]);
  zoomed(zoom);
  moved();
  held.element = make("div", {}, make("h3", { text: name }), make("div", { class: "row" }, ...buttons, left, right), make("div", { class: "window" }, box), range);
  return held;
}
