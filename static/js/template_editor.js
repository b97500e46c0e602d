// The template editor by keyboard: the caret stays where it was, Alt and the arrows move a field, Ctrl+S saves.
(() => {
  const form = document.getElementById("template-form");
  const preview = document.getElementById("template-preview");
  let isChanged = false;
  let isSaving = false;
  let sent = null;
  let caretIn = "";

  const editor = () => document.getElementById("template-editor");
  const inputs = () => [...editor().querySelectorAll("input:not([type=checkbox]), textarea")].filter((input) => input.name && input.type !== "hidden");
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

  // What was typed while an answer was on its way isn't overwritten by it.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (!editor().contains(event.target)) return;
    isChanged = true;
    sent = event.target.matches("button") ? null : new Map(inputs().map((input) => [input.name, input.value]));
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id !== "template-editor" || !sent) return;
    const typed = inputs().filter((input) => sent.has(input.name) && sent.get(input.name) !== input.value);
    sent = new Map(typed.map((input) => [input.name, input.value]));
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    showConditions();
    if (event.detail.target.id !== "template-editor") return;
    if (sent) for (const input of inputs()) if (sent.has(input.name)) input.value = sent.get(input.name);
    sent = null;
    const focus = editor().dataset.focus;
    const wanted = focus && caretIn ? focus.replace(/-(up|down)$/, `-${caretIn}`) : focus;
    caretIn = "";
    const element = (wanted && document.getElementById(wanted)) || (focus && document.getElementById(focus));
    element?.focus({ preventScroll: true });
    element?.scrollIntoView({ block: "nearest" });
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
