"use strict";
// What all pages share: the data beside it, elements, figures, and charts that follow the colours.
const DATA = JSON.parse(document.getElementById("data").textContent);
const charts = [];

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function bytes(count) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (count < 1000) return `${unit === "B" ? count.toFixed(0) : count.toFixed(1)} ${unit}`;
    count /= 1000;
  }
  return `${count.toFixed(1)} TB`;
}

function figure(value, digits) {
  return value === null || value === undefined ? "same" : value.toFixed(digits);
}

function axis(title, more = {}) {
  return {
    title: { display: true, text: title, color: colour("faint") },
    ticks: { color: colour("faint"), ...(more.ticks || {}) },
    grid: { color: colour("line") },
    ...Object.fromEntries(Object.entries(more).filter(([name]) => name !== "ticks")),
  };
}

// A logarithmic axis. Of many ticks only some have a label: at the end of a decade they are close together.
function logarithmic(title) {
  const labelled = (value) => [1, 2, 3, 5].includes(Number((value / 10 ** Math.floor(Math.log10(value) + 1e-9)).toPrecision(3)));
  const callback = (value, _, ticks) => (ticks.length < 12 || labelled(value) ? value.toLocaleString("en") : "");
  return axis(title, { type: "logarithmic", ticks: { callback } });
}

// A chart in a box; `build` gives its configuration, again whenever the colours change.
function plot(parent, name, build, low = false) {
  const canvas = make("canvas", { role: "img", "aria-label": name });
  parent.append(make("div", { class: low ? "plot low" : "plot" }, canvas));
  const held = { canvas, chart: null };
  held.draw = () => {
    if (held.chart) held.chart.destroy();
    const config = build();
    config.options = {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      ...config.options,
    };
    config.options.plugins = { legend: { labels: { color: colour("text"), usePointStyle: true } }, ...config.options.plugins };
    held.chart = new Chart(canvas, config);
  };
  charts.push(held);
  held.draw();
  return held;
}

function redraw() {
  for (const held of charts) held.draw();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => { document.documentElement.classList.add("print"); redraw(); });
addEventListener("afterprint", () => { document.documentElement.classList.remove("print"); redraw(); });

function copyButton(text) {
  const button = make("button", { type: "button", text: "copy" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "copied";
    } catch {
      button.textContent = "select it and copy";
    }
  });
  return button;
}
