// The study page: words beside images, or images on another monitor. Desk and viewer talk over one channel.
(() => {
  const page = document.getElementById("study-images");
  const frame = document.getElementById("viewer");
  const wait = document.getElementById("viewer-wait");
  // The same tab is the same desk, so that a second window goes along to the next case.
  const desk = sessionStorage.getItem("atrium.desk") || crypto.randomUUID();
  sessionStorage.setItem("atrium.desk", desk);
  const channel = new BroadcastChannel(`atrium.desk.${desk}`);
  const study = page.dataset.study;
  const address = `${page.dataset.openUrl}?desk=${desk}`;
  const csrf = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];
  const say = (type, detail = {}) => channel.postMessage({ from: "desk", type, ...detail });
  const note = (text) => { const element = document.getElementById("findings-note"); if (element) element.textContent = text; };
  const words = new Map();
  const pending = new Map();
  let lastFindings = null;
  const isPhone = window.matchMedia("(width < 640px)");
  let isInWindow = sessionStorage.getItem("atrium.images") === "window";

  const place = () => {
    document.body.classList.toggle("has-images-elsewhere", isInWindow);
    document.getElementById("images-elsewhere").hidden = !isInWindow;
    frame.hidden = isInWindow;
    wait.hidden = isInWindow;
    if (isInWindow) frame.removeAttribute("src");
    // A phone has room for the words or the images: its images open by their own button.
    else if (!isPhone.matches && !frame.getAttribute("src")) frame.src = address;
  };
  const openWindow = () => {
    isInWindow = true;
    sessionStorage.setItem("atrium.images", "window");
    place();
    window.open(address, `atrium-images-${desk}`, "popup,width=1280,height=960");
  };
  const bringBack = () => {
    isInWindow = false;
    sessionStorage.removeItem("atrium.images");
    say("close");
    place();
  };

  const draft = () => document.getElementById("draft");
  const FINDINGS = "#draft textarea[name=findings], #draft [data-section=findings] textarea";
  const section = () =>
    (lastFindings?.isConnected && lastFindings) || document.querySelector("#draft textarea[name=findings]") || document.querySelector(FINDINGS) || draft()?.querySelector("textarea");
  document.addEventListener("focusin", (event) => { if (event.target.matches?.(FINDINGS)) lastFindings = event.target; });

  const typed = (field) => field.dispatchEvent(new Event("input", { bubbles: true }));
  const exchange = (before, after) => {
    const holder = before && [...draft().querySelectorAll("textarea")].find((field) => field.value.includes(before));
    if (!holder) return false;
    if (before === after) return true;
    // A sentence that goes takes its line along.
    holder.value = holder.value.replace(after ? before : holder.value.includes(`\n${before}`) ? `\n${before}` : before, () => after);
    typed(holder);
    return true;
  };
  // Words that came from the images follow them until a person rewrites them.
  const write = (uid, sentence, known = []) => {
    if (!draft()) return false;
    const before = [words.get(uid), ...known].filter(Boolean);
    let isThere = before.some((one) => exchange(one, sentence));
    if (!before.length && sentence) {
      const field = section();
      field.value += `${field.value && !/\s$/.test(field.value) ? "\n" : ""}${sentence}`;
      typed(field);
      isThere = true;
    }
    if (sentence) words.set(uid, sentence);
    else words.delete(uid);
    return isThere;
  };
  // What is measured on a prior goes into the sentence of the same measured now, else it has a sentence of its own.
  const tellKept = (uid, kept) => {
    const joined = kept.goes_into && exchangeFor(kept.goes_into);
    if (joined) {
      write(uid, "", kept.known);
      return;
    }
    if (write(uid, kept.sentence, kept.known) && kept.takes_in) write(kept.takes_in.uid, "", kept.takes_in.known);
  };
  const exchangeFor = ({ uid, known, sentence }) => {
    const isThere = [words.get(uid), ...known].some((one) => exchange(one, sentence));
    if (isThere) words.set(uid, sentence);
    return isThere;
  };

  const refresh = () => window.htmx.ajax("GET", page.dataset.findingsUrl, { target: "#findings", swap: "innerHTML" });
  const keep = async (finding) => {
    const response = await fetch(page.dataset.findingsUrl, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": csrf() },
      body: JSON.stringify(finding),
    });
    if (!response.ok) {
      note((await response.json().catch(() => ({}))).title || page.dataset.failed);
      return null;
    }
    note("");
    refresh();
    return response.json();
  };

  // A measurement tells of each step of a drag; what counts is where it comes to rest.
  const measured = (measurement) => {
    clearTimeout(pending.get(measurement.uid));
    if (measurement.action === "removed") return write(measurement.uid, "");
    if (!page.dataset.mayWrite) return;
    pending.set(measurement.uid, setTimeout(async () => {
      const kept = await keep({ ...measurement, beside: [...shown] });
      if (kept) tellKept(measurement.uid, kept);
    }, 400));
  };
  const marked = async (image) => {
    if (!page.dataset.mayWrite) return;
    if (image.study !== study) return note(page.dataset.otherStudy);
    const kept = await keep(image);
    if (kept) write(image.uid, `${page.dataset.keyImage} (${kept.place}).`);
  };

  // The next case's images, once this one's are on screen.
  const fetchAhead = async () => {
    const address = document.getElementById("next-case")?.dataset.upcoming;
    if (!address) return;
    const { studies } = await (await fetch(address)).json();
    if (studies.length) say("prefetch", { studies: studies.slice(0, 1) });
  };

  // A click while the images still load isn't lost.
  const asked = new URLSearchParams(window.location.search);
  let hasRendered = false;
  let waiting = asked.get("sop") ? { study, sop: asked.get("sop"), frame: Number(asked.get("frame") || 1) } : null;
  const jump = (where) => {
    waiting = hasRendered ? null : where;
    if (hasRendered) say("jump", where);
  };
  // Told to the desk, which may still be on its way.
  const shown = new Set();
  const tellShown = () => { if (shown.size) document.dispatchEvent(new CustomEvent("atrium:prior-opened", { detail: { studies: [...shown] } })); };
  document.addEventListener("htmx:afterSwap", (event) => { if (event.detail.target.id === "report-panel") tellShown(); });
  const heard = {
    "image-rendered": () => {
      wait.hidden = true;
      hasRendered = true;
      if (waiting) jump(waiting);
      fetchAhead();
    },
    ready: (viewer) => {
      hasRendered = viewer.hasRendered;
      if (hasRendered) wait.hidden = true;
    },
    measurement: measured,
    "key-image": marked,
    // What hangs beside the study was compared with it.
    "studies-shown": ({ studies }) => {
      for (const uid of studies) if (uid !== study) shown.add(uid);
      tellShown();
    },
    "key-image-refused": () => note(page.dataset.noKeyImage),
    "measurements-saved": ({ count, isFailed }) => note(isFailed ? page.dataset.failed : count ? page.dataset.saved : page.dataset.nothing),
    protocol: ({ id }) => { const choice = document.getElementById("hanging"); if (choice && [...choice.options].some((o) => o.value === id)) choice.value = id; },
    // The desk's keys, typed while the images have the focus.
    key: ({ key, ctrlKey, altKey, shiftKey }) => {
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key, ctrlKey, altKey, shiftKey, bubbles: true, cancelable: true }));
    },
    jumped: ({ isFound }) => { if (!isFound) note(page.dataset.notFound); },
  };
  channel.onmessage = ({ data }) => {
    if (data?.from !== "viewer") return;
    heard[data.type]?.(data);
    document.dispatchEvent(new CustomEvent("atrium:viewer", { detail: data }));
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("[data-jump]");
    if (link) {
      event.preventDefault();
      const { study: of = study, uid, sop, frame: number } = link.dataset;
      jump({ study: of, uid, sop, frame: Number(number || 1) });
    }
    const button = event.target.closest?.("button");
    if (button?.id === "key-image") say("key-image");
    if (button?.id === "save-measurements") say("save-measurements");
    if (button?.id === "images-window") openWindow();
    if (button?.id === "images-back") bringBack();
    // What was measured is in the archive before the report that speaks of it is signed.
    if (button?.id === "begin-signing") say("save-measurements");
  });
  document.getElementById("hanging")?.addEventListener("change", (event) => say("hang", { protocol: event.target.value }));

  place();
  if (isInWindow) say("open", { address });
})();
