// Draws the dashboard's charts in the page's own colours, again when the theme changes. The tables beside hold the same.
(() => {
  const data = JSON.parse(document.getElementById("charts").textContent);
  const drawn = new Map();
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // One after the other they differ in lightness too, not in hue alone.
  const palette = () => ["--at-accent", "--at-preliminary", "--at-final", "--at-reading", "--at-critical", "--at-addended", "--at-ink-soft", "--at-line-strong"].map(token);

  // As the worklist says how much time is left.
  const spoken = (minutes) => {
    if (minutes < 60) return `${Math.round(minutes)} min`;
    if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${String(Math.round(minutes % 60)).padStart(2, "0")}` : ""}`;
    return `${Math.round(minutes / 144) / 10} d`;
  };
  // Steps of an hour or a day, where whole numbers of minutes would fall on crooked ones.
  const STEPS = [1, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440, 2880, 7200, 14400, 43200];
  const stepOf = (values) => STEPS.find((step) => Math.max(...values, 1) / step <= 6) ?? 43200;

  const draw = (canvas) => {
    const { labels, series, tokens } = data[canvas.dataset.chart];
    const colours = tokens?.map(token) ?? palette();
    const isTime = canvas.dataset.minutes !== undefined;
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
        scales: { x: axis, y: isTime ? { ...axis, beginAtZero: true, ticks: { ...axis.ticks, stepSize: stepOf(Object.values(series).flat()), callback: spoken } } : { ...axis, beginAtZero: true } },
        plugins: {
          legend: { labels: { color: ink, boxWidth: 12 } },
          tooltip: isTime ? { callbacks: { label: (item) => `${item.dataset.label}: ${spoken(item.raw)}` } } : {},
        },
      },
    }));
  };

  const all = () => document.querySelectorAll("canvas[data-chart]").forEach(draw);
  all();
  new MutationObserver(all).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
})();
