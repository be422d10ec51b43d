"use strict";
const REPORT = DATA.report;
const METRIC = REPORT.metrics[REPORT.metric];
const READER = (row) => Object.values(row.decode)[0];
const WINDOWS = [["random_1", "1 random frame"], ["window_2", "2 frames"], ["window_6", "6 frames"]];
const STYLES = ["circle", "rectRot", "triangle", "rect", "star", "crossRot", "cross", "dash"];

function quality(row, name = REPORT.metric) {
  const one = row.quality[name], metric = REPORT.metrics[name];
  return ["mean", "p5", "worst"].map((part) => figure(one[part], metric.digits));
}

// Of those of the table it was measured for a while; of the others with the sample, starts included.
function alone(row) {
  return row.encode_fps_alone === null ? row.encode_fps : row.encode_fps_alone;
}

function size(row) {
  return row.ratio < 1 ? `${(1 / row.ratio).toFixed(1)} times larger` : `${row.ratio.toFixed(1)} times smaller`;
}

function about(row) {
  const [mean, low, worst] = quality(row);
  const reads = READER(row);
  const lines = [
    `${bytes(row.bytes_per_frame)} a frame, ${size(row)} than the source`,
    `${METRIC.label} ${mean} (5 % below ${low}, worst ${worst})`,
    ...Object.keys(row.quality).filter((name) => name !== REPORT.metric).map((name) => `${REPORT.metrics[name].label} ${quality(row, name)[0]} ${REPORT.metrics[name].unit}`),
    `encodes ${alone(row).toFixed(0)} frames/s` + (row.encode_fps_together === null ? "" : `, ${row.encode_fps_together.toFixed(0)} with all cameras`),
  ];
  if (reads) lines.push(`random frame ${(reads.random_1 * 1000).toFixed(1)} ms: ${reads.samples_per_second.random_1.toFixed(0)} samples/s per worker`);
  return lines;
}

function yamlOf(settings, indent) {
  return Object.entries(settings).map(([name, value]) =>
    value !== null && typeof value === "object"
      ? `${indent}${name}:\n${yamlOf(value, indent + "  ")}`
      : `${indent}${name}: ${typeof value === "string" && !/^[A-Za-z][\w.\-]*$/.test(value) ? JSON.stringify(value) : value}\n`).join("");
}

function encoderYaml(camera, row) {
  const depth = camera.depth ? "    depth: true\n" : "";
  return `cameras:\n  ${camera.camera}:\n${depth}    encoder:\n${yamlOf(row.settings, "      ")}`;
}

function recommendation(camera) {
  const card = make("div", { class: "card take wide" });
  const choice = camera.recommendation;
  if (!choice) {
    card.append(make("p", { text: "Nothing was measured." }));
    return card;
  }
  const row = camera.candidates[choice.candidate];
  card.append(
    make("h3", { text: `Recommended: ${row.label}` }),
    make("p", { class: choice.meets_target ? "" : "bad", text: `It ${choice.reason}.` }),
  );
  if (camera.range) {
    const [own, now] = [camera.range, camera.present_range];
    card.append(make("p", { text: `The depth lies in ${own.depth_min} to ${own.depth_max} m; ${(own.saturated * 100).toFixed(2)} % is outside and would saturate, ${(now.saturated * 100).toFixed(2)} % with the current range, ${now.depth_min} to ${now.depth_max} m. ${(own.no_reading * 100).toFixed(1)} % of the pixels are at the sensor's limit.` }));
  }
  return card;
}

function cameraSection(camera, index) {
  const section = make("section", { id: `camera-${index}` });
  const stretches = camera.sample.map((one) => `episode ${one.episode}, frames ${one.first} to ${one.first + one.frames - 1}`);
  section.append(
    make("h2", { text: camera.camera }),
    make("p", { class: "faint", text: `${camera.width}x${camera.height}, ${camera.fps} frames/s, ${camera.stored}, ${bytes(camera.source_bytes_per_frame)} a frame. Tried on ${camera.frames} frames: ${stretches.join("; ")}.` }),
  );
  const grid = make("div", { class: "grid" });
  section.append(grid);
  document.querySelector("main").append(section);
  grid.append(recommendation(camera));
  if (!camera.candidates.length) return;
  (camera.depth ? depthCards : colourCards)(camera, index, grid);
}

