// Runs in the head, before anything is drawn, so that the right theme is there from the first frame.
(() => {
  const root = document.documentElement;
  const device = matchMedia("(prefers-color-scheme: dark)");

  const apply = () => {
    const choice = root.dataset.themeChoice || "auto";
    root.dataset.bsTheme = choice === "auto" ? (device.matches ? "dark" : "light") : choice;
    for (const button of document.querySelectorAll(".theme-choice")) {
      button.setAttribute("aria-pressed", String(button.value === choice));
    }
  };

  apply();
  device.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", apply);

  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-theme-form]");
    if (!form) return;
    event.preventDefault();
    const choice = event.submitter.value;
    root.dataset.themeChoice = choice;
    apply();
    document.dispatchEvent(new CustomEvent("atrium:theme", { detail: root.dataset.bsTheme }));
    const body = new FormData(form);
    body.set("theme", choice);
    try {
      await fetch(form.action, { method: "POST", body, redirect: "manual" });
    } catch {
      // Offline: the look has changed here, and the next choice is kept when the line is back.
    }
  });
})();
