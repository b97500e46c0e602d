// Draws the dashboard's charts in the page's own colours, again when the theme changes. The tables beside hold the same.
(() => {
  const data = JSON.parse(document.getElementById("charts").textContent);
  const drawn = new Map();
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // One after the other they differ in lightness too, not in hue alone.
  const palette = () => ["--at-accent", "--at-preliminary", "--at-final", "--at-reading", "--at-critical", "--at-addended", "--at-ink-soft", "--at-line-strong"].map(token);

  const draw = (canvas) => {
    const { labels, series } = data[canvas.dataset.chart];
    const colours = palette();
    const stacked = canvas.dataset.stacked !== undefined;
    const ink = token("--at-ink-soft");
    const grid = token("--at-line");
    const axis = { stacked, ticks: { color: ink, precision: 0 }, grid: { color: grid }, border: { color: grid } };
    drawn.get(canvas)?.destroy();
    drawn.set(canvas, new Chart(canvas, {
      type: "bar",
      data: {
        labels,
        datasets: Object.entries(series).map(([label, values], place) => ({
          label, data: values, backgroundColor: colours[place % colours.length], borderWidth: 0, maxBarThickness: 34,
        })),
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        indexAxis: canvas.dataset.horizontal === undefined ? "x" : "y",
        scales: { x: axis, y: { ...axis, beginAtZero: true } },
        plugins: { legend: { labels: { color: ink, boxWidth: 12 } } },
      },
    }));
  };

  const all = () => document.querySelectorAll("canvas[data-chart]").forEach(draw);
  all();
  new MutationObserver(all).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
})();
