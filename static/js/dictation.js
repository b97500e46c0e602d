// Dictation, where the browser can hear: what's heard for good goes in at the caret as text like any other, what the
// browser still ponders is shown below the field. It ends when one leaves the report's words for anything but the images.
(() => {
  const Recognition = window.SpeechRecognition || window.webkitSpeechRecognition;
  // So often in a row may the browser stop hearing at once before we give up.
  const MOST_RESTARTS = 3;
  const AT_ONCE = 400;
  // Words for marks, by language. "Colon" isn't one: in a report it is an organ.
  const MARKS = {
    en: { "full stop": ".", comma: ",", semicolon: ";", "colon sign": ":", "question mark": "?", "open bracket": "(", "close bracket": ")", "new line": "\n", "new paragraph": "\n\n" },
    de: { punkt: ".", komma: ",", semikolon: ";", strichpunkt: ";", doppelpunkt: ":", fragezeichen: "?", "klammer auf": "(", "klammer zu": ")", "neue zeile": "\n", "neuer absatz": "\n\n" },
    fr: { point: ".", virgule: ",", "point-virgule": ";", "deux-points": ":", "à la ligne": "\n", "nouveau paragraphe": "\n\n" },
    es: { punto: ".", coma: ",", "punto y coma": ";", "dos puntos": ":", "nueva línea": "\n", "nuevo párrafo": "\n\n" },
    nb: { punktum: ".", komma: ",", semikolon: ";", kolon: ":", "ny linje": "\n", "nytt avsnitt": "\n\n" },
  };
  // "Period" is a mark at the end of what was said only: elsewhere it is a span of time.
  const LAST_MARKS = { en: { period: "." } };
  const STEPS = { en: ["next field", "previous field"], de: ["nächstes feld", "vorheriges feld"], fr: ["champ suivant", "champ précédent"], es: ["campo siguiente", "campo anterior"], nb: ["neste felt", "forrige felt"] };

  let recognition = null;
  let field = null;
  let restarts = 0;
  let startedAt = 0;

  const form = () => document.getElementById("draft");
  const button = () => document.getElementById("dictate");
  const language = () => field?.lang || document.documentElement.lang || "en";
  const words = (table) => table[language().slice(0, 2).toLowerCase()] || {};
  const isWords = (element) => Boolean(element?.matches?.("#draft textarea"));
  const say = (text) => {
    const note = document.getElementById("dictation-note");
    if (note) note.textContent = text;
  };

  const ponder = (text) => {
    let bubble = document.getElementById("dictation-heard");
    if (!text) { bubble?.remove(); return; }
    if (!bubble) {
      bubble = document.createElement("p");
      bubble.id = "dictation-heard";
      bubble.setAttribute("aria-hidden", "true");
    }
    bubble.textContent = text;
    field.closest(".desk-field").append(bubble);
  };

  const written = (said) => {
    const spellings = JSON.parse(document.getElementById("spellings")?.textContent || "{}");
    let text = said.trim().replace(/[\p{L}\p{N}'’-]+/gu, (word) => spellings[word.toLowerCase()] || word);
    text = text.replace(/(\d)\s+point\s+(?=\d)/giu, "$1.").replace(/(\d)\s+komma\s+(?=\d)/giu, "$1,");
    for (const [spoken, mark] of Object.entries(words(LAST_MARKS))) text = text.replace(new RegExp(`\\s*(?<!\\p{L})${spoken}$`, "iu"), mark);
    // The longest first: "punto y coma" is one mark, not two.
    for (const [spoken, mark] of Object.entries(words(MARKS)).sort(([a], [b]) => b.length - a.length)) {
      text = text.replace(new RegExp(`${mark === "(" ? "" : "\\s*"}(?<!\\p{L})${spoken}(?!\\p{L})${/[\n(]/.test(mark) ? "\\s*" : ""}`, "giu"), mark);
    }
    return text.replace(/([.?!\n]\s*)(\p{Ll})/gu, (_, mark, letter) => mark + letter.toUpperCase());
  };

  const insert = (said) => {
    const steps = STEPS[language().slice(0, 2).toLowerCase()] || [];
    const step = steps.indexOf(said.trim().toLowerCase());
    if (step >= 0) {
      field.focus();
      field.dispatchEvent(new KeyboardEvent("keydown", { key: "F2", shiftKey: step === 1, bubbles: true, cancelable: true }));
      return;
    }
    let text = written(said);
    const before = field.value.slice(0, field.selectionStart);
    const after = field.value.slice(field.selectionEnd);
    if (before && !/[\s(]$/.test(before) && !/^[.,;:?)\n]/.test(text)) text = ` ${text}`;
    if (!before.trim() || /[.!?\n]\s*$/.test(before)) text = text.replace(/^(\s*)(\p{Ll})/u, (_, space, letter) => space + letter.toUpperCase());
    if (/^[\p{L}\p{N}]/u.test(after) && !/\s$/.test(text)) text += " ";
    // So that the browser's own undo takes it back.
    if (document.activeElement === field && document.execCommand("insertText", false, text)) return;
    field.setRangeText(text, field.selectionStart, field.selectionEnd, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };

  const show = () => {
    if (!button()) return;
    button().hidden = !Recognition;
    button().setAttribute("aria-pressed", String(Boolean(recognition)));
    if (!recognition) ponder("");
    for (const area of form().querySelectorAll(".is-heard")) area.classList.remove("is-heard");
    if (recognition) field.classList.add("is-heard");
  };

  // So long what was said up to now may take to be written.
  const LONGEST_END = 1500;
  let ending = null;
  const stop = (note = "") => {
    const ended = recognition;
    recognition = null;
    if (ended) {
      ending = new Promise((done) => {
        ended.onend = done;
        setTimeout(done, LONGEST_END);
      }).finally(() => { ending = null; });
      ended.onerror = null;
      // What was said up to now is still to come.
      ended.stop();
      say(note);
    }
    show();
  };

  const failed = (error) => {
    const texts = button().dataset;
    if (error === "no-speech" || error === "aborted") return;
    stop(texts[{ "not-allowed": "notAllowed", "service-not-allowed": "notAllowed", "audio-capture": "noMicrophone", network: "noService", "language-not-supported": "noLanguage" }[error] || "noService"]);
  };

  const start = () => {
    field = isWords(document.activeElement) ? document.activeElement : field;
    if (!field?.isConnected) field = form().querySelector("[data-section=findings] textarea") || form().querySelector("textarea");
    if (!field) return;
    const hearing = new Recognition();
    recognition = hearing;
    hearing.continuous = true;
    hearing.interimResults = true;
    hearing.lang = language();
    hearing.onresult = (event) => {
      if (!field.isConnected || field.readOnly) return;
      let pondered = "";
      for (let index = event.resultIndex; index < event.results.length; index += 1) {
        const result = event.results[index];
        if (result.isFinal) insert(result[0].transcript);
        else pondered += result[0].transcript;
      }
      restarts = 0;
      ponder(recognition ? pondered : "");
    };
    hearing.onerror = (event) => failed(event.error);
    // Browsers stop hearing after a silence; one who wants to dictate goes on.
    hearing.onend = () => {
      if (recognition !== hearing) return;
      restarts = Date.now() - startedAt < AT_ONCE ? restarts + 1 : 0;
      if (restarts >= MOST_RESTARTS) { failed("network"); return; }
      startedAt = Date.now();
      hearing.start();
    };
    startedAt = Date.now();
    restarts = 0;
    hearing.start();
    field.focus();
    say(button().dataset.hearing);
    show();
  };

  const toggle = () => (recognition ? stop() : start());

  document.addEventListener("focusin", (event) => {
    if (isWords(event.target)) {
      field = event.target;
      if (recognition) show();
    } else if (recognition && event.target !== button() && !event.target.matches?.("iframe")) {
      stop();
    }
  });
  document.addEventListener("focusout", (event) => {
    // To nothing, by a click beside the fields, is leaving too; to the images isn't, nor is another window.
    if (recognition && isWords(event.target) && !event.relatedTarget) {
      setTimeout(() => { if (recognition && document.hasFocus() && document.activeElement === document.body) stop(); }, 0);
    }
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); });
  window.addEventListener("pagehide", () => stop());
  document.addEventListener("atrium:leave", ({ detail }) => {
    stop();
    if (ending) detail.waits.push(ending);
  });
  // The caret stays in the words when the button is pressed.
  document.addEventListener("pointerdown", (event) => { if (event.target.closest?.("#dictate")) event.preventDefault(); });
  document.addEventListener("click", (event) => { if (event.target.closest?.("#dictate")) toggle(); });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "F9" || event.ctrlKey || event.altKey || event.metaKey || !button() || button().hidden) return;
    event.preventDefault();
    toggle();
  });
  document.addEventListener("htmx:afterSwap", () => {
    if (recognition && !field?.isConnected) stop();
    show();
  });
  document.addEventListener("DOMContentLoaded", show);
})();
