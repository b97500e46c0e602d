// The report desk: nothing typed is lost. What changes is locked away on this machine at once, saved soon after typing
// stops, when the page is left, and again after failures. Only changed fields are sent, so that windows don't collide.
(() => {
  const PAUSE = 800;
  const LOCK_PAUSE = 150;
  const LONGEST_WAIT = 30000;
  // What a browser still sends when its page is closed is limited to 64 KiB.
  const KEEPALIVE_LIMIT = 60000;
  let timer = 0;
  let lockTimer = 0;
  let wait = 1000;
  let saving = null;
  let newer = null;
  let isGone = false;
  const dirty = new Set();

  const form = () => document.getElementById("draft");
  const entries = (name) => [...form().querySelectorAll(".entry")].filter((entry) => !name || entry.name === name);
  const names = () => [...new Set(entries().map((entry) => entry.name))];
  const isBox = (entry) => entry.type === "checkbox";
  const texts = (name) => {
    const all = entries(name);
    return all.length && isBox(all[0]) ? all.filter((box) => box.checked).map((box) => box.value) : all.map((entry) => entry.value);
  };
  const put = (name, value) => {
    const wanted = Array.isArray(value) ? value : value === true ? ["1"] : value === false ? [] : [String(value ?? "")];
    for (const entry of entries(name)) {
      if (isBox(entry)) entry.checked = wanted.includes(entry.value);
      else entry.value = wanted[0] ?? "";
      if (entry.matches("textarea")) grow(entry);
    }
    showConditions();
  };
  // As the clock beside the desk shows it, whichever side tells of it.
  const savedAt = (moment) => `${form().dataset.saved} ${new Date(moment).toLocaleTimeString([], { hourCycle: "h23" })}`;
  const state = (name, text) => {
    const element = document.getElementById("save-state");
    if (!element) return;
    element.dataset.state = name;
    element.textContent = text;
  };
  const grow = (field) => {
    const least = Number(field.dataset.rows) || 2;
    field.rows = Math.max(least, Math.min(30, field.value.split("\n").length + Math.floor(field.value.length / 90) + (least > 1 ? 1 : 0)));
  };
  const revision = (number) => {
    form().dataset.revision = number;
    form().querySelector("[name=revision]").value = number;
  };
  const token = () => form().querySelector("[name=csrfmiddlewaretoken]").value;

  const showConditions = () => atriumConditions(form());

  // Words that couldn't be sent yet lie encrypted in this browser; only this person's session is given the key.
  const cryptoKey = (text = form().dataset.offlineKey) => crypto.subtle.importKey("raw", Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), "AES-GCM", false, ["encrypt", "decrypt"]);
  const base64 = (bytes) => btoa(String.fromCharCode(...bytes));
  const lockAway = async () => {
    clearTimeout(lockTimer);
    const draft = form();
    if (!draft || !draft.dataset.offlineKey || !globalThis.crypto?.subtle) return;
    const name = draft.dataset.offlineName;
    if (!dirty.size) { localStorage.removeItem(name); return; }
    const words = new TextEncoder().encode(JSON.stringify({ revision: draft.dataset.revision, values: Object.fromEntries([...dirty].map((field) => [field, texts(field)])) }));
    const nonce = crypto.getRandomValues(new Uint8Array(12));
    const locked = new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv: nonce }, await cryptoKey(), words));
    let text = "";
    for (let at = 0; at < locked.length; at += 8192) text += String.fromCharCode(...locked.subarray(at, at + 8192));
    try {
      localStorage.setItem(name, `${base64(nonce)}.${btoa(text)}`);
    } catch {
      // The browser's store is full: what's typed stays in the window and is sent as before.
    }
    if (!dirty.size) localStorage.removeItem(name);
  };
  const unlock = async () => {
    const { offlineName, offlineKey, beforeName, beforeKey } = form()?.dataset || {};
    if (beforeName) await unlockOne(beforeName, beforeKey);
    if (offlineName && form()?.dataset.offlineName === offlineName) await unlockOne(offlineName, offlineKey);
  };
  const unlockOne = async (keptName, key) => {
    const draft = form();
    const kept = draft && globalThis.crypto?.subtle ? localStorage.getItem(keptName) : null;
    if (!kept) return;
    try {
      const [nonce, locked] = kept.split(".").map((part) => Uint8Array.from(atob(part), (c) => c.charCodeAt(0)));
      const words = JSON.parse(new TextDecoder().decode(await crypto.subtle.decrypt({ name: "AES-GCM", iv: nonce }, await cryptoKey(key), locked)));
      if (form() !== draft) return;
      let isNew = false;
      for (const [name, values] of Object.entries(words.values)) {
        if (!entries(name).length || JSON.stringify(texts(name)) === JSON.stringify(values)) continue;
        put(name, isBox(entries(name)[0]) ? values : values[0]);
        dirty.add(name);
        isNew = true;
      }
      if (!isNew) { localStorage.removeItem(keptName); return; }
      // Against the revision that they were typed on, so that what others wrote since is noticed.
      revision(words.revision);
      state("saving", draft.dataset.recovered);
      if (keptName !== draft.dataset.offlineName) {
        await lockAway();
        localStorage.removeItem(keptName);
      }
      save();
    } catch {
      if (form() === draft) localStorage.removeItem(keptName);
    }
  };

  const showChecks = (html) => {
    const place = document.getElementById("checks");
    if (!place) return;
    atriumKeepingFocus(place, () => { place.innerHTML = html; });
    document.dispatchEvent(new CustomEvent("atrium:checked"));
  };

  const conflict = (answer) => {
    newer = answer;
    document.getElementById("conflict").hidden = false;
    // A colleague's report is taken from them knowingly, or left to them; one's words stay on this machine.
    const isTheirs = answer.is_held_by_other;
    document.getElementById("conflict-text").hidden = isTheirs;
    document.getElementById("conflict-taken").hidden = !isTheirs;
    document.querySelector("#conflict-taken strong").textContent = answer.author;
    document.getElementById("see-theirs").hidden = !isTheirs;
    document.getElementById("take-theirs").hidden = isTheirs;
    const keep = document.getElementById("keep-mine");
    keep.textContent = isTheirs ? keep.dataset.takeOver : keep.dataset.keep;
    for (const name of names()) {
      const other = entries(name)[0].closest(".desk-field").querySelector(".other-version");
      const value = answer.values[name] ?? "";
      const text = Array.isArray(value) ? value.join(", ") : value === true ? "✓" : String(value || "");
      other.hidden = answer.is_held_by_other ? text === texts(name).join(", ") : !answer.fields.includes(name);
      other.textContent = text || "—";
    }
    state("failed", answer.error);
    // What was put above and below it may have pushed the field that one writes in out of sight.
    if (form().contains(document.activeElement)) document.activeElement.scrollIntoView({ block: "nearest" });
  };

  // Signed or discarded elsewhere; or, with a reason, another was first: then one's words wait until one takes it over.
  const gone = (why = "") => {
    isGone = true;
    document.getElementById("conflict").hidden = false;
    document.getElementById("conflict-text").hidden = true;
    document.getElementById("conflict-gone").hidden = Boolean(why);
    for (const id of ["conflict-held", "see-theirs"]) document.getElementById(id).hidden = !why;
    for (const id of ["begin-report", "keep-mine", "take-theirs", "begin-signing", "signing"]) document.getElementById(id)?.setAttribute("hidden", "");
    state("failed", why || form().dataset.gone);
  };

  // After a new sign-in in another window the old form token is refused.
  const renewToken = async () => {
    const page = await (await fetch(form().dataset.panelUrl)).text();
    const fresh = new DOMParser().parseFromString(page, "text/html").querySelector("#report-desk [name=csrfmiddlewaretoken]");
    if (!fresh) return;
    for (const field of document.querySelectorAll("#report-panel [name=csrfmiddlewaretoken]")) field.value = fresh.value;
    document.body.setAttribute("hx-headers", JSON.stringify({ "X-CSRFToken": fresh.value }));
  };

  // The desk is open before its draft is: the first word begins it, and claims the case.
  let beginning = null;
  const begin = () => {
    const draft = form();
    if (!draft?.dataset.beginUrl) return Promise.resolve(!isGone);
    beginning ||= fetch(draft.dataset.beginUrl, { method: "POST", keepalive: true, body: new URLSearchParams({ csrfmiddlewaretoken: token() }), headers: { Accept: "application/json" } })
      .then(async (response) => {
        const answer = await response.json().catch(() => ({}));
        if (response.status === 403) await renewToken();
        if (response.status === 409) { gone(answer.error); return false; }
        if (response.status === 401) signedOut();
        if (!response.ok || !answer.part) throw new Error(response.status);
        const before = draft.dataset.offlineName;
        delete draft.dataset.beginUrl;
        draft.dataset.offlineKey = answer.offline_key;
        draft.dataset.offlineName = answer.offline_name;
        draft.querySelector("[name=part]").value = answer.part;
        document.getElementById("begin-report")?.remove();
        document.getElementById("discard").hidden = false;
        const status = document.getElementById("study-status");
        if (status) status.innerHTML = answer.status;
        await lockAway();
        localStorage.removeItem(before);
        return true;
      })
      .finally(() => { beginning = null; });
    return beginning;
  };
  let isSignedOut = false;
  const signedOut = () => {
    isSignedOut = true;
    document.dispatchEvent(new CustomEvent("atrium:signed-out"));
  };
  const tryAgain = () => {
    if (!form()) return;
    state("failed", isSignedOut ? form().dataset.signedOut : form().dataset.failed);
    timer = setTimeout(save, wait);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  };

  const save = async () => {
    clearTimeout(timer);
    if (!form() || !dirty.size || newer || isGone) return;
    if (saving) await saving;
    if (!form() || !dirty.size || newer || isGone) return;
    if (form().dataset.beginUrl) {
      try {
        if (!(await begin())) return;
      } catch {
        tryAgain();
        return;
      }
      if (saving) await saving;
      if (!dirty.size) return;
    }
    const draft = form();
    const data = new URLSearchParams({ revision: draft.dataset.revision, part: draft.querySelector("[name=part]").value, csrfmiddlewaretoken: token() });
    const sent = new Map([...dirty].map((name) => [name, texts(name)]));
    for (const [name, values] of sent) for (const value of values.length ? values : [""]) data.append(name, value);
    const length = data.toString().length;
    state("saving", draft.dataset.saving);
    // Kept alive, so that a page closed while it saves has saved.
    saving = fetch(draft.dataset.saveUrl, { method: "POST", body: data, keepalive: length < KEEPALIVE_LIMIT, headers: { Accept: "application/json" } })
      .then(async (response) => {
        const answer = await response.json().catch(() => ({}));
        if (response.status === 403) await renewToken();
        if (response.ok && answer.revision !== undefined) {
          for (const [name, values] of sent) if (JSON.stringify(texts(name)) === JSON.stringify(values)) dirty.delete(name);
          for (const [name, value] of Object.entries(answer.merged)) if (!dirty.has(name)) put(name, value);
          revision(answer.revision);
          wait = 1000;
          isSignedOut = false;
          document.getElementById("signed-out")?.remove();
          showChecks(answer.checks);
          if (dirty.size) timer = setTimeout(save, PAUSE);
          else state("saved", savedAt(answer.saved_at));
          lockAway();
        } else if (response.status === 409) {
          conflict(answer);
        } else if (response.status === 410 || response.status === 404) {
          gone();
        } else {
          if (response.status === 401) signedOut();
          throw new Error(answer.error || response.status);
        }
      })
      .catch(tryAgain)
      .finally(() => { saving = null; });
    await saving;
  };

  const changed = (entry) => {
    if (entry.matches("textarea")) grow(entry);
    if (entry.dataset.minimum || entry.dataset.maximum) {
      const number = Number(entry.value.replace(",", "."));
      entry.classList.toggle("is-out", Boolean(entry.value) && (Number.isNaN(number) || number < Number(entry.dataset.minimum || -Infinity) || number > Number(entry.dataset.maximum || Infinity)));
    }
    dirty.add(entry.name);
    if (!newer && !isGone && document.getElementById("save-state")?.dataset.state === "saved") state("saving", form().dataset.saving);
    showConditions();
    clearTimeout(timer);
    clearTimeout(lockTimer);
    timer = setTimeout(save, PAUSE);
    lockTimer = setTimeout(lockAway, LOCK_PAUSE);
  };

  document.addEventListener("input", (event) => { if (event.target.matches?.("#draft .entry")) changed(event.target); });
  document.addEventListener("focusout", (event) => { if (event.target.matches?.("#draft .entry")) save(); });
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden" && dirty.size) { lockAway(); save(); } });
  window.addEventListener("pagehide", () => { if (dirty.size) save(); });
  window.addEventListener("online", () => save());
  // Back from the window in which one signed in again.
  window.addEventListener("focus", () => { if (isSignedOut) { wait = 1000; save(); } });
  window.addEventListener("beforeunload", (event) => { if (form() && (dirty.size || saving)) { lockAway(); save(); event.preventDefault(); } });

  // What changes the draft waits until what's typed is saved.
  document.addEventListener("htmx:confirm", (event) => {
    const element = event.target;
    if (!form() || !(dirty.size || saving || form().dataset.beginUrl) || !element.closest?.("#draft") || element.id === "discard" || element.id === "see-theirs") return;
    if (element.id === "show-history" && form().dataset.beginUrl && !dirty.size) return;
    event.preventDefault();
    begin().then((isBegun) => (isBegun ? save() : null)).then(() => { if (!dirty.size && !isGone) event.detail.issueRequest(true); }).catch(tryAgain);
  });
  // The revision of the last save goes with every request, also one that waited for it.
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.parameters?.revision !== undefined && form()) event.detail.parameters.revision = form().dataset.revision;
  });

  // While it's being signed nothing can be typed that the signature wouldn't cover.
  const freeze = (isFrozen) => (event) => {
    if ((event.target.id === "draft" || event.target.id === "sign-preliminary") && form()) for (const entry of entries()) { entry.readOnly = isFrozen; if (isBox(entry) || entry.matches("select")) entry.style.pointerEvents = isFrozen ? "none" : ""; }
  };
  document.addEventListener("htmx:beforeRequest", freeze(true));
  document.addEventListener("htmx:afterRequest", freeze(false));

  const beginSigning = async () => {
    const signing = document.getElementById("signing");
    if (!signing || isGone || newer) return;
    signing.hidden = false;
    document.getElementById("begin-signing").setAttribute("aria-expanded", "true");
    signing.querySelector("input:not([type=hidden])")?.focus();
    await save();
    htmx.trigger("#signing-checks", "atrium:check");
  };

  // A passkey answers a challenge of this session; what it answers goes with the form, by the button that was pressed.
  const proveByPasskey = async (button, submitter = null) => {
    const owner = button.closest("form");
    const note = owner.querySelector(".form-error[role=alert]");
    note.hidden = true;
    if (!owner.reportValidity()) return;
    try {
      const options = await (await fetch(button.dataset.passkey)).json();
      const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options.publicKey);
      const answer = await navigator.credentials.get({ publicKey });
      owner.querySelector("[name=passkey]").value = JSON.stringify(answer.toJSON());
    } catch {
      note.textContent = button.dataset.failed;
      note.hidden = false;
      return;
    }
    if (submitter) submitter.click();
    else owner.requestSubmit();
  };
  // Who signs without a password or a code is asked for the passkey, whichever way of signing it is.
  document.addEventListener("click", (event) => {
    const submitter = event.target.closest?.("button.proves");
    const passkey = submitter?.form?.querySelector("button[data-passkey]");
    if (!passkey || ["password", "code", "passkey"].some((name) => submitter.form.elements[name]?.value)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    proveByPasskey(passkey, submitter);
  }, true);
  // An answer counts once; that the checks are asked for meanwhile doesn't use it up.
  document.addEventListener("htmx:afterRequest", (event) => {
    const passkey = event.detail.requestConfig.verb !== "get" && event.target.closest?.("form")?.elements.passkey;
    if (passkey) passkey.value = "";
  });

  // Another person's draft becomes one's own before one's words go on.
  const takeOver = async () => {
    const response = await fetch(form().dataset.takeOverUrl, { method: "POST", body: new URLSearchParams({ csrfmiddlewaretoken: token() }), headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(response.status);
    return (await response.json()).revision;
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button");
    if (button?.dataset.passkey) proveByPasskey(button);
    if (!button || !form()) return;
    if (button.id === "begin-signing") beginSigning();
    if (button.id === "begin-report") {
      (entries().find((entry) => entry.matches("textarea") && !entry.value) || entries()[0])?.focus();
      begin().catch(() => state("failed", form().dataset.failed));
    }
    if ("go" in button.dataset) entries(button.dataset.go)[0]?.focus();
    if (newer && (button.id === "keep-mine" || button.id === "take-theirs")) {
      if (newer.is_held_by_other) {
        try {
          newer.revision = await takeOver();
        } catch {
          state("failed", newer.error);
          return;
        }
      }
      for (const name of names()) {
        const isTheirs = button.id === "take-theirs" || !dirty.has(name);
        if (isTheirs) { put(name, newer.values[name] ?? ""); dirty.delete(name); }
      }
      revision(newer.revision);
      newer = null;
      for (const other of form().querySelectorAll(".other-version")) other.hidden = true;
      document.getElementById("conflict").hidden = true;
      if (dirty.size) await save();
      else state("saved", form().dataset.saved);
      lockAway();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (!form()) return;
    if (event.ctrlKey && event.key === "Enter") { event.preventDefault(); beginSigning(); }
    if (event.altKey && /^[1-9]$/.test(event.key)) {
      const field = form().querySelector(`[data-shortcut="${event.key}"]`);
      if (field) { event.preventDefault(); field.focus(); }
    }
  });

  const arrive = () => {
    dirty.clear();
    newer = null;
    isGone = false;
    const kept = document.getElementById("kept-words");
    if (kept) kept.hidden = !localStorage.getItem(kept.dataset.offlineName);
    if (!form()) return;
    if (form().dataset.savedAt) state("saved", savedAt(form().dataset.savedAt));
    for (const area of form().querySelectorAll("textarea")) grow(area);
    showConditions();
    unlock();
  };
  document.addEventListener("htmx:afterSwap", (event) => {
    // History and preview open below the fields, where they're asked for from above.
    if (["preview", "signed-history"].includes(event.detail.target.id)) event.detail.target.scrollIntoView({ block: "start" });
    if (event.detail.target.id !== "report-panel") return;
    arrive();
    document.querySelector("#desk-error, #retract-error")?.scrollIntoView({ block: "center" });
    // One who only looks keeps the keys of the page.
    if (!form() || form().dataset.beginUrl) return;
    const signed = document.getElementById("preliminary-note");
    if (signed && event.detail.requestConfig?.path.endsWith("/preliminary/") && document.getElementById("signing").hidden) {
      signed.scrollIntoView({ block: "center" });
      return;
    }
    const first = entries().find((entry) => entry.matches("textarea") && !entry.value) || entries()[0];
    const proof = () => (event.detail.requestConfig?.parameters?.code && document.getElementById("sign-code")) || document.querySelector("#signing input:not([type=hidden])");
    (document.getElementById("signing")?.hidden === false ? proof() : first)?.focus({ preventScroll: true });
  });
  document.addEventListener("DOMContentLoaded", arrive);

  // Another case in the same page: what's typed is saved before, or it isn't left.
  const finish = async () => {
    await lockAway();
    await beginning?.catch(() => {});
    await save();
    await saving;
    // What was heard while the rest was being saved.
    if (dirty.size) await save();
    await saving;
    return !dirty.size;
  };
  document.addEventListener("atrium:leave", ({ detail }) => { if (dirty.size || saving || beginning) detail.waits.push(finish()); });
  document.addEventListener("atrium:case", () => {
    clearTimeout(timer);
    clearTimeout(lockTimer);
    wait = 1000;
    arrive();
  });

  // An earlier study opened beside this one is offered as the comparison, also one opened before the draft was begun.
  document.addEventListener("atrium:prior-opened", async (event) => {
    const desk = document.getElementById("report-desk");
    const address = desk?.dataset.priorsUrl;
    if (!address) return;
    const data = new URLSearchParams({ csrfmiddlewaretoken: JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"] });
    for (const uid of event.detail.studies) data.append("prior", uid);
    const response = await fetch(address, { method: "POST", body: data, keepalive: true });
    const offer = desk.querySelector("#comparison-offer");
    if (!response.ok || !offer) return;
    const text = (await response.json()).comparison;
    const field = offer.closest(".desk-section").querySelector("textarea");
    offer.hidden = !text || field?.value.includes(text);
    offer.querySelector("button").dataset.text = text;
    offer.querySelector("span").textContent = text;
  });
})();
