// The page "Ray jobs": reads the jobs of each connection, filters them, and shows them page by page.
// Text from a cluster is always inserted as text, never as markup.
"use strict";

const PAGE_SIZE = 50;
const READERS = 4; // connections that are read at the same time
const STORAGE_KEY = "ray-jobs-connections"; // in the browser's storage: the connection ids that the user has entered
const STATUSES = ["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"];

const $ = (id) => document.getElementById(id);
const state = { connections: new Map(), page: 0, reading: 0 };

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// Links. Airflow shows this page in a frame whose links can't open pages outside of it, so they are opened by a link in
// the page around the frame.

function link(text, url, attributes = {}) {
  let target;
  try {
    target = new URL(url, document.baseURI);
  } catch {
    return element("span", text);
  }
  if (!["http:", "https:"].includes(target.protocol)) return element("span", text);
  return element("a", text, { href: target.href, rel: "noopener noreferrer", ...attributes });
}

function follow(event) {
  const clicked = event.target.closest("a[href]");
  if (!clicked || window.parent === window || event.button > 1) return;
  event.preventDefault();
  const around = window.parent.document;
  const elsewhere = event.ctrlKey || event.metaKey || event.shiftKey || event.button === 1;
  const copy = around.createElement("a");
  copy.href = clicked.href;
  copy.rel = clicked.rel;
  copy.target = elsewhere ? "_blank" : clicked.target === "_top" ? "" : clicked.target;
  around.body.append(copy);
  copy.click();
  copy.remove();
}

// Reading

async function request(path) {
  let response;
  try {
    response = await fetch(path, { headers: { Accept: "application/json" } });
  } catch {
    throw new Error("Airflow does not respond.");
  }
  if (response.ok) return response.json();
  if (response.status === 401) throw new Error("Your Airflow session has expired. Reload the whole page to log in again.");
  if (response.status === 403) throw new Error("You don't have permission to read this connection.");
  const error = await response.json().catch(() => ({}));
  throw new Error(typeof error.detail === "string" ? error.detail : `Airflow responded with HTTP ${response.status}.`);
}

async function refresh() {
  const reading = ++state.reading; // the results of an earlier refresh are ignored
  let problem = "";
  let listed = [];
  try {
    listed = await request("api/connections");
  } catch (error) {
    problem = error.message;
  }
  if (reading !== state.reading) return;
  const ids = [...new Set([...listed, ...storedIds()])];
  const before = state.connections;
  state.connections = new Map(ids.map((id) => [id, { jobs: before.get(id)?.jobs ?? [], state: "reading" }]));
  state.problem = problem;
  draw();
  const waiting = [...ids];
  const reader = async () => {
    for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) await read(id, reading);
  };
  await Promise.all(Array.from({ length: READERS }, reader));
}

async function read(id, reading) {
  let found;
  try {
    found = { ...(await request(`api/connections/${encodeURIComponent(id)}/jobs`)), state: "read" };
    for (const job of found.jobs) {
      job.connection = id;
      job.words = [job.submission_id, job.dag_id, job.run_id, job.task_id, job.message, job.entrypoint].join("\n").toLowerCase();
    }
  } catch (error) {
    found = { jobs: [], state: "error", problem: error.message };
  }
  if (reading !== state.reading) return;
  state.connections.set(id, found);
  state.asOf = new Date();
  draw();
}

function storedIds() {
  try {
    const ids = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "[]");
    return Array.isArray(ids) ? ids.filter((id) => typeof id === "string" && id) : [];
  } catch {
    return [];
  }
}

function store(ids) {
  localStorage.setItem(STORAGE_KEY, JSON.stringify(ids));
  refresh();
}

// Display

function draw() {
  const jobs = [...state.connections.values()].flatMap((connection) => connection.jobs);
  jobs.sort((a, b) => (b.started ?? 0) - (a.started ?? 0));
  drawConnections();
  drawChoices(jobs);
  const [status, connection, text] = [$("status").value, $("connection").value, $("text").value.trim().toLowerCase()];
  const shown = jobs.filter(
    (job) =>
      (!status || job.status === status) && (!connection || job.connection === connection) && job.words.includes(text),
  );
  state.page = Math.max(0, Math.min(state.page, Math.ceil(shown.length / PAGE_SIZE) - 1));
  const first = state.page * PAGE_SIZE;
  const part = shown.slice(first, first + PAGE_SIZE);
  $("jobs").replaceChildren(...part.map(row));
  $("none").hidden = part.length > 0;
  $("none").textContent = emptyMessage(jobs);
  $("page").textContent = part.length ? `${first + 1} to ${first + part.length} of ${shown.length}` : "";
  $("previous").disabled = state.page === 0;
  $("next").disabled = first + PAGE_SIZE >= shown.length;
  const asOf = state.asOf ? `, as of ${state.asOf.toLocaleTimeString()}` : "";
  $("summary").textContent = `${shown.length} of ${jobs.length} jobs${asOf}`;
}

