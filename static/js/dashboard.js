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
  // From minutes to weeks, each mark a few times the one before: a STAT of half an hour is seen beside a routine of days.
  const MARKS = [1, 5, 15, 60, 240, 1440, 4320, 14400, 43200, 144000];
  const ofTime = (values) => ({
    type: "logarithmic",
    min: MARKS.findLast((mark) => mark < Math.min(...values.filter(Boolean), 60)) ?? 0.5,
    max: MARKS.find((mark) => mark >= Math.max(...values, 60)) ?? undefined,
    afterBuildTicks: (axis) => { axis.ticks = MARKS.filter((mark) => mark >= axis.min && mark <= axis.max).map((value) => ({ value })); },
  });
  const A_DAY = /^\d{4}-\d\d-\d\d$/;
  const A_BAR = 44;

  const draw = (canvas) => {
    const { labels, series, tokens } = data[canvas.dataset.chart];
    const colours = tokens?.map(token) ?? palette();
    const isTime = canvas.dataset.minutes !== undefined;
    const stacked = canvas.dataset.stacked !== undefined;
    const ink = token("--at-ink-soft");
    const grid = token("--at-line");
    const axis = { stacked, ticks: { color: ink, precision: 0 }, grid: { color: grid }, border: { color: grid } };
    const isAcross = canvas.dataset.horizontal !== undefined;
    // Every reader has a name beside their bars, however many they are.
    if (isAcross) canvas.parentElement.style.height = `max(15rem, ${60 + labels.length * A_BAR}px)`;
    const along = { ...axis, ticks: { ...axis.ticks, ...(isAcross ? { autoSkip: false } : {}) } };
    const across = isTime ? { ...axis, ...ofTime(Object.values(series).flat()), ticks: { ...axis.ticks, callback: spoken } } : { ...axis, beginAtZero: true };
    // The axis has room for month and day; the year is told by what stands beside the pointer.
    if (labels.every((label) => A_DAY.test(label))) along.ticks.callback = (place) => labels[place].slice(5);
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
        interaction: { mode: "index", intersect: false, axis: isAcross ? "y" : "x" },
        indexAxis: isAcross ? "y" : "x",
        scales: isAcross ? { x: across, y: along } : { x: along, y: across },
        plugins: {
          legend: { labels: { color: ink, boxWidth: 12 } },
          tooltip: {
            backgroundColor: token("--at-raised"), borderColor: token("--at-line-strong"), borderWidth: 1, titleColor: token("--at-ink"), bodyColor: token("--at-ink"),
            ...(isTime ? { callbacks: { label: (item) => `${item.dataset.label}: ${spoken(item.raw)}` } } : {}),
          },
        },
      },
    }));
  };

  const all = () => document.querySelectorAll("canvas[data-chart]").forEach(draw);
  all();
  new MutationObserver(all).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
})();
