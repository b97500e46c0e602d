// The report desk: nothing typed is lost. Saves soon after typing stops, when the page is left, and again after failures.
(() => {
  const PAUSE = 800;
  const LONGEST_WAIT = 30000;
  let timer = 0;
  let wait = 1000;
  let saving = null;
  let isDirty = false;
  let newer = null;
  let isGone = false;
  // What a browser still sends when its page is closed is limited to 64 KiB.
  const KEEPALIVE_LIMIT = 60000;

  const form = () => document.getElementById("draft");
  const fields = () => [...form().querySelectorAll("textarea.section")];
  const state = (name, text) => {
    const element = document.getElementById("save-state");
    if (!element) return;
    element.dataset.state = name;
    element.textContent = text;
  };
  const body = () => {
    const data = new URLSearchParams();
    data.set("revision", form().dataset.revision);
    data.set("part", form().querySelector("[name=part]").value);
    data.set("csrfmiddlewaretoken", form().querySelector("[name=csrfmiddlewaretoken]").value);
    for (const field of fields()) data.set(field.name, field.value);
    return data;
  };
  const grow = (field) => {
    field.rows = Math.max(field.name === "findings" ? 6 : 2, Math.min(30, field.value.split("\n").length + Math.floor(field.value.length / 90) + 1));
  };
  const revision = (number) => {
    form().dataset.revision = number;
    form().querySelector("[name=revision]").value = number;
  };

  const conflict = (answer) => {
    newer = answer;
    document.getElementById("conflict").hidden = false;
    for (const field of fields()) {
      const other = field.parentElement.querySelector(".other-version");
      const text = answer.sections[field.name] || "";
      other.hidden = text === field.value;
      other.textContent = text;
    }
    state("failed", answer.error);
  };

  const gone = () => {
    isGone = true;
    isDirty = true;
    document.getElementById("conflict").hidden = false;
    document.getElementById("conflict-text").hidden = true;
    document.getElementById("conflict-gone").hidden = false;
    for (const id of ["keep-mine", "take-theirs", "begin-signing", "signing"]) document.getElementById(id)?.setAttribute("hidden", "");
    state("failed", form().dataset.gone);
  };

  // After a new sign-in in another window the old form token is refused.
  const renewToken = async () => {
    const page = await (await fetch(form().dataset.panelUrl)).text();
    const token = new DOMParser().parseFromString(page, "text/html").querySelector("#report-desk [name=csrfmiddlewaretoken]");
    if (!token) return;
    for (const field of form().querySelectorAll("[name=csrfmiddlewaretoken]")) field.value = token.value;
    document.body.setAttribute("hx-headers", JSON.stringify({ "X-CSRFToken": token.value }));
  };

  const save = async () => {
    clearTimeout(timer);
    if (!form() || !isDirty || newer || isGone) return;
    if (saving) await saving;
    if (!form() || !isDirty || newer || isGone) return;
    isDirty = false;
    const draft = form();
    const words = body().toString();
    state("saving", draft.dataset.saving);
    // Kept alive, so that a page closed while it saves has saved.
    saving = fetch(draft.dataset.saveUrl, { method: "POST", body: new URLSearchParams(words), keepalive: words.length < KEEPALIVE_LIMIT, headers: { Accept: "application/json" } })
      .then(async (response) => {
        const answer = await response.json().catch(() => ({}));
        if (response.status === 403) await renewToken();
        if (response.ok && answer.revision !== undefined) {
          revision(answer.revision);
          wait = 1000;
          state("saved", `${draft.dataset.saved} ${new Date(answer.saved_at).toLocaleTimeString()}`);
        } else if (response.status === 409) {
          isDirty = true;
          conflict(answer);
        } else if (response.status === 410 || response.status === 404) {
          gone();
        } else {
          throw new Error(answer.error || response.status);
        }
      })
      .catch(() => {
        isDirty = true;
        state("failed", draft.dataset.failed);
        timer = setTimeout(save, wait);
        wait = Math.min(wait * 2, LONGEST_WAIT);
      })
      .finally(() => { saving = null; });
    await saving;
  };

  const leave = () => { if (isDirty) save(); };

  document.addEventListener("input", (event) => {
    if (!event.target.matches?.("#draft textarea.section")) return;
    grow(event.target);
    isDirty = true;
    clearTimeout(timer);
    timer = setTimeout(save, PAUSE);
  });
  document.addEventListener("focusout", (event) => { if (event.target.matches?.("#draft textarea.section")) save(); });
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") leave(); });
  window.addEventListener("pagehide", leave);
  window.addEventListener("online", () => save());
  window.addEventListener("beforeunload", (event) => { if (isDirty || saving) { leave(); event.preventDefault(); } });

  // Preview and signing wait until the last words are kept.
  document.addEventListener("htmx:confirm", (event) => {
    if (!isDirty || !event.target.closest?.("#draft") || event.target.id === "discard") return;
    event.preventDefault();
    save().then(() => { if (!isDirty) event.detail.issueRequest(true); });
  });

  // While it's being signed nothing can be typed that the signature wouldn't cover.
  const freeze = (isFrozen) => (event) => {
    if (event.target.id === "draft" && form()) for (const field of fields()) field.readOnly = isFrozen;
  };
  document.addEventListener("htmx:beforeRequest", freeze(true));
  document.addEventListener("htmx:afterRequest", freeze(false));

  const beginSigning = () => {
    const signing = document.getElementById("signing");
    if (!signing || isGone || newer) return;
    signing.hidden = false;
    document.getElementById("begin-signing").setAttribute("aria-expanded", "true");
    save();
    document.getElementById("sign-password").focus();
  };

  // Another person's draft becomes one's own before one's words go on.
  const takeOver = async () => {
    const token = new URLSearchParams({ csrfmiddlewaretoken: form().querySelector("[name=csrfmiddlewaretoken]").value });
    const response = await fetch(form().dataset.takeOverUrl, { method: "POST", body: token, headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(response.status);
    return (await response.json()).revision;
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button");
    if (button?.id === "begin-signing") beginSigning();
    if (newer && (button?.id === "keep-mine" || button?.id === "take-theirs")) {
      if (newer.is_held_by_other) {
        try {
          newer.revision = await takeOver();
        } catch {
          state("failed", newer.error);
          return;
        }
      }
      if (button.id === "take-theirs") {
        for (const field of fields()) { field.value = newer.sections[field.name] || ""; grow(field); }
      }
      revision(newer.revision);
      newer = null;
      for (const other of form().querySelectorAll(".other-version")) other.hidden = true;
      document.getElementById("conflict").hidden = true;
      isDirty = true;
      save();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (!form()) return;
    if (event.ctrlKey && event.key === "Enter") { event.preventDefault(); beginSigning(); }
    if (event.altKey && /^[1-5]$/.test(event.key)) {
      const field = form().querySelector(`[data-shortcut="${event.key}"]`);
      if (field) { event.preventDefault(); field.focus(); }
    }
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id !== "report-panel") return;
    isDirty = false;
    newer = null;
    isGone = false;
    if (!form()) return;
    fields().forEach(grow);
    (document.getElementById("signing")?.hidden === false ? document.getElementById("sign-password") : fields().find((f) => !f.value) || fields()[0]).focus({ preventScroll: true });
  });
  document.addEventListener("DOMContentLoaded", () => { if (form()) fields().forEach(grow); });
})();