function colourCards(camera, index, grid) {
  const rows = camera.candidates;
  const state = { chosen: camera.recommendation.candidate };
  const listeners = [];
  const choose = (number) => { state.chosen = number; listeners.forEach((listener) => listener()); };
  window.choose = window.choose || [];
  window.choose[index] = choose;

  // Size against quality.
  const scatter = make("div", { class: "card wide" }, make("h3", { text: `Size and quality: a point is a candidate; click it to choose` }));
  grid.append(scatter);
  const codecs = [...new Set(rows.map((row) => row.settings.vcodec))];
  const target = /^(\w+)=([\d.]+)$/.exec(REPORT.target);
  const points = plot(scatter, `${camera.camera}: bytes per frame and ${METRIC.label} of each candidate`, () => ({
    type: "scatter",
    data: {
      datasets: [
        ...codecs.map((codec, i) => {
          const own = rows.map((row, number) => ({ row, number })).filter((one) => one.row.settings.vcodec === codec);
          return {
            label: codec,
            data: own.map(({ row, number }) => ({ x: row.bytes_per_frame, y: row.quality[REPORT.metric].mean, number })),
            backgroundColor: colour(`c${i % 8}`),
            borderColor: own.map(({ number }) => (number === state.chosen ? colour("text") : colour(`c${i % 8}`))),
            borderWidth: own.map(({ number }) => (number === state.chosen ? 3 : 1)),
            pointStyle: STYLES[i % STYLES.length],
            radius: own.map(({ number }) => (number === camera.recommendation.candidate ? 9 : number === state.chosen ? 8 : 5)),
            hoverRadius: 10,
          };
        }),
        ...(target && target[1] === REPORT.metric ? [{
          label: `target ${METRIC.label} ${target[2]}`,
          type: "line",
          data: [Math.min(...rows.map((row) => row.bytes_per_frame)), Math.max(...rows.map((row) => row.bytes_per_frame))].map((x) => ({ x, y: Number(target[2]) })),
          borderColor: colour("faint"), borderDash: [6, 4], borderWidth: 1.5, pointRadius: 0, pointHitRadius: 0, pointStyle: "line",
        }] : []),
      ],
    },
    options: {
      scales: {
        x: logarithmic("bytes per frame (B), logarithmic"),
        y: axis(`${METRIC.label}${METRIC.unit ? ` (${METRIC.unit})` : ""}, mean of all frames`),
      },
      plugins: { tooltip: { callbacks: {
        title: (items) => (items[0] && items[0].raw.number !== undefined ? rows[items[0].raw.number].label : ""),
        label: (item) => (item.raw.number === undefined ? item.dataset.label : about(rows[item.raw.number])),
      } } },
      onClick: (event, items) => { const one = items.find((item) => points.chart.data.datasets[item.datasetIndex].data[item.index].number !== undefined); if (one) choose(points.chart.data.datasets[one.datasetIndex].data[one.index].number); },
    },
  }));
  listeners.push(points.draw);

  // What is chosen.
  const title = make("h3"), facts = make("ul", { class: "faint" }), yaml = make("pre");
  grid.append(make("div", { class: "card" }, title, facts, make("div", { class: "row" }, make("span", { class: "faint", text: "for a preset:" }), copyButton(() => yaml.textContent)), yaml));
  listeners.push(() => {
    const row = rows[state.chosen];
    title.textContent = `${row.label}${row.present ? " (current)" : ""}${state.chosen === camera.recommendation.candidate ? " (recommended)" : ""}`;
    facts.replaceChildren(...about(row).map((line) => make("li", { text: line })), make("li", { text: row.encoder }));
    yaml.textContent = encoderYaml(camera, row);
  });

  // Quality over the frames.
  const over = make("div", { class: "card" }, make("h3", { text: `${METRIC.label} of each frame of the sample` }));
  grid.append(over);
  const places = camera.sample.flatMap((one) => Array.from({ length: one.frames }, (_, i) => `episode ${one.episode}, frame ${one.first + i}`));
  const lines = plot(over, `${camera.camera}: ${METRIC.label} of each frame`, () => {
    const row = rows[state.chosen], worst = row.quality[REPORT.metric].worst_frame.sample;
    const values = row.values[REPORT.metric];
    return {
      type: "line",
      data: {
        labels: places.map((_, i) => i),
        datasets: [
          { label: row.label, data: values, borderColor: colour("c0"), backgroundColor: colour("c0"), borderWidth: 1.5, pointRadius: 0, pointHitRadius: 6, pointStyle: "line" },
          { label: "worst frame", data: values.map((value, i) => (i === worst ? value : null)), borderColor: colour("bad"), backgroundColor: colour("bad"), pointRadius: 6, showLine: false, pointStyle: "triangle" },
        ],
      },
      options: {
        scales: { x: axis("frame of the sample, stretch after stretch"), y: axis(`${METRIC.label}${METRIC.unit ? ` (${METRIC.unit})` : ""}`) },
        plugins: { tooltip: { callbacks: { title: (items) => (items[0] ? places[items[0].dataIndex] : "") } } },
      },
    };
  });
  listeners.push(lines.draw);

  // The pictures.
  const pictures = DATA.pictures[camera.key];
  for (const [i, place] of (pictures ? pictures.places : []).entries()) {
    const shown = (number) => pictures.candidates[number] && pictures.candidates[number][i];
    const first = shown(state.chosen);
    if (!first) continue;
    const box = slider(place.name, place.source, first, ["source", rows[state.chosen].label], place.width, place.height);
    box.element.append(make("p", { class: "faint", text: `episode ${place.episode}, frame ${place.frame}, ${place.width}x${place.height} pixels at ${place.x}, ${place.y}` }));
    const missing = make("p", { class: "faint" });
    box.element.append(missing);
    grid.append(make("div", { class: "card" }, box.element));
    listeners.push(() => {
      const source = shown(state.chosen);
      missing.textContent = source ? "" : "No frames of this candidate are shown; only candidates in the table have them.";
      if (source) box.show(source, rows[state.chosen].label);
    });
  }

  // Speeds.
  const names = camera.shown.map((number) => rows[number].label);
  const speed = make("div", { class: "card" }, make("h3", { text: "Encoding speed on this machine" }));
  const reading = make("div", { class: "card" }, make("h3", { text: `Reading time, ${Object.keys(rows[0].decode)[0] || ""}` }));
  grid.append(speed, reading);
  const bars = (sets, unit) => () => ({
    type: "bar",
    data: { labels: names, datasets: sets.map((set, i) => ({ label: set.label, data: camera.shown.map((number) => set.of(rows[number])), backgroundColor: colour(`c${i}`) })) },
    options: { indexAxis: "y", scales: { x: axis(unit, { beginAtZero: true }), y: axis("", { ticks: { autoSkip: false, font: { size: 10 } } }) } },
  });
  plot(speed, `${camera.camera}: encoding speed`, bars([
    { label: "alone", of: alone },
    { label: "all cameras at once, each", of: (row) => row.encode_fps_together },
  ], "frames per second"));
  plot(reading, `${camera.camera}: reading time`, bars(WINDOWS.map(([name, label]) => ({ label, of: (row) => (READER(row) ? READER(row)[name] * 1000 : null) })), "milliseconds"));

  // All of it.
  const head = ["settings", "B/frame", "smaller", `${METRIC.label} mean`, "5 %", "worst", ...Object.keys(REPORT.metrics).filter((name) => name !== REPORT.metric).map((name) => REPORT.metrics[name].label), "encode/s", "at once", ...WINDOWS.map(([, label]) => `${label} (ms)`), "samples/s"];
  const order = rows.map((_, number) => number).sort((a, b) => rows[a].bytes_per_frame - rows[b].bytes_per_frame);
  const body = make("tbody", {}, ...order.map((number) => {
    const row = rows[number], reads = READER(row);
    const cells = [
      row.label + (number === camera.recommendation.candidate ? " (recommended)" : row.present ? " (now)" : ""),
      row.bytes_per_frame.toFixed(0), `${row.ratio.toFixed(1)}x`, ...quality(row),
      ...Object.keys(REPORT.metrics).filter((name) => name !== REPORT.metric).map((name) => quality(row, name)[0]),
      alone(row).toFixed(0), row.encode_fps_together === null ? "" : row.encode_fps_together.toFixed(0),
      ...WINDOWS.map(([name]) => (reads ? (reads[name] * 1000).toFixed(1) : "")),
      reads ? reads.samples_per_second.random_1.toFixed(0) : "",
    ];
    return make("tr", { class: "pick", "data-number": number, tabindex: 0, onclick: () => choose(number), onkeydown: (event) => { if (event.key === "Enter") choose(number); } }, ...cells.map((text) => make("td", { text })));
  }));
  grid.append(make("div", { class: "card wide" }, make("h3", { text: "All candidates" }), make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { text })))), body))));
  listeners.push(() => { for (const row of body.children) row.classList.toggle("chosen", Number(row.dataset.number) === state.chosen); });
  listeners.forEach((listener) => listener());
}

