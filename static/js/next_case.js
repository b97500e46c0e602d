// «Next case» goes on in the list that the case was opened from, also from a page that doesn't know it.
(() => {
  const KEY = "atrium.list";
  const remember = () => {
    const known = document.querySelector("#next-case input[name=query]");
    if (known) localStorage.setItem(KEY, known.value);
  };
  remember();
  document.addEventListener("atrium:case", remember);
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-next-after]");
    if (form) form.elements.query.value = localStorage.getItem(KEY) || "";
  });
})();
