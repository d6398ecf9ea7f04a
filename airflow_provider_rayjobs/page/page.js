// The page "Ray jobs": reads the jobs of each connection, filters and sorts them, and shows them page by page.
// What is shown is kept in the address, after "#", so that it can be shared.
import * as common from "./common.js";
import { $, element, setText, signatureOf } from "./common.js";

const PAGE_SIZE = 50;
const READERS = 4; // connections that are read at the same time
const STORAGE_KEY = "ray-jobs-connections"; // in the browser's storage: the connection ids that the user has entered
const STATUSES = ["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"];
const NO_DAG = "—";
const UNITS = { h: 3_600_000, d: 86_400_000 };

const COLUMNS = {
  status: { title: "Status", by: (job) => STATUSES.indexOf(job.status), fill: statusCell },
  task: { title: "Task in Airflow", by: (job) => [job.dag_id, job.task_id, String(job.map_index).padStart(9)].join("\n"), fill: taskCell },
  job: { title: "Job on Ray", by: (job) => job.submission_id, fill: jobCell },
  connection: { title: "Connection", by: (job) => job.connections.join(), fill: (job) => [job.connections.join(", ")] },
  submitted: { title: "Submitted", by: (job) => job.started ?? 0, fill: (job) => [common.time(job.started)] },
  duration: { title: "Duration", by: (job) => lasted(job) ?? -1, fill: durationCell },
  message: { title: "Message", by: (job) => job.message, fill: (job) => [job.message] },
};

const DEFAULTS = {
  sort: "-submitted", page: "1", status: "", connection: "", dag: "", since: "", until: "", text: "",
};

const state = {
  connections: new Map(), // id → { jobs, answer, problem, since }, where since is when it could first not be read
  open: new Map(), // key of a job → its details, as far as they are read
  filters: { ...DEFAULTS },
  made: new Map(), // id of a Kubernetes connection → { clusters, problem }
  problem: "", // why the connections can't be listed
  page: 1,
};

// Reading

let listing = false;
const waiting = new Set(); // connections that are being read or wait for it: none is asked again before it answers
const queue = [];
let active = 0;

async function refresh() {
  if (listing) return;
  listing = true;
  let listed = [...state.connections.keys()];
  try {
    listed = await common.request("api/connections");
    state.problem = "";
  } catch (error) {
    state.problem = error.message;
  } finally {
    listing = false;
  }
  const asked = state.filters.connection ? [state.filters.connection] : []; // by a shared address
  const ids = [...new Set([...listed, ...storedIds(), ...asked])];
  state.connections = new Map(ids.map((id) => [id, state.connections.get(id) ?? { jobs: [] }]));
  draw();
  if (state.problem) return;
  for (const id of ids) {
    if (waiting.has(id)) continue;
    waiting.add(id);
    queue.push(id);
  }
  readNext();
  readDetailsAgain();
  readMade();
}

let readingMade = false;

/** Read the clusters that KubeRay makes for tasks. */
async function readMade() {
  if (readingMade) return;
  readingMade = true;
  let found = [];
  try {
    const ids = await common.request("api/kubernetes");
    const one = async (id) => {
      try {
        return [id, await common.request(`api/kubernetes/${encodeURIComponent(id)}/clusters`)];
      } catch (error) {
        return [id, { clusters: [], problem: error.message }];
      }
    };
    found = await Promise.all(ids.map(one));
  } catch (error) {
    found = [["Kubernetes", { clusters: [], problem: error.message }]];
  } finally {
    readingMade = false;
  }
  state.made = new Map(found);
  draw();
}

function readNext() {
  while (active < READERS && queue.length) {
    const id = queue.shift();
    active += 1;
    read(id).finally(() => {
      active -= 1;
      waiting.delete(id);
      readNext();
    });
  }
}

