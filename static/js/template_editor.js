// The template editor by keyboard: the caret stays where it was, Alt and the arrows move a field, Ctrl+S saves.
(() => {
  const form = document.getElementById("template-form");
  const preview = document.getElementById("template-preview");
  let isChanged = false;
  let isSaving = false;
  let caretIn = "";
  let from = null;
  let isWaiting = false;
  let moved = null;

  const editor = () => document.getElementById("template-editor");
  const showConditions = () => atriumConditions(preview);

  const move = (verb) => {
    const here = document.activeElement;
    const place = here.closest(".edited-field, .edited-section");
    const button = place?.querySelector(`button[value^="${verb} "]`);
    if (!button) return;
    caretIn = here.id.replace(/^e(-\d+)+-/, "");
    button.click();
  };

  form.addEventListener("input", () => { isChanged = true; });
  form.addEventListener("submit", () => { isSaving = true; });
  window.addEventListener("beforeunload", (event) => { if (isChanged && !isSaving) event.preventDefault(); });
  preview.addEventListener("input", (event) => { event.stopPropagation(); showConditions(); });

  // A button's answer says what gets the keyboard, unless one went on elsewhere meanwhile (portal.js keeps that place).
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (!editor().contains(event.target)) return;
    isChanged = true;
    from = document.activeElement;
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id !== "template-editor") return;
    const here = document.activeElement;
    isWaiting = here === from;
    moved = caretIn && isWaiting && "selectionStart" in here ? { value: here.value, start: here.selectionStart, end: here.selectionEnd } : null;
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    showConditions();
    if (event.detail.target.id !== "template-editor") return;
    const focus = isWaiting && editor().dataset.focus;
    const wanted = focus && caretIn ? focus.replace(/-(up|down)$/, `-${caretIn}`) : focus;
    const element = (wanted && document.getElementById(wanted)) || (focus && document.getElementById(focus));
    caretIn = "";
    if (!element) return;
    element.focus({ preventScroll: true });
    // A field that was moved takes along what was typed in it on the way.
    if (moved && element.id === wanted) {
      element.value = moved.value;
      element.setSelectionRange(moved.start, moved.end);
    }
    element.scrollIntoView({ block: "nearest" });
  });
  document.addEventListener("htmx:oobAfterSwap", showConditions);
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      event.preventDefault();
      form.requestSubmit();
    }
    if (event.altKey && !event.target.matches("select") && (event.key === "ArrowUp" || event.key === "ArrowDown") && editor().contains(event.target)) {
      event.preventDefault();
      move(event.key === "ArrowUp" ? "up" : "down");
    }
  });
  document.addEventListener("DOMContentLoaded", showConditions);
})();
