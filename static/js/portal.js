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
  // Said once, however many parts of the page hear it; it stays until the person is signed in again.
  const signedOut = () => {
    if (!region() || document.getElementById("signed-out")) return;
    show("warning", region().dataset.signedOut);
    const message = region().lastElementChild;
    message.id = "signed-out";
    const link = Object.assign(document.createElement("a"), { href: region().dataset.signIn, target: "_blank", rel: "noopener", textContent: region().dataset.signInLabel });
    message.querySelector("span").append(" ", link);
  };
  document.addEventListener("atrium:signed-out", signedOut);
  document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) document.getElementById("signed-out")?.remove(); });
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status === 401) { signedOut(); return; }
    show("error", status === 403 || status === 404 ? region()?.dataset.refused || "" : region()?.dataset.failed || "");
  });
  for (const begun of ["DOMContentLoaded", "atrium:case"]) document.addEventListener(begun, () => region()?.querySelectorAll(".message").forEach(arm));
  document.addEventListener("htmx:oobAfterSwap", () => region()?.querySelectorAll(".message").forEach(arm));

  // What renews itself doesn't take a selection away.
  document.addEventListener("htmx:beforeRequest", (event) => {
    const chosen = window.getSelection();
    if (event.target.matches?.("[hx-trigger^=every]") && !chosen.isCollapsed && event.target.contains(chosen.anchorNode)) event.preventDefault();
  });

  // However late an answer comes, it takes nobody's place: what replaces the element that has the focus is given focus
  // and caret, and words that were typed since it was asked for.
  const isText = (one) => one.matches("textarea, input:not([type=checkbox], [type=radio], [type=hidden], [type=file])");
  const textsIn = (place) => [...place.querySelectorAll("textarea, input")].filter((one) => one.name && isText(one));
  const values = (place) => new Map(textsIn(place).map((one) => [one.name, one.value]));
  const meant = (one) => {
    const addresses = [one, one.form].flatMap((element) => ["href", "action", "hx-get", "hx-post"].map((name) => element?.getAttribute(name)));
    return [one.tagName, one.name, isText(one) || one.matches("select") ? "" : one.value ?? "", one.matches("button, summary") ? one.textContent.trim() : "", ...addresses].join("\n");
  };

  const hold = (place, before = new Map()) => {
    const here = document.activeElement;
    const typed = [...values(place)].filter(([name, value]) => before.has(name) && before.get(name) !== value);
    const has = here && here !== place && place.contains(here);
    return {
      place, id: place.id, typed: new Map(typed),
      focused: has ? { id: here.id, meant: meant(here), start: isText(here) ? here.selectionStart : null, end: isText(here) ? here.selectionEnd : null, top: here.scrollTop } : null,
    };
  };

  // The lists in which something is chosen that isn't told yet (below).
  const chosenIn = new Set();
  const chooseAgain = (list, now) => {
    chosenIn.delete(list);
    const [was, value] = [meant(list), list.value];
    const again = [...now.querySelectorAll("select")].find((one) => meant(one) === was && [...one.options].some((option) => option.value === value));
    if (!again) return;
    again.value = value;
    chosenIn.add(again);
  };

  const giveBack = ({ place, id, typed, focused }, swapped) => {
    const now = place.isConnected ? place : document.getElementById(id) || swapped;
    if (!now?.isConnected) return;
    for (const one of textsIn(now).filter((text) => typed.has(text.name))) {
      one.value = typed.get(one.name);
      // Once all who listen for the swap have heard of it.
      queueMicrotask(() => one.dispatchEvent(new Event("input", { bubbles: true })));
    }
    for (const list of [...chosenIn].filter((one) => !one.isConnected)) chooseAgain(list, now);
    const here = document.activeElement;
    if (!focused || (here && here !== document.body && !now.contains(here))) return;
    const same = (focused.id && document.getElementById(focused.id)) || [...now.querySelectorAll("a, button, input, select, textarea, summary")].find((one) => !one.disabled && meant(one) === focused.meant);
    if (same) {
      same.focus({ preventScroll: true });
      if (focused.start !== null && isText(same)) same.setSelectionRange(focused.start, focused.end);
      same.scrollTop = focused.top;
    } else if (here === document.body || !here) {
      // What had it is gone: Tab goes on from where that stood.
      now.tabIndex = -1;
      now.focus({ preventScroll: true });
      now.addEventListener("blur", () => now.removeAttribute("tabindex"), { once: true });
    }
  };

  globalThis.atriumKeepingFocus = (place, replace) => {
    const held = hold(place);
    replace();
    giveBack(held, place);
  };

  const asked = new WeakMap();
  let held = null;
  let heldBeside = null;
  // A named button may move the fields to other names, so that what was typed isn't put by name.
  document.addEventListener("htmx:beforeRequest", ({ detail }) => { if (!detail.elt.matches("button[name]")) asked.set(detail.xhr, values(detail.target)); });
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    held = hold(detail.target, asked.get(detail.xhr));
    // What such a button sent has the choice in it.
    if (asked.has(detail.xhr)) return;
    const sent = detail.requestConfig.elt.closest("form");
    for (const list of [...chosenIn].filter((one) => one.form === sent)) chosenIn.delete(list);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (held) giveBack(held, event.target);
    held = null;
  });
  // Of an answer that wasn't put in place, nothing is to be given back by the next.
  document.addEventListener("htmx:afterRequest", () => { held = null; });
  document.addEventListener("htmx:oobBeforeSwap", ({ detail }) => { heldBeside = hold(detail.target); });
  document.addEventListener("htmx:oobAfterSwap", (event) => {
    if (heldBeside) giveBack(heldBeside, event.target);
    heldBeside = null;
  });

  // Letters and arrows in a closed list choose all they pass on the way to what is meant. Only what they come to counts,
  // told when they pause or the list is left: an answer between two letters would have the second begin anew.
  const PAUSE = 700;
  let keyAt = -PAUSE;
  let pause = 0;
  // What is chosen while an answer for the same place is awaited would be asked for by a form that the answer replaces,
  // and so never, or overtake it where the form was renewed meanwhile: it waits, too.
  const awaited = [];
  const placeOf = (form) => form?.getAttribute("hx-target") ?? form?.getAttribute("hx-post");
  document.addEventListener("htmx:beforeSend", ({ detail }) => {
    if (!detail.elt.matches("form[hx-post]:not([hx-sync])")) return;
    const place = placeOf(detail.elt);
    awaited.push(place);
    detail.xhr.addEventListener("loadend", () => {
      awaited.splice(awaited.indexOf(place), 1);
      // What came is in place: what waited for it, and was left already, is told.
      tell([...chosenIn].filter((list) => list !== document.activeElement));
    });
  });
  const isAwaited = (list) => awaited.includes(placeOf(list.form));
  const tell = (lists) => {
    for (const list of lists) {
      // One told just now may have its answer at the same place.
      if (isAwaited(list) || !chosenIn.delete(list)) continue;
      list.dispatchEvent(new Event("change", { bubbles: true }));
    }
    if (chosenIn.size) waitForPause();
  };
  const tellAll = () => tell([...chosenIn]);
  const waitForPause = () => {
    clearTimeout(pause);
    pause = setTimeout(tellAll, PAUSE);
  };
  document.addEventListener("keydown", ({ target, key, timeStamp }) => {
    if (!target.matches?.("select")) return;
    keyAt = key === "Enter" ? -PAUSE : timeStamp;
    if (chosenIn.size && key === "Enter") tellAll();
    else if (chosenIn.size) waitForPause();
  }, true);
  document.addEventListener("change", (event) => {
    if (!event.isTrusted || !event.target.matches("select")) return;
    if (event.timeStamp - keyAt > PAUSE && !isAwaited(event.target)) { chosenIn.delete(event.target); return; }
    event.stopImmediatePropagation();
    chosenIn.add(event.target);
    waitForPause();
  }, true);
  document.addEventListener("focusout", () => {
    const left = [...chosenIn];
    // A list that is replaced isn't left: by then its successor is the one chosen in.
    queueMicrotask(() => { if (left.length && left.every((list) => chosenIn.has(list))) tell(left); });
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
    if (!form || !event.target.matches("select, [type=checkbox], [type=radio], [type=date]")) return;
    sessionStorage.setItem("atrium.chosen", `${location.pathname} ${event.target.id}`);
    form.requestSubmit();
  });
  // The page that answers goes on at the same field.
  document.addEventListener("DOMContentLoaded", () => {
    const [path, id] = sessionStorage.getItem("atrium.chosen")?.split(" ") ?? [];
    sessionStorage.removeItem("atrium.chosen");
    const field = id && document.getElementById(id);
    if (field && path === location.pathname) field.focus({ preventScroll: true });
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