function depthCards(camera, index, grid) {
  const rows = camera.candidates;
  const bands = [...new Map(rows.flatMap((row) => row.depth.bands.map((band) => [band.from, band]))).values()].sort((a, b) => a.from - b.from);
  const card = make("div", { class: "card wide" }, make("h3", { text: "Error by distance, 99th percentile" }));
  grid.append(card);
  plot(card, `${camera.camera}: error of depth by distance`, () => ({
    type: "bar",
    data: {
      labels: bands.map((band) => `${band.from} to ${band.to} m`),
      datasets: rows.map((row, i) => ({
        label: row.label,
        data: bands.map((band) => { const own = row.depth.bands.find((one) => one.from === band.from); return own ? own.p99 : null; }),
        backgroundColor: colour(`c${i % 8}`),
      })),
    },
    options: { scales: { x: axis("distance"), y: logarithmic("millimetres, logarithmic") } },
  }));
  const pictures = DATA.pictures[camera.key];
  for (const [i, place] of (pictures ? pictures.places : []).entries()) {
    const first = camera.recommendation.candidate;
    const box = slider(place.name, place.source, pictures.candidates[first][i], ["source", rows[first].label], place.width, place.height);
    const buttons = Object.keys(pictures.candidates).map((number) => make("button", { type: "button", text: rows[number].label, onclick: () => box.show(pictures.candidates[number][i], rows[number].label) }));
    grid.append(make("div", { class: "card wide" }, box.element, make("div", { class: "row" }, ...buttons)));
  }
  const yaml = make("pre", { text: encoderYaml(camera, rows[camera.recommendation.candidate]) });
  grid.append(make("div", { class: "card wide" }, make("div", { class: "row" }, make("span", { class: "faint", text: "for a preset:" }), copyButton(() => yaml.textContent)), yaml));
  const percent = (share) => `${(share * 100).toFixed(2)} %`;
  const head = ["settings", "B/frame", "smaller", "50 % (mm)", "99 %", "largest", "edges 99 %", "edges largest", "outside", "holes filled", "holes made", "encode/s", "1 random frame (ms)"];
  const body = rows.map((row, number) => {
    const depth = row.depth, reads = READER(row);
    const cells = [
      row.label + (number === camera.recommendation.candidate ? " (recommended)" : row.present ? " (now)" : ""),
      row.bytes_per_frame.toFixed(0), `${row.ratio.toFixed(1)}x`, ...["p50", "p99", "max"].map((name) => depth.all[name].toFixed(1)),
      depth.edges.p99.toFixed(1), depth.edges.max.toFixed(1), percent(depth.saturated), percent(depth.holes_filled), percent(depth.holes_made),
      row.encode_fps.toFixed(0), reads ? (reads.random_1 * 1000).toFixed(1) : "",
    ];
    return make("tr", { class: number === camera.recommendation.candidate ? "chosen" : "" }, ...cells.map((text) => make("td", { text })));
  });
  grid.append(make("div", { class: "card wide" }, make("h3", { text: "All candidates" }), make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { text })))), make("tbody", {}, ...body)))));
}

REPORT.cameras.forEach(cameraSection);
if (DATA.yaml) {
  const text = make("pre", { id: "preset", text: DATA.yaml });
  document.querySelector("main").append(make("section", {}, make("h2", { text: "The preset" }), make("p", { class: "faint", text: "All cameras' recommended settings; as a file, --preset takes it." }), copyButton(() => DATA.yaml), text));
}
