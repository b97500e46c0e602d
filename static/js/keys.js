// The keyboard. An element with data-key="n" (or a sequence, "g w") is focused when it is a field and
// clicked otherwise. data-key-label says what it does in the help that "?" opens; data-help-key names a key that
// another script answers.
// Inside [data-rows], j and k walk over the .row-link of each row, and Enter opens it.
(() => {
  const PAUSE = 1000;
  let typed = [];
  let last = 0;
  let isFilledIn = false;

  const isTyping = (target) =>
    target.isContentEditable || (target.matches("input, textarea, select") && !target.matches("[type=checkbox], [type=radio], [type=button], [type=submit]"));

  const isShown = (element) => element.checkVisibility ? element.checkVisibility() : element.offsetParent !== null;

  // A page's own keys come before those of the bar above it.
  const keyed = () => [...document.querySelectorAll("[data-key]")].reverse();

  const named = (key) => keyed().find((element) => element.dataset.key === key && !element.disabled);

  const act = (element) => {
    if (element.matches("input:not([type=checkbox], [type=radio]), textarea, select")) {
      element.focus();
      if (element.select) element.select();
    } else {
      element.click();
    }
  };

  const walk = (step) => {
    const links = [...document.querySelectorAll("[data-rows] .row-link")].filter(isShown);
    if (!links.length) return false;
    const at = links.findIndex((link) => link === document.activeElement || link.closest("tr, li")?.contains(document.activeElement));
    const next = links[Math.min(Math.max(at + step, 0), links.length - 1)];
    next.focus();
    next.closest("tr, li")?.scrollIntoView({ block: "nearest" });
    return true;
  };

  const row = (keys, label) => {
    const term = document.createElement("dt");
    keys.split(" ").forEach((key, index) => {
      if (index) term.append(" ");
      const kbd = document.createElement("kbd");
      kbd.textContent = key === "Escape" ? "Esc" : key;
      term.append(kbd);
    });
    const text = document.createElement("dd");
    text.textContent = label;
    return [term, text];
  };

  const help = () => {
    const dialog = document.getElementById("key-help");
    if (!dialog || dialog.open) return;
    const list = dialog.querySelector(".key-list");
    const meant = new Map();
    for (const element of keyed()) if (!meant.has(element.dataset.key)) meant.set(element.dataset.key, element);
    // The page's own first, in the order in which they stand there, then the way to other rooms.
    const ordered = [...meant].reverse();
    const isAbove = ([, element]) => Boolean(element.closest(".topbar"));
    const told = ([key, element]) => row(key, element.dataset.keyLabel || element.getAttribute("aria-label") || element.textContent.trim());
    const rows = ordered.filter((one) => !isAbove(one)).flatMap(told);
    for (const note of document.querySelectorAll("[data-help-key]")) rows.push(...row(note.dataset.helpKey, note.dataset.keyLabel));
    if (document.querySelector("[data-rows] .row-link")) {
      rows.push(...row("j", list.dataset.next), ...row("k", list.dataset.previous), ...row("Enter", list.dataset.open));
    }
    rows.push(...ordered.filter(isAbove).flatMap(told));
    rows.push(...row("?", list.dataset.help), ...row("Esc", list.dataset.close));
    list.replaceChildren(...rows);
    dialog.showModal();
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (isTyping(event.target)) {
      if (event.key === "Escape" && event.target.matches("[data-key], .entry")) event.target.blur();
      return;
    }
    if (document.querySelector("dialog[open], .modal.show")) return;
    if (event.key === "?") {
      event.preventDefault();
      help();
      return;
    }
    if (event.key === "Escape") {
      // What is open closes first; only then one leaves.
      const leave = isFilledIn || document.querySelector("details[open].filter-menu, .dropdown-menu.show, .topnav-wrap.is-open") ? null : keyed().find((element) => element.dataset.key === "Escape");
      if (leave) act(leave);
      return;
    }
    if (event.key.length !== 1) return;
    const now = Date.now();
    typed = now - last > PAUSE ? [event.key] : [...typed, event.key].slice(-2);
    last = now;
    // A sequence that was typed whole comes before what its last letter means alone.
    const found = named(typed.join(" ")) || named(event.key);
    if (found) {
      event.preventDefault();
      typed = [];
      act(found);
    } else if ((event.key === "j" || event.key === "k") && walk(event.key === "j" ? 1 : -1)) {
      event.preventDefault();
    }
  });

  // A form that was filled in isn't left by a slip of the finger.
  document.addEventListener("input", (event) => {
    if (event.target.closest("form[method=post]")) isFilledIn = true;
  });

  document.addEventListener("atrium:case", () => { isFilledIn = false; });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-key-help]")) help();
  });
})();
