// OHIF's configuration and the bridge to the page around it. The view puts the session's CSRF token in.
(() => {
  const csrfToken = "__CSRF_TOKEN__";
  const tell = (type, detail = {}) => {
    if (window.parent !== window) {
      window.parent.postMessage({ source: "atrium.bridge", type, ...detail }, window.location.origin);
    }
  };

  const bridge = {
    id: "atrium.bridge",
    preRegistration({ servicesManager }) {
      const { userAuthenticationService, measurementService } = servicesManager.services;
      // STOW-RS of measurements and segmentations goes by the session cookie and so needs the token.
      userAuthenticationService.setServiceImplementation({
        getAuthorizationHeader: () => ({ "X-CSRFToken": csrfToken }),
      });
      measurementService.subscribe(measurementService.EVENTS.MEASUREMENT_ADDED, ({ measurement }) =>
        tell("measurement-added", { uid: measurement.uid, label: measurement.label || "" })
      );
      const rendered = () => {
        document.removeEventListener("CORNERSTONE_IMAGE_RENDERED", rendered, true);
        tell("image-rendered");
      };
      // The event doesn't bubble, but it is captured on its way down.
      document.addEventListener("CORNERSTONE_IMAGE_RENDERED", rendered, true);
      tell("ready");
    },
  };

  window.config = {
    name: "atrium",
    routerBasename: "/viewer",
    extensions: [bridge],
    modes: [],
    customizationService: [{ "ohif.tours": { $set: [] } }],
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
    investigationalUseDialog: { option: "never" },
    maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
    studyPrefetcher: { enabled: true, displaySetsCount: 2, maxNumPrefetchRequests: 10, order: "closest" },
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
          bulkDataURI: { enabled: true, relativeResolution: "studies" },
        },
      },
    ],
  };
})();
