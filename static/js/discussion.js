// A colleague's button puts their name into the words.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-mention]");
  if (!button) return;
  const field = button.closest("form").querySelector("textarea");
  const space = field.value && !/\s$/.test(field.value) ? " " : "";
  field.setRangeText(`${space}@${button.dataset.mention} `, field.value.length, field.value.length, "end");
  field.focus();
});
// Once htmx waits for it to open.
for (const begun of ["DOMContentLoaded", "atrium:case"]) document.addEventListener(begun, () => { if (window.location.hash === "#discussion") document.getElementById("discussion-box").open = true; });