async function read(id) {
  const known = state.connections.get(id);
  let found;
  try {
    const { jobs, ...answer } = await common.request(`api/connections/${encodeURIComponent(id)}/jobs`);
    const { read_at } = answer;
    found = { jobs: jobs.map((job) => ({ ...job, read_at, words: words(job) })), answer: { ...answer, number: jobs.length } };
  } catch (error) {
    found = { jobs: [], problem: error.message };
    if (known?.answer && !error.refused) found = { ...known, ...found, jobs: known.jobs, since: known.since ?? Date.now() };
  }
  if (common.isOlder(found.answer, known?.answer)) found = { jobs: known.jobs, answer: known.answer };
  if (!state.connections.has(id)) return; // it was removed meanwhile
  state.connections.set(id, found);
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

/** Return the key of a connection's cluster: connections with the same key lead to the same jobs. */
function clusterOf(answer) {
  return answer.session ?? answer.address;
}

/**
 * Return each job once, with the connections through which it is seen.
 *
 * A cluster itself says which session it is, so a row never replaces a different one of another connection.
 */
function merged() {
  const jobs = new Map();
  for (const [id, { jobs: seen, answer }] of state.connections) {
    for (const job of seen) {
      let key = `${clusterOf(answer)}\n${job.submission_id}`;
      if (jobs.has(key) && saidOf(jobs.get(key)) !== saidOf(job)) key += `\n${id}`;
      const first = jobs.get(key) ?? { ...job, key, connections: [] };
      jobs.set(key, {
        ...first,
        task_url: first.task_url ?? job.task_url,
        read_at: Math.max(first.read_at, job.read_at),
        connections: [...first.connections, id],
      });
    }
  }
  return [...jobs.values()];
}

/** Return what a cluster says of a job, as text; the links are of the connection. */
function saidOf({ status, started, ended, dag_id, run_id, task_id, map_index, try_number, message, entrypoint }) {
  return JSON.stringify([status, started, ended, dag_id, run_id, task_id, map_index, try_number, message, entrypoint]);
}

// What is shown, and the address that says so

function fromAddress(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  state.filters = Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, given.get(name) || value]));
  if (!COLUMNS[state.filters.sort.replace(/^-/, "")]) state.filters.sort = DEFAULTS.sort;
}

function toAddress() {
  // The order is always said, so that the address is never bare: for Airflow that would be another page.
  const said = Object.entries(state.filters).filter(([name, value]) => name === "sort" || value !== DEFAULTS[name]);
  return `#${new URLSearchParams(said)}`;
}

/**
 * Change what is shown, and the address.
 *
 * @param push whether the browser's back button leads back to what was shown before.
 */
function show(changes, push = true) {
  state.filters = { ...state.filters, page: "1", ...changes };
  writeAddress(push);
  draw();
}

function writeAddress(push) {
  const fragment = toAddress();
  if (fragment === location.hash) return;
  if (!common.framed) {
    if (push) history.pushState(null, "", fragment);
    else history.replaceState(null, "", fragment);
    return;
  }
  // The address that a user sees is that of the page around this one. Its state belongs to Airflow's UI.
  history.replaceState(null, "", fragment);
  const around = window.parent;
  const url = new URL(around.location.href);
  url.hash = fragment;
  const kept = around.history.state;
  if (push) around.history.pushState(kept && { ...kept, idx: (kept.idx ?? 0) + 1 }, "", url.href);
  else around.history.replaceState(kept, "", url.href);
}

function followAddress() {
  const again = (hash) => {
    fromAddress(hash);
    if (common.framed) history.replaceState(null, "", toAddress());
    draw();
  };
  window.addEventListener("popstate", () => again(location.hash));
  window.addEventListener("hashchange", () => again(location.hash));
  if (!common.framed) return;
  const around = window.parent;
  const moved = () => again(around.location.hash);
  around.addEventListener("popstate", moved);
  window.addEventListener("pagehide", () => around.removeEventListener("popstate", moved));
}

function bounds({ since, until }) {
  const last = /^(\d{1,4})([hd])$/.exec(since);
  const from = last ? Date.now() - Number(last[1]) * UNITS[last[2]] : Date.parse(since);
  const to = Date.parse(until);
  return [Number.isNaN(from) ? -Infinity : from, Number.isNaN(to) ? Infinity : to];
}

