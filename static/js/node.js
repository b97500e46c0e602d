// Shows of the node's form what concerns the chosen kind of node.
(() => {
  const form = document.querySelector('[data-node-form]');
  const kind = form?.querySelector('[name=kind]');
  if (!kind) return;
  const show = () => {
    for (const section of form.querySelectorAll('[data-kind]')) section.hidden = section.dataset.kind !== kind.value;
  };
  kind.addEventListener('change', show);
  show();
})();
