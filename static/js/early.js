// A form that htmx sends would, before htmx is there, be sent by the browser: to another place, or into the address.
// It's held, and sent when htmx is.
(() => {
  const early = new Map();
  const hold = (event) => {
    if (!event.target.matches("[hx-post], [hx-get], [hx-delete]")) return;
    event.preventDefault();
    early.set(event.target, event.submitter);
  };
  document.addEventListener("submit", hold, true);
  document.addEventListener("DOMContentLoaded", () => setTimeout(() => {
    document.removeEventListener("submit", hold, true);
    for (const [form, button] of early) if (form.isConnected) form.requestSubmit(button);
  }));
})();
