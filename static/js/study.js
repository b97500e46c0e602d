// The study page listens to the viewer beside it; only messages of our own origin and frame count.
(() => {
  const viewer = document.getElementById("viewer");
  const wait = document.getElementById("viewer-wait");
  window.addEventListener("message", (event) => {
    if (event.origin !== window.location.origin || event.source !== viewer.contentWindow) return;
    if (event.data?.source !== "atrium.bridge") return;
    if (event.data.type === "image-rendered") wait.hidden = true;
    document.dispatchEvent(new CustomEvent("atrium:viewer", { detail: event.data }));
  });
})();
