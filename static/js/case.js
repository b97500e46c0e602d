// A case that is open: one's claim is renewed while the page is, another's is shown as soon as it is made, and the
// viewer hears which studies come next.
(() => {
  const RENEW = 5 * 60_000;
  const claim = () => document.getElementById("claim");

  const ask = (method) => {
    const place = claim();
    if (place) htmx.ajax(method, place.dataset.url, { target: "#claim", swap: "outerHTML" });
  };

  if (claim()) {
    setInterval(() => {
      if (claim()?.dataset.mine !== undefined && !document.hidden) ask("POST");
    }, RENEW);
    const study = document.querySelector("[data-study-id]")?.dataset.studyId;
    const source = new EventSource("/worklist/changes/");
    source.addEventListener("change", (event) => {
      if (event.data === study) ask("GET");
    });
    window.addEventListener("pagehide", () => source.close());
  }

  const next = document.getElementById("next-case");
  if (next) {
    fetch(next.dataset.upcoming).then((answer) => (answer.ok ? answer.json() : { studies: [] })).then((found) => {
      next.dataset.studies = found.studies.join(" ");
      document.dispatchEvent(new CustomEvent("atrium:upcoming", { detail: found.studies }));
    }).catch(() => {});
  }
})();
