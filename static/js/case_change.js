// From case to case the page stays, so that the viewer needn't start again: the server's page of the next case is
// fetched, and all of it but the viewer's frame is put in place. Whatever isn't as expected is a full load.
// "atrium:leave" asks every script for what it still has to keep, "atrium:case" tells it to begin afresh.
(() => {
  const STUDY = /^\/studies\/([\d.]+)\/$/;
  const PARTS = [".patient-strip", ".focus-words"];
  const FIELDS = ".focus-words :is(textarea, input:not([type=hidden], [type=password], [type=checkbox], [type=radio]))";
  const LONGEST_WAIT = 10_000;
  const images = document.getElementById("study-images");
  const frame = document.getElementById("viewer");
  const here = () => window.location.pathname + window.location.search;
  // What a page asks for as soon as it's there, the report for one, is asked for along with it.
  const LOADS = ".focus-words [id][hx-get][hx-trigger=load]";
  const loadsOf = (page) => [...page.querySelectorAll(LOADS)].map((one) => [one.id, one.getAttribute("hx-get")]);
  let loads = loadsOf(document);
  let shown = here();
  let isGoing = false;
  let warnedOf = null;

  // Another person's page, or one of another version, is loaded whole.
  const makeup = (page) => JSON.stringify([
    page.getElementById("study-images")?.dataset.person,
    ...[...page.querySelectorAll("script[src], link[rel=stylesheet]")].map((one) => one.getAttribute("src") || one.getAttribute("href")),
  ]);
  const made = makeup(document);
  const hasImages = () => frame.getAttribute("src") || document.body.classList.contains("has-images-elsewhere");

  // What changes something is waited for.
  const changing = new Set();
  document.addEventListener("htmx:beforeSend", ({ detail: { xhr, requestConfig } }) => {
    if (requestConfig.verb === "get") return;
    const done = new Promise((end) => xhr.addEventListener("loadend", end)).finally(() => changing.delete(done));
    changing.add(done);
  });
  const isKept = async () => {
    const end = Date.now() + LONGEST_WAIT;
    for (;;) {
      const waits = [...changing];
      document.dispatchEvent(new CustomEvent("atrium:leave", { detail: { waits } }));
      if (!waits.length) return true;
      const tooLong = new Promise((done) => setTimeout(done, end - Date.now(), [false]));
      if ((await Promise.race([Promise.all(waits), tooLong])).includes(false)) return false;
    }
  };
  // Words beside the report have no place but their field: one is told once before they're left.
  const isUnsent = () => {
    const field = [...document.querySelectorAll(FIELDS)].find((one) => !one.closest("#draft") && one.value !== one.defaultValue);
    if (!field || field === warnedOf) return false;
    warnedOf = field;
    field.focus();
    document.dispatchEvent(new CustomEvent("atrium:message", { detail: { level: "warning", text: images.dataset.unsent } }));
    return true;
  };

  // Where the server can't be reached there's nothing to load either: one stays where one is.
  class Unreachable extends Error {}
  const ask = (address, init) => fetch(address, init).catch(() => { throw new Unreachable(); });
  const tellUnreachable = () => document.dispatchEvent(new CustomEvent("atrium:message", { detail: { level: "error", text: document.getElementById("messages").dataset.offline } }));

  const pageAt = async (address) => {
    const answer = await ask(address, { headers: { Accept: "text/html" } });
    if (!answer.ok || answer.redirected) return null;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    return makeup(page) === made ? page : null;
  };

  const partsOf = (study) => {
    const ask = async (address, id) => {
      const answer = await fetch(address, { headers: { "HX-Request": "true", "HX-Target": id } });
      return answer.ok && !answer.redirected ? answer.text() : null;
    };
    const addresses = loads.map(([id, address]) => [id, address.replace(images.dataset.study, study)]);
    return new Map(addresses.map(([id, address]) => [address, { id, text: ask(address, id).catch(() => null) }]));
  };
  const place = async ({ id, text }, address) => {
    const element = document.getElementById(id);
    const html = await text;
    if (!element.isConnected) return;
    const eventInfo = { target: element, requestConfig: { verb: "get", path: address } };
    if (html === null) htmx.ajax("GET", address, { target: element, swap: "innerHTML" });
    else htmx.swap(element, html, { swapStyle: "innerHTML", swapDelay: 0, settleDelay: 0 }, { eventInfo, contextElement: element });
  };

  const put = (page, address, isBack, parts) => {
    loads = loadsOf(page);
    const coming = loads.filter(([, from]) => parts.has(from));
    for (const [id] of coming) page.getElementById(id).setAttribute("hx-trigger", "none");
    const fresh = PARTS.map((part) => document.adoptNode(page.querySelector(part)));
    const next = page.getElementById("study-images");
    for (const running of document.querySelectorAll(".focus-main .htmx-request")) htmx.trigger(running, "htmx:abort");
    PARTS.forEach((part, number) => document.querySelector(part).replaceWith(fresh[number]));
    for (const name of Object.keys(images.dataset)) delete images.dataset[name];
    Object.assign(images.dataset, next.dataset);
    // No case begins with another's picture.
    document.getElementById("first-look")?.remove();
    const look = page.getElementById("first-look");
    if (look && look.dataset.study === next.dataset.study) images.append(document.adoptNode(look));
    document.title = page.title;
    document.body.setAttribute("hx-headers", page.body.getAttribute("hx-headers"));
    document.getElementById("messages").append(...page.getElementById("messages").children);
    if (!isBack) window.history.pushState(null, "", address);
    shown = address;
    const placed = Promise.all(coming.map(([, from]) => place(parts.get(from), from)));
    document.dispatchEvent(new CustomEvent("atrium:case", { detail: { placed } }));
    for (const part of fresh) htmx.process(part);
    document.getElementById("main").focus({ preventScroll: true });
    document.getElementById("case-announced").textContent = fresh[0].innerText;
  };

  // "find" gives the next case's address; "load" is what a browser does without us; "stay" keeps to the case.
  const go = async (find, load, { stay = () => {}, isBack = false } = {}) => {
    if (isGoing) return;
    if (isUnsent()) { stay(); return; }
    isGoing = true;
    try {
      if (!(await isKept())) { load(); return; }
      const address = await find();
      const [, study] = STUDY.exec(address.split("?")[0]) || [];
      const parts = study && partsOf(study);
      const page = study && (await pageAt(address));
      if (page && (await isKept())) put(page, address, isBack, parts);
      else if (isBack) window.location.reload();
      else window.location.assign(address);
    } catch (error) {
      if (!(error instanceof Unreachable)) { load(); return; }
      stay();
      tellUnreachable();
    } finally {
      isGoing = false;
    }
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.id !== "next-case" || event.defaultPrevented || !hasImages()) return;
    event.preventDefault();
    const find = async () => {
      const answer = await ask(form.action, { method: "POST", body: new FormData(form), headers: { Accept: "application/json" } });
      return (await answer.json()).address;
    };
    go(find, () => form.submit());
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const isPlain = !event.defaultPrevented && !event.button && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
    if (!link || !isPlain || link.target || link.origin !== window.location.origin || !STUDY.test(link.pathname) || link.hash || !hasImages()) return;
    event.preventDefault();
    go(async () => link.pathname + link.search, () => window.location.assign(link.href));
  });

  window.addEventListener("popstate", () => {
    if (here() === shown) return;
    const stay = () => window.history.pushState(null, "", shown);
    const load = () => {
      stay();
      tellUnreachable();
    };
    if (isGoing) window.location.reload();
    else go(async () => here(), load, { stay, isBack: true });
  });
})();
