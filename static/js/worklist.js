// The worklist follows what happens elsewhere: changed rows are replaced where they stand, new ones are announced and
// shown on a key. Nothing moves under the cursor. Filters answer while one types, rows are chosen with x.
(() => {
  const place = document.getElementById("worklist");
  if (!place) return;
  const TICK = 15_000;
  const GATHER = 250;
  const WARNS_AT = 0.75;
  const SETTLED = 500;
  const filter = document.getElementById("filter");
  const bulk = document.getElementById("bulk");
  const live = document.getElementById("live");
  const list = () => document.getElementById("list");
  const rows = () => document.getElementById("rows");
  // Of a long list only what is near the eye stays in the page: a window's rows wait here until one comes back to it.
  const away = new Map();
  const rowOf = (pk) => {
    const wanted = `tr[data-row="${pk}"]`;
    return rows()?.querySelector(wanted) || [...away.values()].map((kept) => kept.querySelector(wanted)).find(Boolean);
  };
  let fresh = new Set();

  // Clocks and claims run on without the server.
  const spoken = (minutes) => {
    const size = Math.abs(minutes);
    const text = size < 60 ? `${size} min` : size < 48 * 60 ? `${Math.floor(size / 60)} h ${String(size % 60).padStart(2, "0")}` : `${Math.floor(size / 1440)} d`;
    return minutes < 0 ? place.dataset.late.replace("{t}", text) : text;
  };

  const tick = (within = place) => {
    const now = Date.now();
    for (const clock of within.querySelectorAll("[data-due]")) {
      const due = Date.parse(clock.dataset.due);
      const from = Date.parse(clock.dataset.from);
      const text = spoken(Math.round((due - now) / 60_000));
      if (clock.textContent !== text) clock.textContent = text;
      clock.classList.toggle("is-late", due <= now);
      clock.classList.toggle("is-warning", due > now && now - from > (due - from) * WARNS_AT);
      clock.title ||= new Date(due).toLocaleString();
    }
    for (const holder of within.querySelectorAll("[data-claimed-until]")) {
      if (Date.parse(holder.dataset.claimedUntil) <= now) holder.remove();
    }
  };

  // What the menus hold is said on them.
  const label = () => {
    let count = 0;
    for (const menu of filter.querySelectorAll(".filter-menu")) {
      const chosen = [...menu.querySelectorAll("input:checked")].map((box) => box.parentElement.textContent.trim());
      const typed = [...menu.querySelectorAll("input:not([type=checkbox]), select")].filter((field) => field.value).length;
      count += chosen.length + typed ? 1 : 0;
      const value = menu.querySelector(".filter-menu-value");
      if (menu.classList.contains("filter-menu-more")) value.textContent = chosen.length + typed ? String(chosen.length + typed) : "";
      else value.textContent = chosen.length > 2 ? `${chosen.length}` : chosen.join(", ");
    }
    // A phone shows only how many there are.
    document.getElementById("filters-set").textContent = count + (filter.elements.assigned?.value ? 1 : 0) || "";
  };

  const showFresh = () => {
    const button = document.getElementById("new-rows");
    if (!button) return;
    button.hidden = fresh.size === 0;
    button.textContent = fresh.size === 1 ? button.dataset.one : button.dataset.many.replace("{n}", fresh.size);
  };

  const focusedStudy = () => document.activeElement?.closest("tr[data-row]")?.dataset.row;

  const refocus = (pk, what = ".row-link") => rowOf(pk)?.querySelector(what)?.focus({ preventScroll: true });

  const reload = async () => {
    const kept = focusedStudy();
    await htmx.ajax("GET", `${filter.action}?${list().dataset.query}`, { target: "#worklist", swap: "innerHTML" });
    if (kept) refocus(kept);
  };

  const follow = async (pks) => {
    if (!list()) return;
    // What isn't loaded yet of a long list isn't new.
    const more = rows()?.querySelector(".more-rows")?.getAttribute("hx-get");
    const end = more ? `&after=${encodeURIComponent(new URLSearchParams(more.split("?")[1]).get("after"))}` : "";
    const answer = await fetch(`${list().dataset.rowsUrl}?ids=${pks.join(",")}&${list().dataset.query}${end}`, { headers: { "HX-Request": "true" } });
    if (!answer.ok) return;
    const holder = document.createElement("template");
    holder.innerHTML = `<table>${await answer.text()}</table>`;
    const now = new Map([...holder.content.querySelectorAll("tr[data-row]")].map((row) => [row.dataset.row, row]));
    for (const pk of pks) {
      const old = rowOf(pk);
      const row = now.get(pk);
      if (old && row) {
        const focused = old.contains(document.activeElement) ? (document.activeElement.matches("input[name=study]") ? "input[name=study]" : ".row-link") : null;
        const box = row.querySelector("input[name=study]");
        if (box) box.checked = old.querySelector("input[name=study]")?.checked ?? false;
        row.classList.add("was-changed");
        old.replaceWith(row);
        htmx.process(row);
        if (focused) refocus(pk, focused);
      } else if (old) {
        old.classList.add("is-gone");
        fresh.delete(pk);
      } else if (row && row.dataset.further === undefined) {
        fresh.add(pk);
      }
    }
    showFresh();
    tick();
    choose();
  };

  // Changes are gathered for a moment, so that a batch costs one request.
  let gathered = new Set();
  let timer = 0;
  const changed = (pk) => {
    gathered.add(pk);
    if (timer) return;
    timer = setTimeout(() => {
      const pks = [...gathered].slice(0, 200);
      gathered = new Set();
      timer = 0;
      follow(pks);
    }, GATHER);
  };

  const source = new EventSource(place.dataset.changesUrl);
  source.addEventListener("change", (event) => changed(event.data));
  const say = (isOn) => {
    live.textContent = isOn ? live.dataset.on : live.dataset.off;
    live.classList.toggle("is-off", !isOn);
  };
  source.addEventListener("open", () => say(true));
  source.addEventListener("error", () => say(false));
  window.addEventListener("pagehide", () => source.close());

  // Choosing several cases.
  const choose = () => {
    if (!bulk) return;
    let count = 0;
    for (const box of rows()?.querySelectorAll("input[name=study]") ?? []) {
      box.closest("tr").classList.toggle("is-chosen", box.checked);
      count += Number(box.checked);
    }
    const text = document.getElementById("bulk-count");
    bulk.hidden = count === 0;
    text.textContent = count === 1 ? text.dataset.one : text.dataset.many.replace("{n}", count);
  };

  const chooseNone = () => {
    for (const box of place.querySelectorAll("input[name=study], #choose-all")) box.checked = false;
    choose();
  };

  document.addEventListener("change", (event) => {
    if (event.target.id === "choose-all") {
      for (const box of rows().querySelectorAll("input[name=study]")) box.checked = event.target.checked;
    }
    if (event.target.closest("#worklist")) choose();
    if (event.target.matches("#bulk select") && event.target.value) bulk.requestSubmit();
  });

  bulk?.addEventListener("htmx:afterRequest", () => {
    bulk.reset();
    chooseNone();
  });
  document.getElementById("bulk-none")?.addEventListener("click", chooseNone);

  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && event.target.closest(".filter-menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox]), select, textarea")) return;
    if (event.key === "x" && focusedStudy()) {
      const box = rowOf(focusedStudy()).querySelector("input[name=study]");
      if (box) box.checked = !box.checked;
      choose();
      event.preventDefault();
    }
    if (event.key === "Escape") for (const menu of filter.querySelectorAll("details[open]")) menu.open = false;
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("#new-rows")) reload();
    for (const menu of filter.querySelectorAll("details[open]")) if (!menu.contains(event.target)) menu.open = false;
    const head = event.target.closest("a[data-add-url]");
    if (head && event.shiftKey) {
      event.preventDefault();
      window.location.assign(head.dataset.addUrl);
    }
    const link = event.target.closest(".row-link");
    if (link) {
      sessionStorage.setItem("worklist-row", link.closest("tr").dataset.row);
      if (list().dataset.query && link.pathname.startsWith("/studies/")) link.search = `?list=${encodeURIComponent(list().dataset.query)}`;
    }
    const move = event.target.closest("[data-move]");
    if (move) {
      const item = move.closest("li");
      const other = move.dataset.move === "1" ? item.nextElementSibling : item.previousElementSibling;
      if (other) (move.dataset.move === "1" ? other.after(item) : other.before(item));
      move.focus();
    }
    if (event.target.closest("[data-usual]")) {
      for (const box of event.target.closest("form").querySelectorAll("[name=column]")) box.checked = false;
    }
  });

  document.addEventListener("submit", (event) => {
    // What is kept or opened belongs to the list as it is now.
    const form = event.target.closest("form[data-of-list]");
    if (form) form.elements.query.value = list().dataset.query;
  });

  // The list goes on before its end is seen. It scrolls inside the page, so that the margin is the scroller's.
  const AHEAD = "1500px";
  const near = { rootMargin: AHEAD, scrollMargin: AHEAD };
  const ahead = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      ahead.unobserve(entry.target);
      htmx.trigger(entry.target, "atrium:more");
    }
  }, near);

  const putAway = (place) => {
    // What is chosen or has the focus stays.
    if (away.has(place) || place.contains(document.activeElement) || place.querySelector(":checked")) return;
    const height = place.offsetHeight;
    const kept = document.createDocumentFragment();
    kept.append(...place.children);
    away.set(place, kept);
    const gap = place.insertRow();
    gap.className = "gap";
    gap.insertCell().colSpan = 20;
    gap.style.height = `${height}px`;
  };
  const bringBack = (place) => {
    const kept = away.get(place);
    if (!kept) return;
    away.delete(place);
    place.replaceChildren(kept);
    tick(place);
  };
  const windows = new IntersectionObserver((entries) => {
    for (const entry of entries) (entry.isIntersecting ? bringBack : putAway)(entry.target);
  }, near);

  const isTooWide = (table) => table.parentElement.scrollWidth > table.parentElement.clientWidth + 1;
  // Columns may grow with what comes, but don't shrink with what goes, unless one of them would find no room then.
  const holdWidths = () => {
    const heads = [...(rows()?.querySelectorAll("thead th") ?? [])];
    if (!rows().classList.contains("is-wide") && isTooWide(rows())) for (const head of heads) head.style.minWidth = "";
    const widths = heads.map((head) => head.getBoundingClientRect().width);
    heads.forEach((head, place) => { head.style.minWidth = `${widths[place]}px`; });
  };
  // A table that is wider than its place scrolls under the patient's name, which then covers no longer the whole row.
  const fit = () => {
    const table = rows();
    if (table && isTooWide(table)) table.classList.add("is-wide");
  };
  document.addEventListener("click", (event) => {
    const row = event.target.closest("table.is-wide tr[data-row]");
    if (row && !event.target.closest("a, input, td.row-check")) row.querySelector(".row-link").click();
  });
  const goOn = () => {
    if (rows()?.querySelectorAll("tbody.window").length > 1) holdWidths();
    fit();
    for (const place of rows()?.querySelectorAll("tbody.window") ?? []) windows.observe(place);
    const more = rows()?.querySelector(".more-rows");
    if (more) ahead.observe(more);
  };
  window.addEventListener("resize", () => {
    for (const head of rows()?.querySelectorAll("thead th") ?? []) head.style.minWidth = "";
    // Measured as it would be if it fitted: once it's wide its columns take the room they want.
    rows()?.classList.remove("is-wide");
    fit();
  });

  // The wide menu opens to the side on which it has room: its button may stand in a second line.
  const wide = filter.querySelector(".filter-menu-more");
  wide?.addEventListener("toggle", () => {
    wide.classList.toggle("is-at-start", wide.offsetLeft + wide.offsetWidth < wide.querySelector(".filter-menu-panel").offsetWidth);
  });
  filter.addEventListener("input", label);
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target === place || event.detail.target === place) {
      fresh = new Set();
      away.clear();
      label();
      choose();
    }
    tick();
  });
  // Only then does the new last row answer.
  document.addEventListener("htmx:afterSettle", goOn);

  // One who reads opens a case next: the viewer's scripts, which are no patient's, wait in the browser's cache.
  const fetchViewer = () => {
    for (const address of place.dataset.viewerFiles?.split(" ") ?? []) {
      document.head.append(Object.assign(document.createElement("link"), { rel: "prefetch", href: address, as: address.endsWith(".css") ? "style" : "script" }));
    }
  };
  const isSparing = window.matchMedia("(width < 640px)").matches || navigator.connection?.saveData;
  if (place.dataset.viewerFiles && !isSparing) window.addEventListener("load", () => setTimeout(fetchViewer, SETTLED));

  label();
  tick();
  goOn();
  setInterval(tick, TICK);
  // Back from a case, one goes on where one was.
  const last = sessionStorage.getItem("worklist-row");
  if (last && rowOf(last)) {
    sessionStorage.removeItem("worklist-row");
    refocus(last);
    rowOf(last).scrollIntoView({ block: "nearest" });
  }
})();
