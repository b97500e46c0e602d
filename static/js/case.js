// A case that is open: one's claim is renewed while the page is, another's is shown as soon as it is made.
// The page stays when the case changes (case_change.js), so that each step looks anew whose it is.
(() => {
  const RENEW = 5 * 60_000;
  const claim = () => document.getElementById("claim");
  let source = null;

  // What is asked for and answered while something is being told may be older than the answer to that: shown, it would
  // take back what was just chosen, and that answer's place with it. It's asked for again afterwards.
  let telling = 0;
  let isDue = false;
  const ask = (method) => {
    const place = claim();
    if (method === "GET" && telling) isDue = true;
    else if (place) htmx.ajax(method, place.dataset.url, { target: "#claim", swap: "outerHTML" });
  };
  document.addEventListener("htmx:beforeSend", ({ detail: { target, xhr, requestConfig } }) => {
    if (target.id !== "claim" || requestConfig.verb === "get") return;
    telling += 1;
    xhr.addEventListener("loadend", () => {
      telling -= 1;
      if (telling || !isDue) return;
      isDue = false;
      ask("GET");
    });
  });

  // Whose time runs out while one waits has the case no longer.
  let runsOut = 0;
  const wait = () => {
    clearTimeout(runsOut);
    const until = claim()?.dataset.until;
    if (until) runsOut = setTimeout(() => ask("GET"), Math.max(Date.parse(until) - Date.now(), 0) + 1000);
  };
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    if (detail.target.id !== "claim") return;
    if (detail.xhr.status === 409) {
      // Who comes a moment late is shown who was first.
      detail.shouldSwap = true;
      detail.isError = false;
    } else if (telling && detail.requestConfig.verb === "get") {
      detail.shouldSwap = false;
      isDue = true;
    }
  });
  document.addEventListener("htmx:afterSwap", wait);

  const follow = () => {
    wait();
    if (!claim() || source) return;
    source = new EventSource("/worklist/changes/");
    source.addEventListener("change", (event) => {
      if (event.data === claim()?.dataset.studyId) ask("GET");
    });
  };

  setInterval(() => {
    if (claim()?.dataset.mine !== undefined && !document.hidden) ask("POST");
  }, RENEW);
  // Back after a while, one has it still unless another took it.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && claim()?.dataset.mine !== undefined) ask("POST");
  });
  window.addEventListener("pagehide", () => source?.close());
  document.addEventListener("atrium:case", follow);
  follow();
})();
