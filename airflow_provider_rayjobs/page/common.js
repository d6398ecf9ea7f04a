// What the page "Ray jobs" and the view of one task's job share. Text from a cluster is always inserted as text, never
// as markup.

/** Milliseconds between two refreshes. */
export const INTERVAL = 15_000;

/** Milliseconds after which a request is given up; longer than Airflow waits for a cluster. */
const REQUEST_TIMEOUT = 60_000;

export const LIVE = ["PENDING", "RUNNING"];

export const framed = window.parent !== window;

export const $ = (id) => document.getElementById(id);

export function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Set an element's text only if it changes: a screen reader reads it again, and a selection in it is lost. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Return a value as text, without the times at which it was read. */
export function signatureOf(value) {
  return JSON.stringify(value, (name, part) => (name === "read_at" ? undefined : part));
}

/** Whether one answer is older than another: the API server's processes each keep answers of their own for a while. */
export function isOlder(answer, shown) {
  return Boolean(answer?.read_at && shown?.read_at && answer.read_at < shown.read_at);
}

export function statusMark(status) {
  return element("span", status, { class: "status", "data-status": status });
}

// Links. Airflow shows these pages in a frame whose links can't open pages outside of it, so they are opened by a link
// in the page around the frame.

export function link(text, url, attributes = {}) {
  let target;
  try {
    target = new URL(url, document.baseURI);
  } catch {
    return element("span", text);
  }
  if (!["http:", "https:"].includes(target.protocol)) return element("span", text);
  return element("a", text, { href: target.href, rel: "noopener noreferrer", ...attributes });
}

/** Return the link to a job's page in the history server, or null if the cluster has none. */
export function historyLink(job) {
  if (!job.history_url) return null;
  return link("History", job.history_url, { target: "_blank", title: "The job's page in the history server" });
}

function follow(event) {
  const clicked = event.target.closest("a[href]");
  if (!clicked || event.button > 1) return;
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

// Requests

/**
 * Read JSON from Airflow.
 *
 * @throws an Error, which is `refused` if asking again can't help, such as without permission.
 */
export async function request(path) {
  let response;
  try {
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT);
    response = await fetch(path, { headers: { Accept: "application/json" }, signal });
  } catch {
    throw new Error("Airflow does not respond.");
  }
  if (response.ok) return response.json();
  if (response.status === 401) {
    throw Object.assign(new Error("Your Airflow session has expired. Reload the whole page to log in again."), { refused: true });
  }
  const { detail } = await response.json().catch(() => ({}));
  const refused = response.status === 403 && (!detail || detail === "Forbidden");
  let text = typeof detail === "string" ? detail : `Airflow responded with HTTP ${response.status}.`;
  if (refused) text = "You don't have permission to read this connection.";
  throw Object.assign(new Error(text), { refused: response.status < 500 });
}

/**
 * Calls a function every INTERVAL while the page is visible and the user has not paused it.
 *
 * @param run starts a refresh; must cope with an earlier one that has not ended.
 * @param pause the check box that is ticked while the page refreshes by itself.
 */
export function refreshRegularly(run, pause) {
  let last = -Infinity;
  const refresh = () => {
    last = performance.now();
    run();
  };
  const due = () => {
    if (!document.hidden && pause.checked && performance.now() - last >= INTERVAL) refresh();
  };
  setInterval(due, 1000);
  document.addEventListener("visibilitychange", due);
  pause.addEventListener("change", due);
  refresh();
  return refresh;
}

// Times, in the zone in which Airflow's UI shows them

function isZone(name) {
  try {
    return typeof name === "string" && name !== "" && Boolean(new Intl.DateTimeFormat("en", { timeZone: name }));
  } catch {
    return false;
  }
}

/** Return the time zone that the user has chosen in Airflow, or else the browser's. */
export function zone() {
  try {
    const chosen = JSON.parse(localStorage.getItem("timezone"));
    if (isZone(chosen)) return chosen;
  } catch {
    // nothing was chosen
  }
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}

export function onZoneChange(run) {
  window.addEventListener("storage", (event) => {
    if (event.key === "timezone") run();
  });
}

function parts(milliseconds) {
  const options = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" };
  const format = new Intl.DateTimeFormat("en", {
    ...options,
    second: "2-digit",
    hourCycle: "h23",
    calendar: "gregory",
    numberingSystem: "latn",
    timeZone: zone(),
  });
  return Object.fromEntries(format.formatToParts(milliseconds).map(({ type, value }) => [type, value]));
}

export function timeText(milliseconds) {
  const { year, month, day, hour, minute, second } = parts(milliseconds);
  return `${year}-${month}-${day} ${hour}:${minute}:${second}`;
}

export function time(milliseconds) {
  if (!milliseconds) return "";
  const utc = new Date(milliseconds).toISOString();
  return element("time", timeText(milliseconds), { datetime: utc, title: `${utc.replace("T", " ").slice(0, 19)} UTC` });
}

/** Return the Unix milliseconds of what an input of the type datetime-local holds; NaN if it is empty. */
export function fromLocal(text) {
  const utc = Date.parse(`${text}Z`);
  const offset = (at) => Date.parse(`${timeText(at).replace(" ", "T")}Z`) - at;
  if (Number.isNaN(utc)) return NaN;
  return utc - offset(utc - offset(utc));
}

export function toLocal(milliseconds) {
  return timeText(milliseconds).replace(" ", "T").slice(0, 16);
}

export function durationText(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

// Light or dark, and the background, as Airflow has set them in the page around this one.

function followTheme() {
  const around = window.parent.document.documentElement;
  const { dataset, style } = document.documentElement;
  const apply = () => {
    const dark = around.classList.contains("dark");
    if (dark || around.classList.contains("light")) dataset.theme = dark ? "dark" : "light";
    const colors = [around.querySelector("body"), around].map((node) => getComputedStyle(node).backgroundColor);
    const opaque = colors.find((color) => color !== "rgba(0, 0, 0, 0)");
    if (opaque) style.setProperty("--back", opaque);
  };
  apply();
  new MutationObserver(apply).observe(around, { attributeFilter: ["class"] });
}

if (framed) {
  followTheme();
  document.addEventListener("click", follow);
  document.addEventListener("auxclick", follow);
}
