// Adds rows to a rule's conditions and coercions.
(() => {
  for (const rows of document.querySelectorAll('[data-rows-of]')) {
    const button = rows.querySelector('[data-add-row]');
    const total = rows.querySelector('[name$="-TOTAL_FORMS"]');
    const most = Number(rows.querySelector('[name$="-MAX_NUM_FORMS"]').value);
    button.hidden = false;
    button.addEventListener('click', () => {
      const number = Number(total.value);
      if (number >= most) return;
      const last = [...rows.querySelectorAll('[data-row]')].pop();
      const row = last.cloneNode(true);
      for (const error of row.querySelectorAll('.form-error')) error.remove();
      const renumber = (text) => text.replace(/-\d+-/, `-${number}-`);
      for (const label of row.querySelectorAll('label')) label.htmlFor = renumber(label.htmlFor);
      for (const field of row.querySelectorAll('input, select')) {
        field.name = renumber(field.name);
        field.id = renumber(field.id);
        if (field.tagName === 'SELECT') field.selectedIndex = 0;
        else field.value = '';
      }
      last.after(row);
      total.value = number + 1;
      row.querySelector('input, select').focus();
    });
  }
})();
