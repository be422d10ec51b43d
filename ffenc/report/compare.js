"use strict";
const REPORT = DATA.report;
const NAMES = (side) => side.path.replace(/[/\\]+$/, "").split(/[/\\]/).pop();

function unitOf(camera, name) {
  if (camera.depth) return "largest error of a frame (mm)";
  const metric = REPORT.metrics[name];
  return metric.label + (metric.unit ? ` (${metric.unit})` : "");
}

function valuesOf(camera, side, name) {
  return Object.values(camera.depth ? side.largest_mm : side.values[name]).flat();
}

REPORT.cameras.forEach((camera, index) => {
  const grid = make("div", { class: "grid" });
  document.querySelector("main").append(make("section", { id: `camera-${index}` },
    make("h2", { text: camera.camera }),
    make("p", { class: "faint", text: `${camera.frames} frames of ${REPORT.reference} (${camera.stored}, ${bytes(camera.bytes_per_frame)} a frame)` }),
    grid));
  const first = camera.results[0];
  const places = Object.entries(first.episodes).flatMap(([episode, length]) => Array.from({ length }, (_, i) => `episode ${episode}, frame ${i}`));

  // Figures.
  const names = camera.depth ? [] : Object.keys(first.quality);
  const head = camera.depth
    ? ["", "stream", "B/frame", "50 % (mm)", "99 %", "largest", "edges 99 %", "outside", "holes filled"]
    : ["", "stream", "B/frame", ...names.flatMap((name) => [`${REPORT.metrics[name].label} mean`, "5 %", "worst"])];
  const rows = camera.results.map((side) => {
    const cells = camera.depth
      ? [...["p50", "p99", "max"].map((name) => side.error_mm.all[name].toFixed(1)), side.error_mm.edges.p99.toFixed(1), `${(side.error_mm.saturated * 100).toFixed(2)} %`, `${(side.error_mm.holes_filled * 100).toFixed(2)} %`]
      : names.flatMap((name) => ["mean", "p5", "worst"].map((part) => figure(side.quality[name][part], REPORT.metrics[name].digits)));
    return make("tr", {}, ...[NAMES(side), side.stored, side.bytes_per_frame.toFixed(0), ...cells].map((text) => make("td", { text })));
  });
  const worst = camera.results.map((side) => {
    const places = side.worst.map((one) => `episode ${one.episode} frame ${one.frame} (${figure(one.value, camera.depth ? 1 : REPORT.metrics[REPORT.metric].digits)})`);
    return make("p", { class: "faint", text: `${NAMES(side)}, worst frames by ${camera.depth ? "error in mm" : REPORT.metrics[REPORT.metric].label}: ${places.join(", ")}` });
  });
  grid.append(make("div", { class: "card wide" }, make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { text })))), make("tbody", {}, ...rows))), ...worst));

  // Frame by frame.
  let chosen = REPORT.metric;
  const card = make("div", { class: "card wide" }, make("h3", { text: "Frame by frame" }));
  const buttons = names.map((name) => make("button", { type: "button", class: name === chosen ? "on" : "", text: REPORT.metrics[name].label, onclick: (event) => {
    chosen = name;
    buttons.forEach((button) => button.classList.toggle("on", button === event.target));
    lines.draw();
  } }));
  card.append(make("div", { class: "row" }, ...buttons));
  grid.append(card);
  const lines = plot(card, `${camera.camera}: quality of each frame`, () => {
    const sets = camera.results.flatMap((side, i) => {
      const values = valuesOf(camera, side, chosen);
      const known = values.filter((value) => value !== null);
      const bad = camera.depth ? Math.max(...known) : Math.min(...known);
      return [
        { label: NAMES(side), data: values, borderColor: colour(`c${i % 8}`), backgroundColor: colour(`c${i % 8}`), borderWidth: 1.5, pointRadius: 0, pointHitRadius: 6, pointStyle: "line" },
        { label: `${NAMES(side)}: worst`, data: values.map((value) => (value === bad ? value : null)), borderColor: colour("bad"), backgroundColor: colour(`c${i % 8}`), pointRadius: 6, showLine: false, pointStyle: "triangle" },
      ];
    });
    return {
      type: "line",
      data: { labels: places.map((_, i) => i), datasets: sets },
      options: {
        scales: { x: axis("frame, episode after episode"), y: axis(unitOf(camera, chosen)) },
        plugins: { tooltip: { callbacks: { title: (items) => (items[0] ? places[items[0].dataIndex] : "") } } },
      },
    };
  });

  // Pictures.
  for (const pair of DATA.pictures[camera.camera] || []) {
    const box = slider(pair.name, pair.source, pair.shown, ["source", pair.other], pair.width, pair.height, pair.width > 400 ? 1 : 2);
    grid.append(make("div", { class: "card" }, box.element, make("p", { class: "faint", text: pair.about })));
  }
});