function emptyMessage(jobs) {
  if (state.problem) return state.problem;
  if (jobs.length) return "No jobs match the filters.";
  if ([...state.connections.values()].some((connection) => connection.state === "reading")) return "Loading …";
  if (!state.connections.size) return "No connections of type ray_jobs that you may read. Enter another connection above.";
  return "No jobs.";
}

function drawConnections() {
  const stored = storedIds();
  const items = [...state.connections].map(([id, connection]) => {
    const item = element("li", "", { "data-state": connection.state });
    item.append(element("strong", id), " ", element("span", describe(connection)));
    if (stored.includes(id)) {
      const remove = element("button", "×", { type: "button", "aria-label": `Remove ${id}` });
      remove.addEventListener("click", () => store(stored.filter((other) => other !== id)));
      item.append(remove);
    }
    return item;
  });
  $("connections").replaceChildren(...items);
}

function describe(connection) {
  if (connection.state === "reading") return "loading …";
  if (connection.state === "error") return connection.problem;
  const cut = connection.on_record > connection.limit ? ` (the newest ${connection.limit} of ${connection.on_record})` : "";
  const malformed = connection.malformed ? `, and ${connection.malformed} with unreadable details` : "";
  return `${connection.address} · ${connection.jobs.length} jobs${cut}${malformed}`;
}

function drawChoices(jobs) {
  const count = (key) => jobs.reduce((counts, job) => counts.set(job[key], (counts.get(job[key]) ?? 0) + 1), new Map());
  const statuses = count("status");
  const others = [...statuses.keys()].filter((status) => !STATUSES.includes(status));
  const all = [...STATUSES, ...others].map((status) => [status, `${status} (${statuses.get(status) ?? 0})`]);
  choices($("status"), all);
  choices($("connection"), [...state.connections.keys()].map((id) => [id, id]));
}

function choices(select, pairs) {
  const chosen = select.value;
  select.replaceChildren(
    ...[["", "All"], ...pairs].map(([value, text]) => element("option", text, { value })),
  );
  select.value = pairs.some(([value]) => value === chosen) ? chosen : "";
}

function row(job) {
  const made = document.createElement("tr");
  const cell = (attributes, ...parts) => {
    const td = element("td", "", attributes);
    td.append(...parts);
    made.append(td);
  };
  cell({}, element("span", job.status, { class: "status", "data-status": job.status }));
  const entrypoint = element("small", "");
  entrypoint.append(element("code", job.entrypoint));
  const jobLink = link(job.submission_id, job.job_url, { target: "_blank", title: "The job's page in the Ray dashboard" });
  cell({}, ...task(job));
  cell({}, jobLink, job.dag_id ? "" : entrypoint);
  cell({}, job.connection);
  cell({ class: "time" }, time(job.started));
  cell({ class: "time" }, duration(job));
  cell({}, job.message);
  return made;
}

function task(job) {
  if (!job.dag_id) return ["—"];
  const name = `${job.dag_id} · ${job.task_id}${job.map_index >= 0 ? ` [${job.map_index}]` : ""}`;
  const tries = job.try_number > 1 ? `, try ${job.try_number}` : "";
  const small = element("small", `${job.run_id}${tries}${job.task_url ? "" : ", submitted by another Airflow"}`);
  const title = "The task instance in Airflow";
  return [job.task_url ? link(name, job.task_url, { target: "_top", title }) : name, small];
}

function time(milliseconds) {
  if (!milliseconds) return "";
  const date = new Date(milliseconds);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return element("time", `${day} ${clock}`, { datetime: date.toISOString(), title: date.toISOString() });
}

function duration(job) {
  const ended = job.ended ?? (["PENDING", "RUNNING"].includes(job.status) ? Number(state.asOf) : null);
  if (!job.started || !ended) return "";
  const seconds = Math.max(0, Math.round((ended - job.started) / 1000));
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

// Light or dark, as Airflow has set it in the page around this one.

function followTheme() {
  const around = window.parent.document.documentElement;
  const apply = () => {
    const dark = around.classList.contains("dark");
    if (dark || around.classList.contains("light")) document.documentElement.dataset.theme = dark ? "dark" : "light";
  };
  apply();
  new MutationObserver(apply).observe(around, { attributeFilter: ["class"] });
}

function start() {
  if (window.parent !== window) followTheme();
  document.addEventListener("click", follow);
  document.addEventListener("auxclick", follow);
  for (const id of ["status", "connection", "text"]) {
    $(id).addEventListener("input", () => {
      state.page = 0;
      draw();
    });
  }
  $("refresh").addEventListener("click", refresh);
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    $(id).addEventListener("click", () => {
      state.page += step;
      draw();
      document.querySelector(".scroll").scrollTop = 0;
    });
  }
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = $("other").value.trim();
    if (!id) return;
    $("other").value = "";
    store([...new Set([...storedIds(), id])]);
  });
  refresh();
}

start();
