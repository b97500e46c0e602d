// Nothing that a sender put into the archive takes the viewer of the rest along: what OHIF can't make sense of is shown by a
// page of ours, in its own viewport.
window.atriumGuard = (extensions, { onShown }) => {
  const WORDS = "The viewer can’t make sense of this object. This is Atrium’s own rendering.";
  const UNABLE = "The viewer can’t show this panel.";
  // OHIF's React, as the build gives it to us (boot.js).
  const react = () => window.atriumReact;
  const frames = new Set();
  const guarded = new WeakSet();
  const log = (error) => console.warn("Atrium: OHIF failed at an object", error);

  const pageOf = (set) => `/studies/${set.StudyInstanceUID}/objects/${set.SOPInstanceUID || (set.instances || set.images || [])[0]?.SOPInstanceUID || ""}/?beside=1`;
  const instead = (set, words = WORDS) => {
    const { createElement } = react();
    const column = { display: "flex", flexDirection: "column", width: "100%", height: "100%", background: "#000", color: "#ffd479" };
    const address = set?.StudyInstanceUID && pageOf(set);
    return createElement("div", { style: column, "data-cy": "atrium-instead" },
      createElement("p", { style: { margin: 0, padding: "2.25rem .75rem .4rem", fontSize: "13px" }, role: "status" }, words),
      address && createElement("iframe", { src: address, title: set.label || "Object", style: { flex: 1, border: 0, background: "#fff" } }));
  };
  const PDF = "1.2.840.10008.5.1.4.1.1.104.1";
  // What would be an empty field: overlays and measurements without their images, traces without samples, a page without a PDF.
  const isEmpty = (set) => {
    const instance = set?.instance || set?.instances?.[0] || {};
    if (set?.isOverlayDisplaySet) return !set.referencedDisplaySetInstanceUID;
    if (set?.isImagingMeasurementReport) return set.isLoaded && !set.measurements.some((one) => one.displaySetInstanceUID);
    if (set?.viewportType === "ecg") return ![instance.WaveformSequence].flat()[0]?.NumberOfWaveformSamples;
    return set?.SOPClassUID === PDF && !instance.EncapsulatedDocument;
  };

  // One class for each React: a boundary catches what its children throw while they're drawn, and no more.
  let Boundary;
  const boundary = () => {
    const { Component, createElement } = react();
    Boundary ||= class extends Component {
      constructor(props) {
        super(props);
        this.state = { broken: null };
      }

      static getDerivedStateFromError() { return { isNew: true }; }

      // Another object in the same viewport is another try.
      get key() { return (this.props.given.displaySets || []).map((set) => set.displaySetInstanceUID).join() || this.props.name; }

      componentDidCatch(error) {
        log(error);
        this.break();
      }

      break() { this.setState({ broken: this.key, isNew: false }); }

      componentDidMount() {
        frames.add(this);
        this.componentDidUpdate();
      }

      componentDidUpdate() { if (this.isInstead) onShown(); }

      componentWillUnmount() { frames.delete(this); }

      render() {
        const { shown, given, ofViewport } = this.props;
        const [set] = given.displaySets || [];
        this.isInstead = this.state.isNew || this.state.broken === this.key || isEmpty(set);
        if (!this.isInstead) return createElement(shown, given);
        return ofViewport ? instead(set) : instead(null, UNABLE);
      }
    };
    return Boundary;
  };
  const guardComponent = (entry, name) => {
    const shown = entry.component;
    const ofViewport = name.includes(".viewportModule.");
    // Without its React there's nothing to guard with; which of the two it is stays so.
    let isGuarded;
    entry.component = (given) => {
      isGuarded ??= Boolean(react());
      return isGuarded ? react().createElement(boundary(), { shown, given, name, ofViewport }) : shown(given);
    };
  };

  // What fails while it's loaded is said where it's shown.
  const guardLoad = (set) => {
    const { load } = set;
    if (typeof load !== "function") return;
    set.load = async (...given) => {
      const shownIn = () => [...frames].filter((frame) => frame.props.given.displaySets?.includes(set));
      try {
        const loaded = await load.apply(set, given);
        if (isEmpty(set)) for (const frame of shownIn()) frame.forceUpdate();
        return loaded;
      } catch (error) {
        for (const frame of shownIn()) frame.break();
        throw error;
      }
    };
  };
  // A text of several values is one text to OHIF; anything else isn't one.
  const TEXTS = ["SeriesDescription", "Modality", "SeriesDate", "SeriesTime", "label"];
  const text = (value) => (Array.isArray(value) ? value.join("\\") : ["string", "number"].includes(typeof value) ? String(value) : "");
  const plain = (set) => {
    for (const name of TEXTS) if (set[name] !== undefined && typeof set[name] !== "string") set[name] = text(set[name]);
    guardLoad(set);
    return set;
  };
  const guardHandler = (entry) => {
    const make = entry.getDisplaySetsFromSeries;
    entry.getDisplaySetsFromSeries = (instances) => {
      try {
        return (make.call(entry, instances) || []).map(plain);
      } catch (error) {
        log(error);
        return [];
      }
    };
  };

  for (const [name, entry] of Object.entries(extensions.modulesMap)) {
    if (!entry || typeof entry !== "object" || guarded.has(entry)) continue;
    guarded.add(entry);
    if (/\.(viewportModule|panelModule)\./.test(name) && entry.component) guardComponent(entry, name);
    if (entry.getDisplaySetsFromSeries) guardHandler(entry);
  }
};

// One listener that fails doesn't keep the others from hearing.
window.atriumHearAll = (service) => {
  const { _broadcastEvent: tell } = service;
  service._broadcastEvent = (name, detail) => {
    const safely = (one) => ({
      ...one,
      callback: (given) => {
        try {
          one.callback(given);
        } catch (error) {
          console.warn("Atrium: a listener in OHIF failed", error);
        }
      },
    });
    const { listeners } = service;
    tell.call({ listeners: { ...listeners, [name]: listeners[name]?.map(safely) } }, name, detail);
  };
};
