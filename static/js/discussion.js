// A colleague's button puts their name into the words.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-mention]");
  if (!button) return;
  const field = button.closest("form").querySelector("textarea");
  const space = field.value && !/\s$/.test(field.value) ? " " : "";
  field.setRangeText(`${space}@${button.dataset.mention} `, field.value.length, field.value.length, "end");
  field.focus();
});
// A notice leads to the words: they're opened, once htmx waits for it, and kept in sight while the page grows above
// them, until the person moves.
(() => {
  const isAsked = () => window.location.hash === "#discussion";
  let hasMoved = false;
  for (const begun of ["DOMContentLoaded", "atrium:case"]) document.addEventListener(begun, () => { if (isAsked()) document.getElementById("discussion-box").open = true; });
  for (const moved of ["pointerdown", "keydown", "wheel", "touchmove", "atrium:case"]) document.addEventListener(moved, () => { hasMoved = true; }, { passive: true });
  document.addEventListener("htmx:afterSettle", () => { if (isAsked() && !hasMoved) document.getElementById("discussion-box").scrollIntoView(); });
})();