function selected(jobs) {
  const { status, connection, dag, text, sort } = state.filters;
  const [from, to] = bounds(state.filters);
  const timed = from !== -Infinity || to !== Infinity;
  const wanted = text.trim().toLowerCase();
  const found = jobs.filter(
    (job) =>
      (!status || job.status === status) &&
      (!connection || job.connections.includes(connection)) &&
      (!dag || job.dag_id === (dag === NO_DAG ? "" : dag)) &&
      (!timed || (job.started !== null && job.started >= from && job.started <= to)) &&
      (!wanted || job.words.includes(wanted)),
  );
  const { by } = COLUMNS[sort.replace(/^-/, "")];
  const sign = sort.startsWith("-") ? -1 : 1;
  const keyed = found.map((job) => [by(job), job]);
  keyed.sort(([a, one], [b, other]) => sign * compare(a, b) || (other.started ?? 0) - (one.started ?? 0) || compare(one.key, other.key));
  return keyed.map(([, job]) => job);
}

function words(job) {
  return [job.submission_id, job.dag_id, job.run_id, job.task_id, job.message, job.entrypoint].join("\n").toLowerCase();
}

function compare(a, b) {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

// Display

function draw() {
  const jobs = merged();
  drawClusters();
  drawMade();
  drawFilters(jobs);
  drawHeadings();
  drawProblems();
  const shown = selected(jobs);
  const pages = Math.max(1, Math.ceil(shown.length / PAGE_SIZE));
  const page = Math.min(Math.max(1, Number.parseInt(state.filters.page, 10) || 1), pages);
  state.page = page;
  const first = (page - 1) * PAGE_SIZE;
  const part = shown.slice(first, first + PAGE_SIZE);
  drawRows(part);
  setText($("none"), part.length ? "" : emptyMessage(jobs));
  $("none").hidden = part.length > 0 || !$("none").textContent;
  setText($("page"), part.length ? `${first + 1} to ${first + part.length} of ${shown.length}` : "");
  $("previous").disabled = page === 1;
  $("next").disabled = page === pages;
  setText($("summary"), `${shown.length} of ${jobs.length} jobs`);
  const read = [...state.connections.values()].flatMap(({ answer }) => (answer ? [answer.read_at] : []));
  setText($("as-of"), read.length ? `as of ${common.timeText(Math.min(...read)).slice(11)}` : "");
  setText($("trouble"), state.problem);
  $("trouble").hidden = !state.problem;
}

/** Put new children into an element, unless they would be the same. */
function fill(node, signature, make) {
  if (node.dataset.signature === signature) return;
  const focused = [...node.querySelectorAll("a, button")].indexOf(document.activeElement);
  node.dataset.signature = signature;
  node.replaceChildren(...make());
  if (focused >= 0) node.querySelectorAll("a, button")[focused]?.focus({ preventScroll: true });
}

function emptyMessage(jobs) {
  if (state.problem) return "";
  if (jobs.length) return "No jobs match the filters.";
  const connections = [...state.connections.values()];
  if (connections.some(({ answer, problem }) => !answer && !problem)) return "Loading …";
  if (!connections.length) return "No connections of type ray_jobs that you may read. Enter another connection above.";
  return connections.every(({ problem }) => problem) ? "" : "No jobs.";
}

function drawClusters() {
  const clusters = new Map();
  for (const [id, { answer, problem }] of state.connections) {
    const key = answer && !problem ? clusterOf(answer) : `\n${id}`;
    const known = clusters.get(key);
    clusters.set(key, { ids: [...(known?.ids ?? []), id], answer, problem });
  }
  const stored = storedIds();
  fill($("clusters"), signatureOf([[...clusters], stored]), () =>
    [...clusters.values()].map(({ ids, answer, problem }) => {
      const item = element("li", "", { "data-state": problem ? "error" : "read" });
      ids.forEach((id, index) => {
        item.append(index ? ", " : "", element("strong", id));
        if (!stored.includes(id)) return;
        const remove = element("button", "×", { type: "button", "aria-label": `Remove ${id}` });
        remove.addEventListener("click", () => store(storedIds().filter((other) => other !== id)));
        item.append(remove);
      });
      item.append(" ", element("span", describe(answer, problem)));
      return item;
    }),
  );
}

function drawMade() {
  const lines = [...state.made].flatMap(([id, { clusters, problem }]) => [
    ...clusters.map((cluster) => madeLine(cluster)),
    ...(problem ? [element("li", `${id}: ${problem}`, { class: "problem" })] : []),
  ]);
  $("made").hidden = !lines.length;
  fill($("made"), signatureOf([[...state.made], common.zone()]), () => lines);
}

/** Return the line of a cluster that KubeRay makes: its name, its task, since when, and its state. */
function madeLine(cluster) {
  const line = element("li");
  const index = cluster.map_index >= 0 ? ` [${cluster.map_index}]` : "";
  const task = common.link(`${cluster.dag_id} · ${cluster.task_id}${index}`, cluster.task_url, { target: "_top", title: cluster.run_id });
  const whose = cluster.shared ? " for several tasks of " : " for ";
  line.append(element("strong", `${cluster.namespace}/${cluster.name}`), whose, task, " since ", common.time(cluster.since));
  line.append(" · ", element("span", cluster.state));
  return line;
}

function describe(answer, problem) {
  if (problem) return "can't be read";
  if (!answer) return "loading …";
  const cut = answer.on_record > answer.limit ? ` (the newest ${answer.limit} of ${answer.on_record})` : "";
  const malformed = answer.malformed ? `, and ${answer.malformed} with unreadable details` : "";
  const count = `${answer.number} ${answer.number === 1 ? "job" : "jobs"}${cut}${malformed}`;
  return [answer.address, count, ...resources(answer.resources)].join(" · ");
}

function resources(found) {
  if (!found) return [];
  const amount = (number) => String(Math.round(number * 100) / 100);
  const free = ["CPU", "GPU"]
    .filter((name) => found[name])
    .map((name) => `${amount(found[name].free)} of ${amount(found[name].total)} ${name}s free`);
  return [`${found.nodes} ${found.nodes === 1 ? "node" : "nodes"}`, ...free];
}

function drawFilters(jobs) {
  const counts = new Map();
  for (const { status } of jobs) counts.set(status, (counts.get(status) ?? 0) + 1);
  const others = [...counts.keys()].filter((status) => !STATUSES.includes(status));
  const dags = [...new Set(jobs.map((job) => job.dag_id || NO_DAG))].sort();
  choices("status", [...STATUSES, ...others].map((status) => [status, `${status} (${counts.get(status) ?? 0})`]));
  choices("connection", [...state.connections.keys()].map((id) => [id, id]));
  choices("dag", dags.map((dag) => [dag, dag === NO_DAG ? "none" : dag]));
  const { since, until, text } = state.filters;
  const range = $("range");
  const custom = Boolean(until) || (Boolean(since) && ![...range.options].some(({ value }) => value === since));
  range.value = custom ? "custom" : since;
  for (const field of document.querySelectorAll(".custom")) field.hidden = range.value !== "custom";
  const limits = bounds(state.filters);
  for (const [index, id] of ["from", "to"].entries()) {
    const value = custom && Number.isFinite(limits[index]) ? common.toLocal(limits[index]) : "";
    if (document.activeElement !== $(id)) $(id).value = value;
  }
  if (document.activeElement !== $("text")) $("text").value = text;
}

function choices(id, pairs) {
  const chosen = state.filters[id];
  const known = pairs.some(([value]) => value === chosen) || !chosen;
  const all = [["", "All"], ...pairs, ...(known ? [] : [[chosen, chosen]])];
  const select = $(id);
  fill(select, JSON.stringify(all), () => all.map(([value, text]) => element("option", text, { value })));
  select.value = chosen;
}

function drawHeadings() {
  const headings = $("headings");
  if (headings.children.length === 1) {
    for (const name of Object.keys(COLUMNS)) {
      const heading = element("th", "", { scope: "col", role: "columnheader" });
      const button = element("button", "", { type: "button", "data-sort": name });
      button.addEventListener("click", () => {
        const newestFirst = ["submitted", "duration"].includes(name);
        const [first, second] = newestFirst ? [`-${name}`, name] : [name, `-${name}`];
        show({ sort: state.filters.sort === first ? second : first });
      });
      heading.append(button);
      headings.append(heading);
    }
  }
  for (const button of headings.querySelectorAll("button")) {
    const name = button.dataset.sort;
    setText(button, COLUMNS[name].title);
    if (name === "submitted") button.append(" ", element("small", common.zone()));
    const sorted = { [name]: "ascending", [`-${name}`]: "descending" }[state.filters.sort];
    if (sorted) button.parentElement.setAttribute("aria-sort", sorted);
    else button.parentElement.removeAttribute("aria-sort");
  }
}

function drawProblems() {
  const { connection } = state.filters;
  const problems = [...state.connections].filter(([id, { problem }]) => problem && (!connection || connection === id));
  fill($("problems"), JSON.stringify([problems.map(([id, { problem, since, answer }]) => [id, problem, since, answer?.read_at]), common.zone()]), () =>
    problems.map(([id, { problem, answer, since }]) => {
      const row = element("tr", "", { role: "row", class: "problem" });
      const cell = element("td", "", { role: "cell", colspan: Object.keys(COLUMNS).length + 1 });
      const clock = (milliseconds) => common.timeText(milliseconds).slice(11);
      const told = answer
        ? ` The jobs of this connection are as of ${clock(answer.read_at)}, and can't be read since ${clock(since)}: ${problem}`
        : ` The jobs of this connection can't be read: ${problem}`;
      cell.append(element("strong", id), told);
      row.append(cell);
      return row;
    }),
  );
}

// Rows are kept from one refresh to the next, with the focus, the selected text and the place of the scroll bar in them.

const rows = new Map(); // key of a job → its row
let made = 0;

function drawRows(jobs) {
  const body = $("jobs");
  const focused = document.activeElement;
  const wanted = jobs.flatMap((job) => {
    const row = rows.get(job.key) ?? newRow(job.key);
    rows.set(job.key, row);
    row.job = job;
    fillRow(row);
    return state.open.has(job.key) ? [row.main, row.details] : [row.main];
  });
  wanted.forEach((row, index) => {
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
  });
  while (body.children.length > wanted.length) body.lastChild.remove();
  for (const [key, row] of rows) if (!row.main.isConnected) rows.delete(key);
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

function newRow(key) {
  const main = element("tr", "", { role: "row", class: "job" });
  const details = element("tr", "", { role: "row", class: "details", id: `details-${(made += 1)}` });
  details.append(element("td", "", { role: "cell", colspan: Object.keys(COLUMNS).length + 1 }));
  const toggle = element("button", "", { type: "button", "aria-controls": details.id });
  toggle.addEventListener("click", () => toggleDetails(key));
  const first = element("td", "", { role: "cell", class: "toggle" });
  first.append(toggle);
  main.append(first, ...Object.keys(COLUMNS).map((name) => element("td", "", { role: "cell", class: `col-${name}` })));
  return { main, details, toggle };
}

function fillRow(row) {
  const { job } = row;
  const opened = state.open.get(job.key);
  row.toggle.setAttribute("aria-expanded", String(Boolean(opened)));
  row.toggle.setAttribute("aria-label", `Details of ${job.submission_id}`);
  Object.values(COLUMNS).forEach((column, index) => {
    const content = column.fill(job);
    const signature = content.map((part) => (part.nodeType ? `${part.textContent} ${part.href ?? ""}` : part)).join("\n");
    fill(row.main.children[index + 1], signature, () => content);
  });
  if (opened) fill(row.details.firstChild, signatureOf([opened, common.zone()]), () => detailsOf(opened));
}

function statusCell(job) {
  return [common.statusMark(job.status)];
}

function jobCell(job) {
  const title = "The job's page in the Ray dashboard";
  const page = common.link(job.submission_id, job.job_url, { target: "_blank", title });
  const cell = [page];
  const history = common.historyLink(job);
  if (history) {
    const small = element("small");
    small.append(history);
    cell.push(small);
  }
  if (!job.dag_id && job.entrypoint) {
    const entrypoint = element("small");
    entrypoint.append(element("code", job.entrypoint));
    cell.push(entrypoint);
  }
  return cell;
}

function taskCell(job) {
  if (!job.dag_id) return [element("span", "—", { class: "nothing" })];
  const name = `${job.dag_id} · ${job.task_id}${job.map_index >= 0 ? ` [${job.map_index}]` : ""}`;
  const tries = job.try_number > 1 ? `, try ${job.try_number}` : "";
  const small = element("small", `${job.run_id}${tries}${job.task_url ? "" : ", submitted by another Airflow"}`);
  const title = "The task instance in Airflow";
  return [job.task_url ? common.link(name, job.task_url, { target: "_top", title }) : name, small];
}

/** Return for how many milliseconds a job has lasted, from its submission to its end or to now; null if unknown. */
function lasted(job) {
  const ended = job.ended ?? (common.LIVE.includes(job.status) ? job.read_at : null);
  return job.started && ended ? ended - job.started : null;
}

function durationCell(job) {
  const milliseconds = lasted(job);
  return [milliseconds === null ? "" : common.durationText(milliseconds)];
}

// Details of a job: its whole message and entrypoint

function toggleDetails(key) {
  if (state.open.delete(key)) {
    draw();
    return;
  }
  state.open.set(key, {});
  draw();
  readDetails(key);
}

function readDetailsAgain() {
  for (const [key, opened] of state.open) {
    const job = rows.get(key)?.job;
    const settled = opened.found && !common.LIVE.includes(opened.found.status) && opened.found.status === job?.status;
    if (job && !settled) readDetails(key);
  }
}

const reading = new Set();

async function readDetails(key) {
  const job = rows.get(key)?.job;
  if (!job || reading.has(key)) return;
  reading.add(key);
  const [connection, id] = [job.connections[0], job.submission_id].map(encodeURIComponent);
  let opened;
  try {
    opened = { found: await common.request(`api/connections/${connection}/jobs/${id}`) };
  } catch (error) {
    opened = { problem: error.message };
  }
  reading.delete(key);
  if (!state.open.has(key) || common.isOlder(opened.found, state.open.get(key).found)) return;
  state.open.set(key, opened);
  draw();
}

function detailsOf({ found, problem }) {
  if (problem) return [element("p", problem, { class: "problem" })];
  if (!found) return [element("p", "Loading …")];
  const list = element("dl");
  const add = (name, ...values) => {
    const shown = values.filter(Boolean);
    if (shown.length) list.append(element("dt", name), ...shown.map((value) => wrapped(value)));
  };
  add("Why it waits", found.waits && (found.waits.text || found.waits.problem || "Ray gives no reason."));
  add("Message", found.message && element("pre", found.message));
  add("Entrypoint", found.entrypoint && element("pre", found.entrypoint));
  add("Ray's error type", found.error_type);
  add("Exit code", found.exit_code === null ? "" : String(found.exit_code));
  add("Node", found.node_ip);
  add("Ended", common.time(found.ended));
  return [list];
}

function wrapped(value) {
  const item = element("dd");
  item.append(value);
  return item;
}

// Start

function start() {
  fromAddress(location.hash || (common.framed ? window.parent.location.hash : ""));
  state.filters.text ||= $("text").value; // typed while this script was loading
  writeAddress(false);
  followAddress();
  common.onZoneChange(draw);
  for (const id of ["status", "connection", "dag"]) $(id).addEventListener("change", () => show({ [id]: $(id).value }));
  $("text").addEventListener("input", () => show({ text: $("text").value }, false));
  $("range").addEventListener("change", () => {
    const day = new Date(Date.now() - UNITS.d).toISOString();
    show({ since: $("range").value === "custom" ? day : $("range").value, until: "" });
  });
  const limit = (id) => {
    const milliseconds = common.fromLocal($(id).value);
    return Number.isNaN(milliseconds) ? "" : new Date(milliseconds).toISOString();
  };
  for (const id of ["from", "to"]) {
    $(id).addEventListener("change", () => show({ since: limit("from"), until: limit("to") }));
  }
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    $(id).addEventListener("click", () => {
      show({ page: String(state.page + step) });
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
  const refreshNow = common.refreshRegularly(refresh, $("auto"));
  $("refresh").addEventListener("click", refreshNow);
}

start();
