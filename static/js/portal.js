// Small behaviours that every page shares, each tied to a data attribute.
(() => {
  const DISMISS_AFTER = 6000;
  const region = () => document.getElementById("messages");

  // Messages: quiet ones leave by themselves, errors and warnings stay until closed.
  const arm = (message) => {
    if (message.matches(".message-success, .message-info, .message-debug")) {
      let timer = setTimeout(() => message.remove(), DISMISS_AFTER);
      message.addEventListener("pointerenter", () => clearTimeout(timer));
      message.addEventListener("pointerleave", () => { timer = setTimeout(() => message.remove(), DISMISS_AFTER); });
    }
  };

  const show = (level, text) => {
    const template = document.getElementById("message-template");
    if (!template || !region()) return;
    const message = template.content.firstElementChild.cloneNode(true);
    message.classList.add(`message-${level}`);
    message.querySelector("span").textContent = text;
    region().append(message);
    arm(message);
  };

  // From a response: HX-Trigger: {"atrium:message": {"level": "success", "text": "..."}}
  document.addEventListener("atrium:message", (event) => show(event.detail.level || "info", event.detail.text));
  document.addEventListener("htmx:sendError", () => show("error", region()?.dataset.offline || ""));
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    show("error", status === 403 || status === 404 ? region()?.dataset.refused || "" : region()?.dataset.failed || "");
  });
  for (const begun of ["DOMContentLoaded", "atrium:case"]) document.addEventListener(begun, () => region()?.querySelectorAll(".message").forEach(arm));
  document.addEventListener("htmx:oobAfterSwap", () => region()?.querySelectorAll(".message").forEach(arm));

  // What renews itself takes neither the focus nor a selection away.
  const renews = (place) => place.matches?.("[hx-trigger^=every]");
  const addressOf = (element) => (element.form ?? element).getAttribute(element.form ? "action" : "href");
  let held = "";
  document.addEventListener("htmx:beforeRequest", (event) => {
    const chosen = window.getSelection();
    if (renews(event.target) && !chosen.isCollapsed && event.target.contains(chosen.anchorNode)) event.preventDefault();
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const place = event.detail.target;
    held = renews(place) && place.contains(document.activeElement) ? addressOf(document.activeElement) : "";
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (held) [...event.detail.target.querySelectorAll("a, button")].find((one) => addressOf(one) === held)?.focus({ preventScroll: true });
    held = "";
  });

  // data-confirm on a form: asks in a dialog before it is sent.
  let confirmed = null;
  const ask = (form, submitter) => {
    const dialog = document.getElementById("confirm");
    dialog.querySelector("[data-confirm-text]").textContent = form.dataset.confirm;
    const yes = dialog.querySelector("[value=yes]");
    yes.textContent = form.dataset.confirmLabel || submitter?.textContent.trim() || yes.dataset.label;
    yes.className = form.dataset.confirmDanger === undefined ? "btn btn-primary" : "btn btn-danger";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      if (dialog.returnValue !== "yes") return;
      confirmed = form;
      form.requestSubmit(submitter);
    }, { once: true });
    dialog.showModal();
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.confirm && confirmed !== form) {
      event.preventDefault();
      event.stopImmediatePropagation();
      ask(form, event.submitter);
      return;
    }
    confirmed = null;
  }, true);

  document.addEventListener("click", async (event) => {
    const target = event.target.closest("[data-dismiss], [data-open], [data-close], [data-toggle-class], [data-copy], [data-reveal], [data-fill], [data-print]");
    if (!target) return;
    const data = target.dataset;
    if ("dismiss" in data) target.closest(".message, .alert")?.remove();
    if ("open" in data) document.getElementById(data.open)?.showModal();
    if ("close" in data) target.closest("dialog")?.close();
    if ("print" in data) window.print();
    if ("toggleClass" in data) {
      const open = document.getElementById(target.getAttribute("aria-controls")).classList.toggle(data.toggleClass);
      target.setAttribute("aria-expanded", String(open));
    }
    if ("copy" in data) {
      await navigator.clipboard.writeText(data.copy);
      show("success", region()?.dataset.copied || "");
    }
    if ("reveal" in data) {
      const field = document.getElementById(data.reveal);
      const hidden = field.type === "password";
      field.type = hidden ? "text" : "password";
      target.setAttribute("aria-pressed", String(hidden));
    }
    if ("fill" in data) {
      const field = document.getElementById(data.fill);
      field.value = data.fillValue;
      document.getElementById(data.fillNext)?.focus();
    }
  });

  // What is clipped is told whole by the pointer.
  document.addEventListener("pointerover", (event) => {
    const clip = event.target.closest?.(".clip:not([title])");
    if (clip) clip.title = clip.textContent.trim();
  });

  // A click beside an open dialog closes it, unless it holds something typed.
  document.addEventListener("click", (event) => {
    if (event.target.matches("dialog[open]") && !event.target.querySelector("textarea, input:not([type=hidden])")) event.target.close();
  });

  // data-autosubmit on a form: choices are sent at once.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-autosubmit]");
    if (form && event.target.matches("select, [type=checkbox], [type=radio], [type=date]")) form.requestSubmit();
  });

  // Times are printed in UTC; the title says them in the zone of the person.
  const tellTimes = () => {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (!time.title && !Number.isNaN(moment.valueOf()) && time.dateTime.includes("T")) time.title = moment.toLocaleString();
    }
  };
  for (const begun of ["DOMContentLoaded", "atrium:case"]) document.addEventListener(begun, tellTimes);
})();
