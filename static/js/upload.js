// Upload: walks dropped folders, sends three files at a time, shows each file's progress and outcome.
(() => {
  const PARALLEL = 3;
  const form = document.getElementById("upload");
  const zone = document.getElementById("drop-zone");
  const rows = document.getElementById("upload-rows");
  const summary = document.getElementById("upload-summary");
  const overall = document.getElementById("upload-progress");
  const retry = document.getElementById("upload-retry");
  const studies = document.getElementById("upload-studies");
  const token = JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];
  const queue = [];
  const again = [];
  const seen = new Set();
  const count = { total: 0, done: 0, stored: 0, known: 0, failed: 0 };
  let running = 0;

  const tell = () => {
    summary.textContent = summary.dataset.text.replace(/\{(\w+)\}/g, (_, name) => count[name]);
    overall.hidden = false;
    overall.max = count.total;
    overall.value = count.done;
    retry.hidden = again.length === 0 || running > 0;
  };

  const add = (file, name) => {
    const row = document.createElement("li");
    row.className = "upload-row";
    const label = document.createElement("span");
    label.className = "clip clip-xl";
    label.textContent = name;
    const progress = document.createElement("progress");
    progress.max = 1;
    progress.value = 0;
    const state = document.createElement("span");
    state.className = "soft";
    state.textContent = rows.dataset.waiting;
    row.append(label, progress, state);
    rows.append(row);
    queue.push({ file, name, progress, state, row });
    count.total += 1;
  };

  const arrived = (uid) => {
    if (!uid || seen.has(uid)) return;
    seen.add(uid);
    document.getElementById("studies-title").hidden = false;
    const link = document.createElement("a");
    link.href = form.dataset.studyUrl.replace("/0/", `/${uid}/`);
    link.textContent = `${studies.dataset.label} ${uid}`;
    const item = document.createElement("li");
    item.append(link);
    studies.append(item);
  };

  const finish = (job, files, problem) => {
    job.progress.value = 1;
    if (problem) {
      job.state.textContent = problem;
      job.row.classList.add("is-failed");
      again.push(job);
      count.failed += 1;
    }
    const reasons = [];
    for (const one of files) {
      if (one.status === "stored" || one.status === "conflict") count.stored += 1;
      if (one.status === "duplicate") count.known += 1;
      if (one.status === "refused" || one.status === "failed") {
        count.failed += 1;
        reasons.push(files.length > 1 ? `${one.name}: ${one.reason}` : one.reason);
      }
      arrived(one.study_instance_uid);
    }
    if (files.length) {
      const states = [...new Set(files.map((one) => rows.dataset[one.status]))];
      job.state.textContent = [states.join(", "), ...reasons].join(" — ");
      job.row.classList.toggle("is-failed", reasons.length > 0);
    }
    count.done += 1;
    running -= 1;
    next();
  };

  const send = (job) => {
    running += 1;
    const request = new XMLHttpRequest();
    const query = new URLSearchParams({ name: job.name, site: document.getElementById("upload-site").value });
    request.open("POST", `${form.dataset.url}?${query}`);
    request.setRequestHeader("X-CSRFToken", token);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) job.progress.value = (event.loaded / event.total) * 0.95;
    };
    request.onerror = () => finish(job, [], rows.dataset.network);
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { answer = {}; }
      if (request.status === 200) finish(job, answer.files, "");
      else finish(job, [], answer.title || rows.dataset.failed);
    };
    request.send(job.file);
  };

  const next = () => {
    while (running < PARALLEL && queue.length) send(queue.shift());
    tell();
  };

  const walk = async (entry, path) => {
    if (entry.isFile) {
      add(await new Promise((resolve, reject) => entry.file(resolve, reject)), path + entry.name);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!entries.length) return;
      for (const inside of entries) await walk(inside, `${path}${entry.name}/`);
    }
  };

  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("is-over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("is-over"));
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    zone.classList.remove("is-over");
    // Entries must be taken before the first pause: the list is emptied after the event.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    for (const entry of entries) await walk(entry, "");
    next();
  });
  for (const input of form.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      for (const file of input.files) add(file, file.webkitRelativePath || file.name);
      input.value = "";
      next();
    });
  }
  retry.addEventListener("click", () => {
    for (const job of again.splice(0)) {
      job.row.classList.remove("is-failed");
      job.state.textContent = rows.dataset.waiting;
      count.failed -= 1;
      count.done -= 1;
      queue.push(job);
    }
    next();
  });
  window.addEventListener("beforeunload", (event) => { if (running) event.preventDefault(); });
})();
