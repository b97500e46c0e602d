// The bridge between OHIF and the report desk. Both sides share a channel named after the desk that opened the images,
// be they in a frame beside the words or in a window on another monitor.
// OHIF stays from case to case: its own router changes the study. Whatever doesn't allow that is a full load.
// Of the protocols that OHIF registers, those named are remembered.
const atriumBridge = (csrfToken, edition, remembered) => {
  // What belongs to one case: the next begins afresh.
  const caseOf = (search) => {
    const address = new URLSearchParams(search);
    const studies = (address.get("StudyInstanceUIDs") || "").split(",");
    return {
      studies, study: studies[0], site: address.get("site"), protocol: "", place: address.get("sop"), frame: Number(address.get("frame") || 1), asked: new Set(), restored: new Set(), savedPrints: new Map(),
      isEntered: false, isSetUp: false, hasRendered: false, drawn: new Set(), framed: new Set(),
    };
  };
  let opened = caseOf(window.location.search);
  window.atriumAsked.ahead(opened.study);
  const desk = new URLSearchParams(window.location.search).get("desk");
  const channel = desk ? new BroadcastChannel(`atrium.desk.${desk}`) : null;
  // Whatever is told says of which case it is: the desk may be at another by then.
  const tell = (type, detail = {}, of = opened) => channel?.postMessage({ from: "viewer", about: of.study, type, ...detail });

  // Quantities of OHIF's tools in the order in which reports name them, each with the key of its unit.
  const QUANTITIES = [
    ["length", "unit"], ["width", "unit"], ["angle", "°"], ["radius", "radiusUnit"], ["area", "areaUnit"], ["perimeter", "unit"],
    ["mean", "modalityUnit"], ["stdDev", "modalityUnit"], ["max", "modalityUnit"], ["value", "modalityUnit"],
  ];
  const NAMES = { stdDev: "standard deviation" };
  const ONLY_MARKS = new Set(["ArrowAnnotate"]);
  const FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*";
  const MOST_PREFETCHED = 200;
  const PICTURE_SIDE = 1024;
  // So long an open OHIF may take to be done with a case, and to show the next, in milliseconds.
  const LONGEST_LEAVE = 2000;
  const LONGEST_OPENING = 15000;
  // What OHIF doesn't let go of, some megabytes a case, goes with a full load.
  const MOST_CASES = 30;

  // On a phone OHIF's three groups of buttons lie over each other: its tools stay, in a row that a thumb moves.
  const narrow = document.createElement("style");
  narrow.textContent = `@media (width < 640px) {
    div:has(> [data-cy="return-to-work-list"]), div.absolute:has(> div > [data-cy="redo-btn"]) { display: none; }
    div.absolute.left-1\\/2:has([data-cy="Zoom"]) { inset: 4px 0 auto; overflow-x: auto; scrollbar-width: none; transform: none; }
    div.absolute.left-1\\/2:has([data-cy="Zoom"]) > div { justify-content: flex-start; width: max-content; }
  }`;
  document.head.append(narrow);

  let services;
  let commands;
  let extensions;
  let isRestoring = false;

  const quantities = (measurement) => {
    const data = Object.values(measurement.data || {})[0] || {};
    return QUANTITIES.filter(([name]) => Number.isFinite(data[name])).map(([name, unit]) => ({
      name: NAMES[name] || name,
      value: data[name],
      unit: unit === "°" ? "°" : data[unit] || "",
    }));
  };
  const tellMeasurement = (action) => ({ measurement }) => {
    const uid = measurement?.uid || measurement;
    if (isRestoring || !opened.hasRendered) return;
    if (action === "removed") return tell("measurement", { action, uid });
    if (!opened.asked.has(measurement.referenceStudyUID) || (ONLY_MARKS.has(measurement.toolName) && !measurement.label)) return;
    tell("measurement", {
      action, uid, label: measurement.label || "", tool: measurement.toolName, values: quantities(measurement),
      study: measurement.referenceStudyUID, sop: measurement.SOPInstanceUID, frame: measurement.frameNumber || 1,
    });
  };

  const imagesOf = (displaySet) => displaySet.images || displaySet.instances || [];
  const find = (matches) => {
    for (const displaySet of services.displaySetService.getActiveDisplaySets()) {
      const index = imagesOf(displaySet).findIndex((image) => matches(image, displaySet));
      if (index >= 0) return { displaySet, index };
    }
    return null;
  };
  const grid = () => services.viewportGridService.getState();

  // A page that has room for one image; a frame stands beside words where there's more.
  const isNarrow = () => window.top.innerWidth < 640;
  const isIn3D = (viewport) => viewport.viewportOptions.viewportType === "volume3d";
  const setOf = ({ displaySetInstanceUIDs: [uid] }) => uid && services.displaySetService.getDisplaySetByUID(uid);
  // Where an image is shown: where its series is, else where its study is; a prior doesn't take the place of the study.
  const viewportFor = (displaySet) => {
    // An image is found in a stack or in a plane.
    const every = [...grid().viewports.values()];
    const flat = every.filter((v) => !isIn3D(v));
    const all = flat.length ? flat : every;
    const active = all.find((v) => v.viewportId === grid().activeViewportId) || all[0];
    const showsStudy = (v) => v && setOf(v)?.StudyInstanceUID === displaySet.StudyInstanceUID;
    const other = displaySet.StudyInstanceUID !== opened.study && all.find((v) => v !== active);
    return all.find((v) => v.displaySetInstanceUIDs.includes(displaySet.displaySetInstanceUID)) || (showsStudy(active) && active) || all.find(showsStudy) || other || active;
  };
  // What was drawn there before, and the 3D that gives way, may be drawn once more.
  const whenDrawn = (viewportId, { SeriesInstanceUID }) => new Promise((done) => {
    const look = () => {
      const viewport = services.cornerstoneViewportService.getCornerstoneViewport(viewportId);
      const image = viewport?.getCurrentImageId?.();
      if (!viewport || viewport.type === "volume3d" || (image && !image.includes(`/series/${SeriesInstanceUID}/`))) return;
      document.removeEventListener("CORNERSTONE_IMAGE_RENDERED", look, true);
      done();
    };
    document.addEventListener("CORNERSTONE_IMAGE_RENDERED", look, true);
  });
  const show = async ({ displaySet, index }) => {
    const mine = opened;
    const viewport = viewportFor(displaySet);
    const { viewportId, displaySetInstanceUIDs } = viewport;
    if (isIn3D(viewport) || !displaySetInstanceUIDs.includes(displaySet.displaySetInstanceUID)) {
      const rendered = whenDrawn(viewportId, displaySet);
      services.viewportGridService.setDisplaySetsForViewport({ viewportId, displaySetInstanceUIDs: [displaySet.displaySetInstanceUID], ...(isIn3D(viewport) && { viewportOptions: { viewportId, viewportType: "stack", toolGroupId: "default" } }) });
      await rendered;
      if (opened !== mine) return;
    }
    services.viewportGridService.setActiveViewportId(viewportId);
    await commands.runCommand("jumpToImage", { imageIndex: index, viewport: { id: viewportId } });
  };

  // A prior that wasn't opened with the study is fetched when one of its images is asked for.
  const fetched = async (study, matches) => {
    const mine = opened;
    await source().retrieve.series.metadata({ StudyInstanceUID: study });
    for (let tries = 0; tries < 50 && opened === mine; tries += 1) {
      const found = find(matches);
      if (found) return found;
      await new Promise((done) => setTimeout(done, 200));
    }
    return null;
  };

  const jump = async ({ study, uid, sop, frame = 1 }) => {
    const mine = opened;
    if (uid && services.measurementService.getMeasurement(uid)) {
      await commands.runCommand("jumpToMeasurement", { uid });
      return;
    }
    const isIt = (one) => one.SOPInstanceUID === sop;
    const found = find(isIt) || (study && study !== opened.study ? await fetched(study, isIt).catch(() => null) : null);
    if (opened !== mine) return;
    if (found && found.displaySet.isMultiFrame) found.index = frame - 1;
    if (found) await show(found);
    tell("jumped", { isFound: Boolean(found), sop, frame }, mine);
  };

  // What is seen: the image with the marks drawn over it.
  const picture = async (viewport) => {
    const source = viewport.getCanvas();
    const scale = Math.min(1, PICTURE_SIDE / Math.max(source.width, source.height));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [Math.round(source.width * scale), Math.round(source.height * scale)];
    const context = canvas.getContext("2d");
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    const marks = viewport.element.querySelector("svg.svg-layer");
    if (marks) {
      const box = marks.getBoundingClientRect();
      const copy = marks.cloneNode(true);
      copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      copy.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
      copy.setAttribute("width", canvas.width);
      copy.setAttribute("height", canvas.height);
      const image = new Image();
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
      try {
        await image.decode();
        context.drawImage(image, 0, 0);
      } catch {
        // Marks that can't be drawn are left out; the image itself is what counts.
      }
    }
    return canvas.toDataURL("image/jpeg", 0.9);
  };

  const keyImage = async () => {
    const mine = opened;
    const viewport = services.cornerstoneViewportService.getCornerstoneViewport(grid().activeViewportId);
    const named = viewport?.getCurrentImageId?.()?.match(/studies\/([\d.]+)\/series\/[\d.]+\/instances\/([\d.]+)\/frames\/(\d+)/);
    if (!named) return tell("key-image-refused");
    const range = viewport.getProperties()?.voiRange;
    tell("key-image", {
      uid: crypto.randomUUID(), study: named[1], sop: named[2], frame: Number(named[3]), picture: await picture(viewport),
      windowCenter: range ? (range.lower + range.upper) / 2 : null, windowWidth: range ? range.upper - range.lower : null,
    }, mine);
  };

  const measurementsOf = (study) => services.measurementService.getMeasurements().filter((m) => m.referenceStudyUID === study);
  const print = (study) => JSON.stringify(measurementsOf(study).map((m) => [m.SOPInstanceUID, m.frameNumber, m.toolName, m.label, m.points]));

  // Measurements as TID 1500 SR in the archive, by OHIF's own writer: each study's in the study that has the images.
  const saveMeasurements = async () => {
    const mine = opened;
    let count = 0;
    let isFailed = false;
    for (const study of new Set(services.measurementService.getMeasurements().map((m) => m.referenceStudyUID))) {
      const measurementData = measurementsOf(study);
      count += measurementData.length;
      // What is in the archive as it is needs no second document.
      if (mine.savedPrints.get(study) === print(study)) continue;
      try {
        await commands.runCommand("storeMeasurements", {
          measurementData,
          dataSource: "atrium",
          additionalFindingTypes: [...ONLY_MARKS],
          options: { SeriesDescription: "Measurements" },
        });
        mine.savedPrints.set(study, print(study));
      } catch {
        isFailed = true;
      }
    }
    tell("measurements-saved", { count, isFailed }, mine);
  };

  // A study's newest saved measurements are there again, without a question; a prior's too, once it is shown.
  let restoring = Promise.resolve();
  const restoreMeasurements = (study) => {
    if (opened.restored.has(study)) return;
    opened.restored.add(study);
    const mine = opened;
    restoring = restoring.then(() => restore(study, mine)).catch(() => {});
  };
  const restore = async (study, mine) => {
    const when = (set) => `${set.SeriesDate || ""}${set.SeriesTime || ""}`;
    const saved = services.displaySetService
      .getActiveDisplaySets()
      .filter((set) => set.SOPClassHandlerId?.includes("cornerstone-dicom-sr") && set.StudyInstanceUID === study)
      .sort((a, b) => when(b).localeCompare(when(a)));
    for (const set of saved) {
      try {
        if (!set.isLoaded) await set.load?.();
        if (opened !== mine) return;
        if (!set.isRehydratable || set.isHydrated) continue;
        isRestoring = true;
        await commands.runCommand("hydrateStructuredReport", { displaySetInstanceUID: set.displaySetInstanceUID });
      } catch {
        // A document that can't be read doesn't keep an older one from being restored.
        continue;
      } finally {
        isRestoring = false;
      }
      mine.savedPrints.set(study, print(study));
      tell("measurements-restored", { study, count: measurementsOf(study).length }, mine);
      return;
    }
  };

  const setsInGrid = () => [...grid().viewports.values()].flatMap((v) => v.displaySetInstanceUIDs).map((uid) => services.displaySetService.getDisplaySetByUID(uid));
  const shownStudies = () => {
    const shown = [...new Set(setsInGrid().map((set) => set?.StudyInstanceUID).filter(Boolean))];
    tell("studies-shown", { studies: shown });
    for (const study of shown) restoreMeasurements(study);
  };

  // A study of documents alone is shown, too, though no image is ever drawn.
  const gridChanged = () => {
    if (opened.hasRendered) { shownStudies(); return; }
    const sets = setsInGrid();
    if (sets.length && sets.every((set) => set && !imagesOf(set).some((image) => image.Rows))) onFirstRendered();
  };

  const isOfStudy = (viewportMatchDetails) => [...viewportMatchDetails.values()].some(({ displaySetsInfo }) =>
    displaySetsInfo.some(({ displaySetInstanceUID: uid }) => uid && services.displaySetService.getDisplaySetByUID(uid)?.StudyInstanceUID === opened.study));
  const rememberProtocol = ({ protocol, viewportMatchDetails } = {}) => {
    const id = protocol?.id || services.hangingProtocolService.getActiveProtocol()?.protocol?.id;
    if (!id || id === opened.protocol) return;
    // What a study opens with is no choice of the person.
    const isChoice = opened.hasRendered && opened.protocol;
    opened.protocol = id;
    tell("protocol", { id });
    // How a prior is looked at, or on a phone, says nothing of the next study.
    if (isChoice && remembered.includes(id) && !isNarrow() && isOfStudy(viewportMatchDetails)) {
      fetch("/viewer/preferences/", {
        method: "POST",
        headers: { "X-CSRFToken": csrfToken },
        body: new URLSearchParams({ study: opened.study, protocol: id }),
      });
    }
  };

  // The next case's first images wait in the browser's cache; what is on screen goes first.
  let ahead = new AbortController();
  const prefetch = async (studies) => {
    ahead.abort();
    ahead = new AbortController();
    const { signal } = ahead;
    for (const study of studies) {
      const series = await (await fetch(`/dicom-web/studies/${study}/series`, { headers: { Accept: "application/dicom+json" }, priority: "low", signal })).json();
      for (const one of series) {
        const uid = one["0020000E"].Value[0];
        const metadata = await fetch(`/dicom-web/studies/${study}/series/${uid}/metadata`, { headers: { Accept: "application/dicom+json" }, priority: "low", signal });
        const frames = (await metadata.json()).filter((instance) => instance["7FE00010"]).slice(0, MOST_PREFETCHED);
        for (const instance of frames) {
          const path = `/dicom-web/studies/${study}/series/${uid}/instances/${instance["00080018"].Value[0]}/frames/1`;
          await (await fetch(path, { headers: { Accept: FRAMES }, priority: "low", signal })).arrayBuffer();
        }
        if (frames.length) break;
      }
    }
    tell("prefetched", { studies });
  };

  const source = () => extensions.getActiveDataSource()[0];
  // A study is asked for by the case that it belongs to; what comes of one that was left meanwhile is dropped.
  let isPrepared = false;
  const prepare = () => {
    if (isPrepared) return;
    isPrepared = true;
    const { series } = source().retrieve;
    const { metadata } = series;
    series.metadata = (wanted) => {
      opened.asked.add(wanted.StudyInstanceUID);
      return metadata(wanted);
    };
    hangSomething(services.hangingProtocolService);
    const { displaySetService } = services;
    window.atriumHearAll(displaySetService);
    const { makeDisplaySets } = displaySetService;
    displaySetService.makeDisplaySets = (instances, ...rest) => {
      const study = [instances].flat()[0]?.StudyInstanceUID;
      if (study && !opened.asked.has(study)) return [];
      const sets = makeDisplaySets.call(displaySetService, instances, ...rest);
      fetchFirstFrame(sets || []);
      return sets;
    };
    // The drawing contexts, which take long to make, are the next case's, too; the images go.
    const viewports = services.cornerstoneViewportService;
    const { destroy } = viewports;
    viewports.destroy = () => {
      const engine = viewports.renderingEngine;
      for (const { id } of engine?.getViewports() || []) engine.disableElement(id);
      viewports.renderingEngine = null;
      destroy.call(viewports);
    };
  };

  // OHIF's own protocols take whichever study has the greatest UID of those that are open: a prior isn't the study.
  // A protocol that none of the study's images fit can't be applied; OHIF would leave its viewports empty.
  const preferStudy = () => {
    const [ofFirst] = ofStudy(0).studyMatchingRules;
    for (const { id, isPreset, displaySetSelectors, stages } of services.hangingProtocolService.protocols.values()) {
      const isLast = id === "default";
      if (isPreset || isLast) for (const selector of Object.values(displaySetSelectors)) selector.studyMatchingRules = [{ ...ofFirst, required: !isLast, weight: 100 }];
      if (isPreset || remembered.includes(id)) for (const stage of isLast ? [] : stages) stage.stageActivation = { ...stage.stageActivation, passive: { minViewportsMatched: 1 } };
    }
  };
  // What a study opens with where the protocol asked for doesn't do: one image. What the person chose stays remembered.
  const hangSomething = (service) => {
    const { run } = service;
    service.run = (what, protocol, options) => {
      const isOpening = !opened.hasRendered && remembered.includes(protocol);
      const shown = service.getActiveProtocol();
      try {
        run.call(service, what, isOpening && isNarrow() ? "default" : protocol, options);
      } catch (error) {
        // What couldn't be applied leaves what is shown.
        Object.assign(service, shown);
        if (!isOpening) throw error;
        run.call(service, what, "default");
      }
    };
    // OHIF asks for a protocol's first stage, be there images for it or not: the first that they fill is shown.
    const { _findStageIndex } = service;
    service._findStageIndex = (options) => _findStageIndex.call(service, options?.stageIndex ? options : { ...options, stageIndex: undefined });
  };

  // OHIF keeps what it has read of a study as long as it runs: let go, so that it's read anew and memory stays flat.
  let left = [];
  const kept = new Set();
  const REMOVED = "CORNERSTONE_IMAGE_CACHE_IMAGE_REMOVED";
  let atStart = null;
  const forget = () => {
    for (const study of left) {
      Object.assign(study, { StudyDescription: "", ModalitiesInStudy: [], isLoaded: false });
      study.series.length = 0;
      source().deleteStudyMetadataPromise(`${source().getConfig().name}:${study.StudyInstanceUID}`);
      kept.delete(study.StudyInstanceUID);
    }
    left = [];
    const { eventTarget, utilities } = window.cornerstone;
    // Nothing of the case left is brought back by «undo».
    utilities.HistoryMemo.DefaultHistoryMemo.size = utilities.HistoryMemo.DefaultHistoryMemo.size;
    // Cornerstone's prefetch listens as long as the page lives, and each listener holds its viewport.
    atStart ||= [...(eventTarget.listeners[REMOVED] || [])];
    eventTarget.listeners[REMOVED] = [...atStart];
  };

  // Frames of a case that is left no longer hold up the next one's.
  let frames = new AbortController();
  const fetchAny = window.fetch;
  window.fetch = (what, init) => {
    if (!String(what).includes("/frames/")) return fetchAny.call(window, what, init);
    const first = firstFrames.get(what);
    firstFrames.delete(what);
    return first?.catch(() => window.fetch(what, init)) || fetchAny.call(window, what, { ...init, signal: init?.signal || frames.signal });
  };
  // A study's first frame is on its way while OHIF still builds the viewport that asks for it.
  const firstFrames = new Map();
  const fetchFirstFrame = (sets) => {
    const set = sets.find((one) => one.SOPClassHandlerId?.endsWith(".stack") && imagesOf(one)[0]?.imageId?.startsWith("wadors:"));
    if (!set || opened.place || opened.framed.has(set.StudyInstanceUID)) return;
    opened.framed.add(set.StudyInstanceUID);
    const url = imagesOf(set)[0].imageId.slice("wadors:".length);
    const answer = fetchAny.call(window, url, { headers: { Accept: FRAMES }, signal: frames.signal });
    answer.catch(() => {});
    firstFrames.set(url, answer);
  };
  // One that nobody has asked for by then doesn't hold up the others.
  const dropFirstFrames = () => {
    for (const answer of firstFrames.values()) answer.then((response) => response.body.cancel()).catch(() => {});
    firstFrames.clear();
  };

  const pause = (time) => new Promise((done) => setTimeout(done, time));
  const cover = (text) => {
    const wait = document.getElementById("atrium-wait") || document.createElement("div");
    wait.id = "atrium-wait";
    wait.textContent = text;
    Object.assign(wait.style, { position: "fixed", inset: 0, zIndex: 2147483647, display: "grid", placeContent: "center", background: "#000", color: "#aab4c0" });
    document.body.append(wait);
  };
  let cases = 1;
  const open = async ({ about, address, wait, answer: known }) => {
    // A frame stands beside the words of its own page: a copied tab has the same desk.
    if (window.parent !== window && window.parent.document.getElementById("study-images")?.dataset.study !== about) return;
    const wasShown = opened.hasRendered && opened.isSetUp;
    cases += 1;
    for (const study of opened.asked) kept.add(study);
    const mine = caseOf("");
    mine.study = about;
    // From here on no image of the case left is seen, and nothing is told of it.
    opened = mine;
    cover(wait);
    tell("opening");
    ahead.abort();
    window.atriumAsked.ahead(about);
    const load = () => { if (opened === mine) window.location.replace(address); };
    if (!wasShown || cases > MOST_CASES) { load(); return; }
    try {
      const answer = known || (await (await fetch(address, { headers: { Accept: "application/json" } })).json());
      for (let waited = 0; asking.size && waited < LONGEST_LEAVE; waited += 20) await pause(20);
      if (opened !== mine) return;
      const next = new URL(answer.address, window.location);
      left = (services.hangingProtocolService.studies || []).filter(Boolean);
      Object.assign(mine, { ...caseOf(next.search), study: about });
      // A study that OHIF read beside its cases can't be let go.
      const isKept = mine.studies.some((study) => kept.has(study) && !left.some((one) => one.StudyInstanceUID === study));
      if (asking.size || answer.edition !== edition || next.pathname !== window.location.pathname || mine.studies[0] !== about || isKept) { load(); return; }
      csrfToken = answer.csrf_token;
      frames.abort();
      frames = new AbortController();
      commands.runCommand("navigateHistory", { to: `${next.pathname.replace(/^\/viewer/, "")}${next.search}`, options: { replace: true } });
      for (let waited = 0; !mine.hasRendered && opened === mine; waited += 250) {
        const isEmpty = mine.isSetUp && !services.displaySetService.getActiveDisplaySets().length;
        if (isEmpty || waited > LONGEST_OPENING || window.location.pathname !== next.pathname) { load(); return; }
        await pause(250);
      }
    } catch {
      load();
    }
  };

  // The series at hand goes along where the protocol takes it, else the study's own that fit.
  const hang = ({ protocol }) => {
    const service = services.hangingProtocolService;
    const { displaySetSelectors } = service.getProtocolById(protocol);
    const atHand = setOf(grid().viewports.get(grid().activeViewportId));
    const isTaken = service.areRequiredSelectorsValid(Object.values(displaySetSelectors), atHand);
    commands.runCommand("setHangingProtocol", { protocolId: protocol, activeStudyUID: opened.study, reset: !isTaken });
    // OHIF says so where it can't be applied; the desk's list says what is shown.
    tell("protocol", { id: service.getActiveProtocol().protocol.id });
  };

  const obey = {
    jump,
    "key-image": keyImage,
    "save-measurements": saveMeasurements,
    prefetch: ({ studies }) => prefetch(studies).catch(() => {}),
    hang,
    open,
    close: () => { if (window.parent === window) window.close(); },
  };
  // What the desk wants is about its case; these are of any.
  const OF_ANY = new Set(["open", "close", "prefetch"]);

  // Searches, metadata and what is stored, as long as they are under way.
  const asking = new Set();
  const openRequest = XMLHttpRequest.prototype.open;
  // STOW-RS of measurements and segmentations goes by the session cookie; OHIF's client passes on no header of ours.
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    openRequest.call(this, method, url, ...rest);
    if (!/\/(frames|rendered|thumbnail)\b/.test(url)) {
      this.addEventListener("loadstart", () => asking.add(this));
      this.addEventListener("loadend", () => asking.delete(this));
    }
    if (method.toUpperCase() === "POST" && new URL(url, window.location).origin === window.location.origin) {
      this.setRequestHeader("X-CSRFToken", csrfToken);
      // One who works at several sites stores at the study's own.
      if (opened.site) this.setRequestHeader("X-Atrium-Site", opened.site);
    }
  };

  // Each viewport that has drawn is told once, so that what stood in its place goes.
  const tellDrawn = (viewportId) => {
    if (opened.drawn.has(viewportId)) return;
    opened.drawn.add(viewportId);
    const viewports = [...grid().viewports.keys()];
    tell("image-drawn", { viewport: viewports.indexOf(viewportId), viewports: viewports.length });
  };
  // Which of a report's measurements a viewport shows, OHIF may tell it only when its image is drawn, and draws no more.
  const AGAIN = [200, 1000];
  const drawnIn = new Map();
  const drawReportAgain = (viewportId, viewport) => {
    const shown = grid().viewports.get(viewportId);
    const set = shown && setOf(shown);
    const isNew = drawnIn.get(viewportId) !== set?.displaySetInstanceUID;
    drawnIn.set(viewportId, set?.displaySetInstanceUID);
    if (!isNew || set?.Modality !== "SR") return;
    const isThere = () => services.cornerstoneViewportService.getCornerstoneViewport(viewportId) === viewport;
    for (const delay of AGAIN) setTimeout(() => { if (isThere()) viewport.render(); }, delay);
  };
  const onRendered = ({ detail: { viewportId } }) => {
    // A viewport also draws while its first image is still on its way: nothing.
    const viewport = services.cornerstoneViewportService.getCornerstoneViewport(viewportId);
    if (viewport?.type === "stack" && !viewport.getCornerstoneImage()) return;
    drawReportAgain(viewportId, viewport);
    onFirstRendered();
    if (opened.hasRendered) tellDrawn(viewportId);
  };
  const onFirstRendered = () => {
    if (opened.hasRendered || !opened.isEntered || !setsInGrid().some((set) => opened.studies.includes(set?.StudyInstanceUID))) return;
    opened.hasRendered = true;
    document.dispatchEvent(new Event("atrium-shown"));
    dropFirstFrames();
    document.getElementById("atrium-wait")?.remove();
    tell("image-rendered");
    rememberProtocol();
    restoreMeasurements(opened.study);
    shownStudies();
    if (opened.place) jump({ study: opened.study, sop: opened.place, frame: opened.frame });
  };

  // The desk's keys work while the images have the focus: its letters, which are OHIF's here, together with Alt.
  const deskKey = (event) => {
    const { key, ctrlKey, altKey, shiftKey } = event;
    if (event.isComposing || event.metaKey || event.target.matches?.("input, textarea, select")) return;
    const isLetter = altKey && !ctrlKey && key.length === 1;
    if (!isLetter && !["F2", "F7", "F9", "?"].includes(key) && !(ctrlKey && key === "Enter")) return;
    event.preventDefault();
    event.stopPropagation();
    if (!opened.hasRendered) return;
    if (isLetter && key === "k") keyImage();
    else tell("key", { key, ctrlKey, shiftKey, altKey: isLetter && /[1-9]/.test(key) });
  };

  const extension = {
    id: "atrium.bridge",
    preRegistration({ servicesManager, commandsManager, extensionManager }) {
      services = servicesManager.services;
      commands = commandsManager;
      extensions = extensionManager;
      const { measurementService, viewportGridService, hangingProtocolService } = services;
      hangingProtocolService.addCustomAttribute("atriumMammoView", "Side and view of a mammogram", mammoView);
      measurementService.subscribe(measurementService.EVENTS.MEASUREMENT_ADDED, tellMeasurement("added"));
      measurementService.subscribe(measurementService.EVENTS.MEASUREMENT_UPDATED, tellMeasurement("updated"));
      measurementService.subscribe(measurementService.EVENTS.MEASUREMENT_REMOVED, tellMeasurement("removed"));
      viewportGridService.subscribe(viewportGridService.EVENTS.GRID_STATE_CHANGED, gridChanged);
      hangingProtocolService.subscribe(hangingProtocolService.EVENTS.PROTOCOL_CHANGED, rememberProtocol);
      // The event doesn't bubble, but it is captured on its way down.
      document.addEventListener("CORNERSTONE_IMAGE_RENDERED", onRendered, true);
      document.addEventListener("keydown", deskKey, true);
      if (channel) channel.onmessage = ({ data }) => { if (data?.from === "desk" && (OF_ANY.has(data.type) || (opened.hasRendered && data.about === opened.study))) obey[data.type]?.(data); };
      tell("ready");
    },
    onModeEnter() {
      window.atriumClaimImages(extensions);
      window.atriumGuard(extensions, { onShown: onFirstRendered });
      prepare();
      preferStudy();
      forget();
      opened.isEntered = true;
    },
    getHangingProtocolModule: () => [compareProtocol(), fourUpProtocol(), mammoProtocol()].map((protocol) => ({ name: protocol.id, protocol })),
  };
  // A document draws no image, and the grid may have had it before anyone could hear.
  const watchGrid = async (mine) => {
    for (let waited = 0; opened === mine && !mine.hasRendered && waited < LONGEST_OPENING; waited += 100) {
      gridChanged();
      await pause(100);
    }
  };
  const onSetupRouteComplete = () => {
    opened.isSetUp = true;
    watchGrid(opened);
  };
  return { extension, onSetupRouteComplete };
};

