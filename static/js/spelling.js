// Unknown words at the desk: underlined in a layer over each field, walked by F7, put right by a number. The words come
// from the server with the checks of each save; the word that is being typed isn't judged.
(() => {
  const form = () => document.querySelector("#draft[data-spelling]");
  const box = () => document.getElementById("spelling");
  const areas = () => [...form().querySelectorAll("textarea")].filter((area) => area.checkVisibility());
  const unknown = () => new Set([...document.querySelectorAll("#checks .misspelt")].map((button) => button.dataset.word));
  const layers = new WeakMap();
  let at = null;

  const places = (area) => {
    const words = unknown();
    if (!words.size) return [];
    return [...area.value.matchAll(/[\p{L}'’]+/gu)]
      .map((found) => ({ area, start: found.index, word: found[0].replace(/^['’]+|['’]+s?$/g, "") }))
      .filter((place) => words.has(place.word))
      .map((place) => ({ ...place, end: place.start + place.word.length }));
  };

  const layerOf = (area) => {
    if (!layers.has(area)) {
      const layer = document.createElement("div");
      layer.className = "spelling-layer";
      layer.setAttribute("aria-hidden", "true");
      area.after(layer);
      layers.set(area, layer);
      new ResizeObserver(() => fit(area)).observe(area);
      area.addEventListener("scroll", () => { layer.scrollTop = area.scrollTop; });
    }
    return layers.get(area);
  };
  const COPIED = ["font", "letterSpacing", "lineHeight", "padding", "borderWidth", "textIndent", "tabSize"];
  const fit = (area) => {
    const layer = layers.get(area);
    const style = getComputedStyle(area);
    for (const name of COPIED) layer.style[name] = style[name];
    layer.style.left = `${area.offsetLeft}px`;
    layer.style.top = `${area.offsetTop}px`;
    // Without the scroll bar, which takes its room from the words.
    layer.style.width = `${area.clientWidth + 2 * parseFloat(style.borderLeftWidth)}px`;
    layer.style.height = `${area.offsetHeight}px`;
    layer.scrollTop = area.scrollTop;
  };
  const underline = (area) => {
    const found = places(area).filter((place) => !(document.activeElement === area && area.selectionStart === place.end && area.selectionEnd === place.end));
    if (!found.length && !layers.has(area)) return;
    const layer = layerOf(area);
    const pieces = [];
    let from = 0;
    for (const { start, end, word } of found) {
      const mark = document.createElement("span");
      mark.className = "is-unknown";
      mark.textContent = word;
      pieces.push(area.value.slice(from, start), mark);
      from = end;
    }
    layer.replaceChildren(...pieces, `${area.value.slice(from)}\n`);
    fit(area);
  };
  const underlineAll = () => { if (form()) for (const area of areas()) underline(area); };

  const close = () => {
    box().hidden = true;
    at?.area.focus();
    at = null;
  };
  const open = async (place) => {
    at = place;
    place.area.focus();
    place.area.setSelectionRange(place.start, place.end);
    place.area.closest(".desk-field").append(box());
    const list = box().querySelector(".spelling-suggestions");
    box().querySelector(".spelling-word").textContent = place.word;
    list.textContent = list.dataset.looking;
    box().hidden = false;
    box().focus({ preventScroll: true });
    box().scrollIntoView({ block: "nearest" });
    const query = new URLSearchParams({ word: place.word, language: form().dataset.spelling });
    const found = await fetch(`${form().dataset.suggestionsUrl}?${query}`).then((answer) => answer.json()).catch(() => ({ suggestions: [] }));
    if (at !== place) return;
    const buttons = found.suggestions.map((word, number) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "btn btn-sm";
      button.dataset.suggestion = word;
      const key = document.createElement("kbd");
      key.textContent = number + 1;
      button.append(key, ` ${word}`);
      return button;
    });
    if (buttons.length) list.replaceChildren(...buttons);
    else list.textContent = list.dataset.none;
  };
  const all = () => areas().flatMap(places);
  const next = () => {
    const found = all();
    if (!found.length) { if (at) close(); return; }
    const order = areas();
    const here = at ? { area: at.area, start: at.end } : { area: document.activeElement, start: document.activeElement.selectionStart || 0 };
    const index = order.indexOf(here.area);
    open(found.find((place) => order.indexOf(place.area) > index || (place.area === here.area && place.start >= here.start)) || found[0]);
  };
  const replace = (word) => {
    const { area, start, end } = at;
    area.focus();
    area.setSelectionRange(start, end);
    // So that the browser's own undo takes it back.
    if (!document.execCommand("insertText", false, word)) {
      area.setRangeText(word, start, end, "end");
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
    close();
  };
  const add = async () => {
    const { word } = at;
    const data = new URLSearchParams({ word, csrfmiddlewaretoken: form().querySelector("[name=csrfmiddlewaretoken]").value });
    const answer = await fetch(form().dataset.wordsUrl, { method: "POST", body: data, headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    for (const button of document.querySelectorAll(".misspelt")) if (button.dataset.word.toLowerCase() === word.toLowerCase()) button.remove();
    for (const note of document.querySelectorAll(".check-note")) if (!note.querySelector(".misspelt")) note.remove();
    underlineAll();
    close();
  };

  document.addEventListener("keydown", (event) => {
    if (!form() || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "F7") { event.preventDefault(); next(); return; }
    if (!at || !box().contains(event.target)) return;
    const suggestion = /^[1-9]$/.test(event.key) && box().querySelectorAll("[data-suggestion]")[Number(event.key) - 1];
    if (suggestion) replace(suggestion.dataset.suggestion);
    else if (event.key === "a") add();
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button");
    if (!button || !form()) return;
    if (button.dataset.suggestion) replace(button.dataset.suggestion);
    if (button.matches(".misspelt")) {
      const place = all().find((one) => one.word === button.dataset.word);
      if (place) open(place);
    }
    const act = { add, next, close }[button.dataset.spellingDo];
    if (act) act();
  });
  document.addEventListener("input", (event) => { if (form() && event.target.matches?.("#draft textarea")) underline(event.target); });
  document.addEventListener("focusout", (event) => { if (form() && event.target.matches?.("#draft textarea")) underline(event.target); });
  document.addEventListener("atrium:checked", underlineAll);
  document.addEventListener("htmx:afterSwap", underlineAll);
  document.addEventListener("DOMContentLoaded", underlineAll);
  document.addEventListener("atrium:case", () => { at = null; });
})();
