// The order's form: patients are suggested while one types, a known procedure brings its modality, Ctrl+Enter places.
(() => {
  const form = document.querySelector(".order-form");
  if (!form) return;
  const place = document.getElementById("patient-suggestions");
  const field = (name) => form.querySelector(`[name="${name}"]`);
  let timer = 0;
  let asked = 0;

  const suggest = async (text) => {
    const number = ++asked;
    if (text.trim().length < 2) {
      place.replaceChildren();
      return;
    }
    const answer = await fetch(`${form.dataset.patients}?q=${encodeURIComponent(text)}`, { headers: { "HX-Request": "true" } });
    if (answer.ok && number === asked) place.innerHTML = await answer.text();
  };

  const choose = (button) => {
    const data = button.dataset;
    field("patient_id").value = data.patientId;
    const [family, given = "", middle = ""] = data.patientName.split("=")[0].split("^");
    const forenames = [given, middle].filter(Boolean).join(" ");
    field("patient_name").value = [family, forenames].filter(Boolean).join(", ");
    field("patient_birth_date").value = data.patientBirthDate;
    field("patient_sex").value = data.patientSex;
    const site = field("site");
    if (site && site.value !== data.site) site.value = data.site;
    asked += 1;
    place.replaceChildren();
    field("description").focus();
  };

  form.addEventListener("input", (event) => {
    if (event.target.matches("[data-patient-search]")) {
      clearTimeout(timer);
      const text = event.target.value;
      timer = setTimeout(() => suggest(text), 150);
    }
    if (event.target.name === "description") {
      const known = [...document.querySelectorAll("#procedures option")].find((option) => option.value === event.target.value);
      if (known?.dataset.modality) field("modality").value = known.dataset.modality;
    }
  });

  // Who walks the suggestions walks those that are there, whatever is still on its way.
  place?.addEventListener("focusin", () => {
    clearTimeout(timer);
    asked += 1;
  });

  form.addEventListener("click", (event) => {
    const button = event.target.closest(".suggestion");
    if (button) choose(button);
  });

  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
      return;
    }
    const buttons = [...(place?.querySelectorAll(".suggestion") ?? [])];
    if (!buttons.length) return;
    const at = buttons.indexOf(document.activeElement);
    if (event.target.matches("[data-patient-search]") && event.key === "Enter") {
      event.preventDefault();
      choose(buttons[0]);
    } else if (event.key === "ArrowDown" && (at >= 0 || event.target.matches("[data-patient-search]"))) {
      event.preventDefault();
      buttons[Math.min(at + 1, buttons.length - 1)].focus();
    } else if (event.key === "ArrowUp" && at >= 0) {
      event.preventDefault();
      (at ? buttons[at - 1] : field("patient_id")).focus();
    }
  });
})();
