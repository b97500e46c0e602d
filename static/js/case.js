// A case that is open: one's claim is renewed while the page is, another's is shown as soon as it is made.
// The page stays when the case changes (case_change.js), so that each step looks anew whose it is.
(() => {
  const RENEW = 5 * 60_000;
  const claim = () => document.getElementById("claim");
  let source = null;

  const ask = (method) => {
    const place = claim();
    if (place) htmx.ajax(method, place.dataset.url, { target: "#claim", swap: "outerHTML" });
  };

  const follow = () => {
    if (!claim() || source) return;
    source = new EventSource("/worklist/changes/");
    source.addEventListener("change", (event) => {
      if (event.data === claim()?.dataset.studyId) ask("GET");
    });
  };

  setInterval(() => {
    if (claim()?.dataset.mine !== undefined && !document.hidden) ask("POST");
  }, RENEW);
  window.addEventListener("pagehide", () => source?.close());
  document.addEventListener("atrium:case", follow);
  follow();
})();
