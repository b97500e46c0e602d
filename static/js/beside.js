// A page of ours in the place of the images: a key that means nothing here is one of the case's page around it.
(() => {
  if (window.parent === window) return;
  document.addEventListener("keydown", (event) => {
    const { key, ctrlKey, altKey, shiftKey } = event;
    if (event.isComposing || event.metaKey || event.target.matches?.("input, textarea, select, iframe")) return;
    if (key !== "?" && document.querySelector(`main [data-key="${CSS.escape(key)}"]`)) return;
    const same = new KeyboardEvent("keydown", { key, ctrlKey, altKey, shiftKey, bubbles: true, cancelable: true });
    if (window.parent.document.body.dispatchEvent(same)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
})();
