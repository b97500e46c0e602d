// Fields that are shown only while another one has one of some values: at the desk, and in a template's preview.
const atriumConditions = (root) => {
  const entries = [...root.querySelectorAll(".entry")];
  // In the page's order: what depends on a hidden field is hidden, too.
  for (const box of root.querySelectorAll("[data-condition-field]")) {
    const wanted = box.dataset.conditionValues.split("\n");
    const asked = entries.filter((entry) => entry.name === box.dataset.conditionField && !entry.closest("[data-condition-field]")?.hidden && (entry.type !== "checkbox" || entry.checked));
    box.hidden = !asked.some((entry) => wanted.includes(entry.value));
  }
};
