// OHIF's configuration, behind the bridge. The view puts in the session's CSRF token, its edition and the protocols that are remembered.
(() => {
  const bridge = atriumBridge("__CSRF_TOKEN__", "__EDITION__", "__PROTOCOLS__");
  window.config = {
    name: "atrium",
    routerBasename: "/viewer",
    extensions: [bridge.extension],
    modes: [],
    // Angiography and fluoroscopy are films, too.
    customizationService: [{ "ohif.tours": { $set: [] }, autoCineModalities: { $set: ["OT", "US", "XA", "RF"] } }],
    showStudyList: false,
    whiteLabeling: {
      createLogoComponentFn: (React) => React.createElement("span", { className: "text-white text-lg px-2" }, "Atrium"),
    },
    maxNumberOfWebWorkers: Math.max(1, Math.min(3, (navigator.hardwareConcurrency || 2) - 1)),
    showWarningMessageForCrossOrigin: false,
    showCPUFallbackMessage: false,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    groupEnabledModesFirst: true,
    showErrorDetails: "production",
    // Every measurement is the report's, nobody is asked first.
    measurementTrackingMode: "simplified",
    disableConfirmationPrompts: true,
    // Beside the words there's no room for a list of thumbnails until it's wanted.
    modesConfiguration: {
      "@ohif/mode-longitudinal": { onSetupRouteComplete: { $set: bridge.onSetupRouteComplete }, routes: { 0: { layoutInstance: { props: { leftPanelClosed: { $set: window.innerWidth < 1000 } } } } } },
    },
    investigationalUseDialog: { option: "never" },
    maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
    // It asks for frames of presentation states, which have none; the bridge fetches ahead instead.
    studyPrefetcher: { enabled: false },
    defaultDataSourceName: "atrium",
    dataSources: [
      {
        namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
        sourceName: "atrium",
        configuration: {
          friendlyName: "Atrium",
          name: "atrium",
          qidoRoot: "/dicom-web",
          wadoRoot: "/dicom-web",
          wadoUriRoot: "/wado",
          qidoSupportsIncludeField: true,
          imageRendering: "wadors",
          thumbnailRendering: "wadors",
          enableStudyLazyLoad: true,
          supportsFuzzyMatching: true,
          supportsWildcard: true,
          dicomUploadEnabled: false,
          omitQuotationForMultipartRequest: true,
          singlepart: "video",
          bulkDataURI: { enabled: true, relativeResolution: "studies" },
        },
      },
    ],
  };
})();
