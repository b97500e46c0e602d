// The study page: words beside images, or images on another monitor. Desk and viewer talk over one channel.
// Page and viewer stay when the case changes (case_change.js): what belongs to one case is in "opened".
(() => {
  const page = document.getElementById("study-images");
  const frame = document.getElementById("viewer");
  const wait = document.getElementById("viewer-wait");
  // The same tab is the same desk, so that a second window goes along to the next case.
  const desk = sessionStorage.getItem("atrium.desk") || crypto.randomUUID();
  sessionStorage.setItem("atrium.desk", desk);
  const channel = new BroadcastChannel(`atrium.desk.${desk}`);
  const address = () => `${page.dataset.openUrl}?desk=${desk}`;
  const alone = ({ study, sop, frame: number }) => `${page.dataset.openUrl.replace(opened.study, study)}?${new URLSearchParams({ sop, frame: number })}`;
  const csrf = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];
  const say = (type, detail = {}) => channel.postMessage({ from: "desk", about: opened.study, type, ...detail });
  const note = (text) => { const element = document.getElementById("findings-note"); if (element) element.textContent = text; };
  // So long the viewer may take to say that it changes the case, in milliseconds; then it's loaded anew.
  const LONGEST_SILENCE = 2000;
  // So long a viewport may take to draw after the first one has.
  const LONGEST_LOOK = 5000;
  // So long OHIF, which takes the whole thread, gives way to the first look and to the words.
  const LONGEST_WAY = 500;
  const caseOf = () => {
    const asked = new URLSearchParams(window.location.search);
    const { study } = page.dataset;
    return {
      study, words: new Map(), pending: new Map(), keeping: new Set(), shown: new Set(), lastFindings: null, isHeard: false, hasRendered: false,
      // A click while the images still load isn't lost.
      waiting: asked.get("sop") ? { study, sop: asked.get("sop"), frame: Number(asked.get("frame") || 1) } : null,
    };
  };
  let opened = caseOf();
  const isPhone = window.matchMedia("(width < 640px)");
  let isInWindow = sessionStorage.getItem("atrium.images") === "window";

  // The server's picture of what OHIF will show first leaves each viewport as OHIF draws there.
  const look = () => document.getElementById("first-look");
  const endLook = (viewport) => {
    const views = [...(look()?.children || [])];
    if (views[viewport]) views[viewport].classList.add("is-drawn");
    if (!views[viewport] || views.every((one) => one.matches(".is-drawn, :empty"))) look()?.remove();
  };
  const drawn = ({ viewport, viewports }) => {
    endLook(viewports === look()?.children.length ? viewport : -1);
  };

  const place = () => {
    document.body.classList.toggle("has-images-elsewhere", isInWindow);
    document.getElementById("images-elsewhere").hidden = !isInWindow;
    frame.hidden = isInWindow;
    wait.hidden = isInWindow;
    if (isInWindow || look()?.dataset.study !== opened.study) look()?.remove();
    if (isInWindow) frame.removeAttribute("src");
    // A phone has room for the words or the images: its images open by their own button.
    else if (!isPhone.matches && !frame.getAttribute("src")) frame.src = address();
    else if (isPhone.matches && opened.waiting) window.location.replace(alone(opened.waiting));
    // There it's one image, whatever is remembered for larger pages.
    const layout = document.getElementById("hanging");
    const isAlone = isPhone.matches && !isInWindow;
    if (layout) Object.assign(layout, { disabled: isAlone, value: isAlone ? "default" : layout.value });
  };
  // No image of one case is seen beside the words of another.
  const conceal = (isConcealed) => {
    page.classList.toggle("is-changing", isConcealed);
    frame.inert = isConcealed;
  };
  const pause = (time) => new Promise((done) => { setTimeout(done, time); });
  const painted = () => new Promise((done) => { requestAnimationFrame(() => requestAnimationFrame(done)); });
  const lookSeen = async () => {
    await Promise.all([...(look()?.querySelectorAll("img") || [])].map((picture) => picture.decode().catch(() => {})));
    await painted();
  };
  const whereTo = async () => (await fetch(address(), { headers: { Accept: "application/json" } })).json();
  const change = async (placed) => {
    const mine = opened;
    conceal(true);
    const answer = whereTo().catch(() => null);
    await Promise.race([Promise.all([answer, placed, lookSeen()]), pause(LONGEST_WAY)]);
    if (opened !== mine) return;
    say("open", { address: address(), wait: wait.textContent, answer: await Promise.race([answer, null]) });
    setTimeout(() => { if (opened === mine && !mine.isHeard && !isInWindow) frame.contentWindow.location.replace(address()); }, LONGEST_SILENCE);
  };
  // The browser's own page of an address that couldn't be loaded is none of ours to read.
  const framed = () => {
    try {
      const { pathname, search } = frame.contentWindow.location;
      return { pathname, search };
    } catch {
      return { pathname: "", search: "" };
    }
  };
  // What was loaded anew, be it a refusal, is of this case.
  frame.addEventListener("load", () => {
    const { pathname, search } = framed();
    const isOhif = pathname.startsWith("/viewer/");
    const studies = new URLSearchParams(search).get("StudyInstanceUIDs") || "";
    // What OHIF doesn't show comes as a page of ours, what can't be loaded as one of the browser.
    if (pathname.startsWith("/studies/") || !pathname) wait.hidden = true;
    if (!isOhif) look()?.remove();
    if (!isOhif || studies.split(",")[0] === opened.study) conceal(false);
  });
  const openWindow = () => {
    isInWindow = true;
    sessionStorage.setItem("atrium.images", "window");
    place();
    window.open(address(), `atrium-images-${desk}`, "popup,width=1280,height=960");
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
    (opened.lastFindings?.isConnected && opened.lastFindings) || document.querySelector("#draft textarea[name=findings]") || document.querySelector(FINDINGS) || draft()?.querySelector("textarea");
  document.addEventListener("focusin", (event) => { if (event.target.matches?.(FINDINGS)) opened.lastFindings = event.target; });

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
    const before = [opened.words.get(uid), ...known].filter(Boolean);
    let isThere = before.some((one) => exchange(one, sentence));
    if (!before.length && sentence) {
      const field = section();
      field.value += `${field.value && !/\s$/.test(field.value) ? "\n" : ""}${sentence}`;
      typed(field);
      isThere = true;
    }
    if (sentence) opened.words.set(uid, sentence);
    else opened.words.delete(uid);
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
    const isThere = [opened.words.get(uid), ...known].some((one) => exchange(one, sentence));
    if (isThere) opened.words.set(uid, sentence);
    return isThere;
  };

  const refresh = () => window.htmx.ajax("GET", page.dataset.findingsUrl, { target: "#findings", swap: "innerHTML" });
  // What is kept, and the words that it becomes, are the case's that it came from.
  const keep = (finding, tell) => {
    const mine = opened;
    const work = post(finding).then((kept) => { if (kept && opened === mine) tell(kept); }).finally(() => mine.keeping.delete(work));
    mine.keeping.add(work);
  };
  const post = async (finding) => {
    const mine = opened;
    const response = await fetch(page.dataset.findingsUrl, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": csrf() },
      body: JSON.stringify(finding),
    });
    if (opened !== mine) return null;
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
    const { pending } = opened;
    clearTimeout(pending.get(measurement.uid)?.timer);
    pending.delete(measurement.uid);
    if (measurement.action === "removed") return write(measurement.uid, "");
    if (!page.dataset.mayWrite) return;
    const rest = () => {
      pending.delete(measurement.uid);
      keep({ ...measurement, beside: [...opened.shown] }, (kept) => tellKept(measurement.uid, kept));
    };
    pending.set(measurement.uid, { timer: setTimeout(rest, 400), rest });
  };
  const marked = (image) => {
    if (!page.dataset.mayWrite) return;
    keep(image, (kept) => write(image.uid, `${page.dataset.keyImage} (${kept.place}).`));
  };

  // The next case's images, once this one's are on screen, and what will be seen of it at first.
  let ahead = [];
  const fetchAhead = async () => {
    const address = document.getElementById("next-case")?.dataset.upcoming;
    if (!address) return;
    const { studies: [next] } = await (await fetch(address)).json();
    if (!next) return;
    say("prefetch", { studies: [next] });
    if (isInWindow) return;
    const { pictures } = await (await fetch(page.dataset.lookUrl.replace(page.dataset.study, next))).json();
    ahead = pictures.map((source) => Object.assign(new Image(), { fetchPriority: "low", src: source }));
  };

  const jump = (where) => {
    if (isPhone.matches && !isInWindow) {
      window.location.assign(alone(where));
      return;
    }
    opened.waiting = opened.hasRendered ? null : where;
    if (opened.hasRendered) say("jump", where);
  };
  // Told to the desk, which may still be on its way.
  const tellShown = () => { if (opened.shown.size) document.dispatchEvent(new CustomEvent("atrium:prior-opened", { detail: { studies: [...opened.shown] } })); };
  document.addEventListener("htmx:afterSwap", (event) => { if (event.detail.target.id === "report-panel") tellShown(); });
  const heard = {
    opening: () => {},
    ready: () => {
      opened.hasRendered = false;
      conceal(false);
    },
    "image-rendered": () => {
      wait.hidden = true;
      conceal(false);
      opened.hasRendered = true;
      if (opened.waiting) jump(opened.waiting);
      fetchAhead();
      // A viewport that has nothing to draw doesn't keep its picture.
      const mine = look();
      setTimeout(() => mine?.remove(), LONGEST_LOOK);
    },
    "image-drawn": drawn,
    measurement: measured,
    "key-image": marked,
    // What hangs beside the study was compared with it.
    "studies-shown": ({ studies }) => {
      for (const uid of studies) if (uid !== opened.study) opened.shown.add(uid);
      tellShown();
    },
    "key-image-refused": () => note(page.dataset.noKeyImage),
    "measurements-saved": ({ count, isFailed }) => note(isFailed ? page.dataset.failed : count ? page.dataset.saved : page.dataset.nothing),
    // What isn't on offer is another layout.
    protocol: ({ id }) => { const choice = document.getElementById("hanging"); if (choice) choice.value = [...choice.options].some((o) => o.value === id) ? id : ""; },
    // The desk's keys, typed while the images have the focus.
    key: ({ key, ctrlKey, altKey, shiftKey }) => {
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key, ctrlKey, altKey, shiftKey, bubbles: true, cancelable: true }));
    },
    jumped: ({ isFound }) => { if (!isFound) note(page.dataset.notFound); },
  };
  channel.onmessage = ({ data }) => {
    if (data?.from !== "viewer") return;
    // A window that was still being loaded comes along; whatever else is told of another case has nothing to do with these words.
    if (data.about !== opened.study) {
      if (data.type === "ready" && isInWindow) say("open", { address: address(), wait: wait.textContent });
      return;
    }
    opened.isHeard = true;
    heard[data.type]?.(data);
    document.dispatchEvent(new CustomEvent("atrium:viewer", { detail: data }));
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("[data-jump]");
    if (link) {
      event.preventDefault();
      const { study: of = opened.study, uid, sop, frame: number } = link.dataset;
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
  document.addEventListener("change", (event) => { if (event.target.id === "hanging") say("hang", { protocol: event.target.value }); });

  // What was measured a moment ago is in the words before the case is left.
  document.addEventListener("atrium:leave", ({ detail }) => {
    for (const { timer, rest } of [...opened.pending.values()]) {
      clearTimeout(timer);
      rest();
    }
    detail.waits.push(...opened.keeping);
  });
  document.addEventListener("atrium:case", ({ detail: { placed } }) => {
    opened = caseOf();
    place();
    change(placed);
  });

  place();
  if (isInWindow) say("open", { address: address(), wait: wait.textContent });
})();
