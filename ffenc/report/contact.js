"use strict";
// The lengths of the episodes.
if (DATA.lengths.length) {
  plot(document.getElementById("lengths"), "length of each episode", () => ({
    type: "bar",
    data: {
      labels: DATA.lengths.map(([episode]) => episode),
      datasets: [{ label: "frames", data: DATA.lengths.map(([, frames]) => frames), backgroundColor: DATA.lengths.map(([episode]) => (DATA.faulty.includes(episode) ? colour("bad") : colour("c0"))) }],
    },
    options: {
      scales: { x: axis("episode"), y: axis("frames", { beginAtZero: true }) },
      plugins: { legend: { display: false }, tooltip: { callbacks: { title: (items) => `episode ${items[0].label}`, label: (item) => `${item.raw} frames, ${(item.raw / DATA.fps).toFixed(1)} s` } } },
      onClick: (_, items) => { if (items[0]) location.hash = `e${DATA.lengths[items[0].index][0]}`; },
    },
  }), true);
}