// Layouts that OHIF lacks: the study beside its prior, and up to four series of one study.
const viewportOptions = { viewportType: "stack", toolGroupId: "default", allowUnmatchedView: true };
const withImages = { attribute: "numImageFrames", constraint: { greaterThan: { value: 0 } }, required: true };
const ofStudy = (index) => ({
  studyMatchingRules: [{ attribute: "studyInstanceUIDsIndex", from: "options", required: true, constraint: { equals: { value: index } } }],
  seriesMatchingRules: [withImages, { attribute: "numImageFrames", weight: 10, constraint: { greaterThan: { value: 10 } } }],
});
// A stage is what a study opens with where its images fill so many of the viewports.
const stage = (name, rows, columns, displaySets, minViewportsMatched) => ({
  name,
  stageActivation: { enabled: { minViewportsMatched } },
  viewportStructure: { layoutType: "grid", properties: { rows, columns } },
  viewports: displaySets.map((displaySet, n) => ({
    viewportOptions: { ...viewportOptions, viewportId: n ? `${name}-${n}` : "default" },
    displaySets: [displaySet],
  })),
});
const compareProtocol = () => ({
  id: "atrium.compare",
  name: "Beside the prior",
  numberOfPriorsReferenced: 1,
  protocolMatchingRules: [],
  toolGroupIds: ["default"],
  displaySetSelectors: { current: ofStudy(0), prior: ofStudy(1) },
  defaultViewport: { viewportOptions, displaySets: [{ id: "current", matchedDisplaySetsIndex: -1 }] },
  stages: [
    stage("beside", 1, 2, [{ id: "current" }, { id: "prior" }], 2),
    stage("alone", 1, 1, [{ id: "current" }], 1),
  ],
});
const firstSeries = (count) => [...Array(count).keys()].map((n) => ({ id: "current", matchedDisplaySetsIndex: n }));
// The first has the height of the two beside it: no image is smaller than it would be with a fourth, empty viewport.
const threeSeries = () => {
  const built = stage("three", 2, 2, firstSeries(3), 3);
  const [width, height] = [1 / 2, 1 / 2];
  built.viewportStructure.properties.layoutOptions = [{ x: 0, y: 0, width, height: 1 }, { x: width, y: 0, width, height }, { x: width, y: height, width, height }];
  return built;
};
const fourUpProtocol = () => ({
  id: "atrium.fourUp",
  name: "Four series",
  protocolMatchingRules: [],
  toolGroupIds: ["default"],
  displaySetSelectors: { current: ofStudy(0) },
  defaultViewport: { viewportOptions, displaySets: [{ id: "current", matchedDisplaySetsIndex: -1 }] },
  stages: [
    stage("four", 2, 2, firstSeries(4), 4),
    threeSeries(),
    stage("two", 1, 2, firstSeries(2), 2),
    stage("one", 1, 1, firstSeries(1), 1),
  ],
});

