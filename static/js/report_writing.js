// Writing at the desk: macros by trigger and Tab, places in brackets, one key from field to field, one's own spellings,
// and the comparison on offer.
(() => {
  const form = () => document.getElementById("draft");
  const data = (id) => JSON.parse(document.getElementById(id)?.textContent || "{}");
  const PLACE = /\[[^[\]\n]{1,80}\]/g;
  const TRIGGER = /(^|\s)\.([\p{L}\p{N}_-]{1,40})$/u;

  const replace = (field, start, end, text) => {
    field.setRangeText(text, start, end, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const selectPlace = (field, from) => {
    PLACE.lastIndex = from;
    const found = PLACE.exec(field.value);
    if (!found) return false;
    field.focus();
    field.setSelectionRange(found.index, found.index + found[0].length);
    return true;
  };
  const expand = (field) => {
    const before = field.value.slice(0, field.selectionStart);
    const found = TRIGGER.exec(before);
    const text = found && data("macros")[found[2].toLowerCase()];
    if (!text || field.selectionStart !== field.selectionEnd) return false;
    const start = before.length - found[2].length - 1;
    replace(field, start, before.length, text);
    if (!selectPlace(field, start)) field.setSelectionRange(start + text.length, start + text.length);
    return true;
  };

  const shown = () => [...form().querySelectorAll(".entry")].filter((entry) => entry.checkVisibility());
  const walk = (step) => {
    const all = shown();
    const here = document.activeElement;
    if (step > 0 && here.matches?.("textarea") && form().contains(here) && selectPlace(here, here.selectionEnd)) return;
    // Boxes of one list are one stop.
    const stops = all.filter((entry, index) => index === 0 || entry.name !== all[index - 1].name);
    const at = stops.findIndex((entry) => entry.name === here.name);
    const next = stops[(at + step + stops.length) % stops.length];
    next?.focus();
    if (next?.matches("textarea") && step > 0) selectPlace(next, 0);
    next?.scrollIntoView({ block: "nearest" });
  };

  const correct = (field) => {
    if (field.selectionStart !== field.selectionEnd) return;
    const before = field.value.slice(0, field.selectionStart);
    const found = /([\p{L}\p{N}'’-]{1,60})([\s.,;:!?)])$/u.exec(before);
    const written = found && data("spellings")[found[1].toLowerCase()];
    if (!written || written === found[1]) return;
    const start = before.length - found[0].length;
    field.setRangeText(written, start, start + found[1].length, "preserve");
    const at = start + written.length + 1;
    field.setSelectionRange(at, at);
  };

  document.addEventListener("keydown", (event) => {
    const field = event.target;
    if (!form() || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (event.key === "F2") { event.preventDefault(); walk(event.shiftKey ? -1 : 1); return; }
    if (event.key !== "Tab" || event.shiftKey || !field.matches?.("#draft textarea")) return;
    if (expand(field) || selectPlace(field, field.selectionEnd)) event.preventDefault();
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("#draft textarea") && event.inputType === "insertText") correct(event.target);
  }, true);

  document.addEventListener("click", (event) => {
    const offer = event.target.closest?.("#take-comparison");
    const field = offer?.closest(".desk-section").querySelector("textarea");
    if (field) {
      const gap = field.value && !/\s$/.test(field.value) ? "\n" : "";
      replace(field, field.value.length, field.value.length, gap + offer.dataset.text);
      field.focus();
      offer.closest(".comparison-offer").hidden = true;
    }
    const prior = event.target.closest?.(".prior-list a, [data-prior]");
    const uid = prior?.dataset.prior || prior?.getAttribute("href")?.match(/studies\/([\d.]+)\//)?.[1];
    if (uid) document.dispatchEvent(new CustomEvent("atrium:prior-opened", { detail: { studies: [uid] } }));
  });

  document.addEventListener("toggle", (event) => { if (event.target.matches?.(".critical-form[open]")) event.target.querySelector("input[name=finding]").focus(); }, true);
})();