// Mammograms by what they say of themselves: the side (Image Laterality, Laterality) and the view (View Code, View
// Position). OHIF's own protocol goes by words of the description and takes one side for the other.
const VIEWS = { 399162004: "CC", "R-10242": "CC", 399368009: "MLO", "R-10226": "MLO" };
const mammoView = (displaySet) => {
  const image = (displaySet.instances || displaySet.images || [])[0] || displaySet.instance || {};
  const shared = [image.SharedFunctionalGroupsSequence].flat()[0] || {};
  const anatomy = [shared.FrameAnatomySequence].flat()[0] || {};
  const side = image.ImageLaterality || anatomy.FrameLaterality || image.Laterality || "";
  const code = [image.ViewCodeSequence].flat()[0] || {};
  return `${side}${VIEWS[code.CodeValue] || image.ViewPosition || ""}`;
};
const mammoSelector = (view, study) => ({
  studyMatchingRules: ofStudy(study).studyMatchingRules,
  seriesMatchingRules: [withImages, { attribute: "atriumMammoView", required: true, weight: 10, constraint: { equals: { value: view } } }],
});
// The chest walls meet in the middle.
const againstTheMiddle = (side) => {
  const edge = side === "R" ? 1 : 0;
  return { storeAsInitialCamera: true, imageArea: [0.9, 0.9], imageCanvasPoint: { imagePoint: [edge, 0.5], canvasPoint: [edge, 0.5] } };
};
const mammoStage = (name, rows, columns, shown, minViewportsMatched) => {
  const built = stage(name, rows, columns, shown.map((id) => ({ id })), minViewportsMatched);
  built.viewports.forEach((viewport, n) => { viewport.viewportOptions = { ...viewport.viewportOptions, allowUnmatchedView: false, displayArea: againstTheMiddle(shown[n][0]) }; });
  return built;
};
const MAMMO_VIEWS = ["RCC", "LCC", "RMLO", "LMLO"];
const MAMMO_PAIRS = [["RCC", "LCC"], ["RMLO", "LMLO"], ["RCC", "RMLO"], ["LCC", "LMLO"], ["RCC", "LMLO"], ["RMLO", "LCC"]];
const mammoProtocol = () => ({
  id: "atrium.mammo",
  name: "Mammography",
  numberOfPriorsReferenced: 1,
  protocolMatchingRules: [],
  toolGroupIds: ["default"],
  displaySetSelectors: Object.fromEntries(MAMMO_VIEWS.flatMap((view) => [[view, mammoSelector(view, 0)], [`${view}prior`, mammoSelector(view, 1)]])),
  defaultViewport: { viewportOptions, displaySets: [{ id: "RCC", matchedDisplaySetsIndex: -1 }] },
  stages: [
    // Of three views the fourth's place stays empty; of fewer none of the study's own is left out.
    mammoStage("four", 2, 2, MAMMO_VIEWS, 3),
    mammoStage("cc", 2, 2, ["RCC", "LCC", "RCCprior", "LCCprior"], 4),
    mammoStage("mlo", 2, 2, ["RMLO", "LMLO", "RMLOprior", "LMLOprior"], 4),
    ...MAMMO_PAIRS.map((views) => mammoStage(views.join("-"), 1, 2, views, 2)),
    ...MAMMO_VIEWS.map((view) => mammoStage(view, 1, 1, [view], 1)),
  ],
});
