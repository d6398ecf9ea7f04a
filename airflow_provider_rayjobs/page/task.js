// The view of one task's Ray job, on the task instance's page in Airflow.
import * as common from "./common.js";
import { $, element, setText } from "./common.js";

/** Milliseconds after a job's end until all is known of it: Ray learns of failed tasks and dead nodes a little later. */
const SETTLING = 30_000;

const state = { answer: null, problem: "" };
const task = fromAddress(window.location.search);

/** Read the task instance from the address. Airflow 3.1 does not quote its names there, so a "+" is a plus sign. */
function fromAddress(search) {
  const named = /^\?dag_id=(.*)&run_id=(.*)&task_id=(.*)&map_index=(.*)$/.exec(search);
  if (!named) return null;
  const [dag_id, run_id, task_id, map_index] = named.slice(1).map((text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  });
  return { dag_id, run_id, task_id, map_index: /^\d+$/.test(map_index) ? map_index : "-1" };
}

let reading = false;

/** Return the id of the job that is shown, if nothing changes of it any more. */
function settledJob() {
  const job = state.problem || state.answer?.problem ? null : state.answer?.job;
  if (!job?.status || common.LIVE.includes(job.status)) return "";
  return job.ended && job.read_at - job.ended < SETTLING ? "" : job.submission_id;
}

/**
 * Read the task's job.
 *
 * @param anew whether to read a job again that has ended, and not only whether the task has another one by now.
 */
async function refresh(anew = false) {
  if (reading) return; // not answered yet
  reading = true;
  try {
    if (!task) throw new Error("This page belongs to a task instance. Open it from there.");
    const { dag_id, ...rest } = task;
    const query = new URLSearchParams({ ...rest, settled: anew ? "" : settledJob() });
    const answer = await common.request(`api/dags/${encodeURIComponent(dag_id)}/job?${query}`);
    const [job, shown] = [answer.job, state.answer?.job];
    const older = job?.submission_id === shown?.submission_id && common.isOlder(job, shown);
    if (!answer.unchanged && !older) state.answer = answer;
    state.problem = "";
  } catch (error) {
    state.problem = error.message;
  }
  reading = false;
  draw();
}

// Display

let drawn = "";

function draw() {
  const { answer, problem } = state;
  const trouble = problem || answer?.problem || "";
  setText($("trouble"), trouble);
  $("trouble").hidden = !trouble;
  setText($("summary"), answer?.job?.status ?? "");
  const { read_at } = answer?.job ?? {};
  setText($("as-of"), read_at ? `as of ${common.timeText(read_at).slice(11)}, times in ${common.zone()}` : "");
  $("none").hidden = Boolean(trouble) || Boolean(answer?.job);
  if (answer && !answer.job) setText($("none"), "This task has no Ray job: its latest try has submitted none.");
  $("job").hidden = !answer?.job;
  if (!answer?.job) return;
  const shownUntil = common.LIVE.includes(answer.job.status) ? answer.job.read_at : null; // the end of its bar
  const signature = common.signatureOf([answer.job, shownUntil, common.zone()]);
  if (signature === drawn) return;
  drawn = signature;
  const log = $("log");
  const follows = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  const scrolled = log?.scrollTop ?? 0;
  const focused = [...$("job").querySelectorAll("a, pre")].indexOf(document.activeElement);
  replaceChanged($("job"), sections(answer.job));
  if (focused >= 0) $("job").querySelectorAll("a, pre")[focused]?.focus({ preventScroll: true });
  if ($("log") && $("log") !== log) $("log").scrollTop = follows ? $("log").scrollHeight : scrolled;
}

/** Replace only the children that differ, so that text stays selected and scrolled in the others. */
function replaceChanged(node, wanted) {
  wanted.forEach((child, index) => {
    const old = node.children[index];
    if (!old) node.append(child);
    else if (!old.isEqualNode(child)) old.replaceWith(child);
  });
  while (node.children.length > wanted.length) node.lastChild.remove();
}

function sections(job) {
  const made = [headline(job)];
  const add = (title, ...content) => {
    const shown = content.filter(Boolean);
    if (!shown.length) return;
    const section = element("section");
    section.append(element("h2", title), ...shown);
    made.push(section);
  };
  if (job.status) add("Timeline", ...timeline(job));
  add("Why it waits", told(job.waits, "Ray gives no reason."));
  add("Why it failed", told(job.failure, ""));
  add("Progress", told(job.progress, ""), told(job.tasks, ""));
  add("Last lines of the log", told(job.log, "The log is empty.", { id: "log" }));
  add("Ray's message", job.message && element("pre", job.message));
  add("Entrypoint", job.entrypoint && element("pre", job.entrypoint));
  return made;
}

/** Return a part of the view: its text or lines, or in its place the reason why there are none. */
function told(part, empty, attributes = {}) {
  if (!part) return null;
  if (part.problem) return element("p", part.problem, { class: "problem" });
  if (part.lines?.length) return element("pre", part.lines.join("\n"), { tabindex: "0", ...attributes });
  const text = part.text || empty;
  return text ? element("p", text, { class: "said" }) : null;
}

function headline(job) {
  const made = element("div", "", { class: "headline" });
  if (job.status) made.append(common.statusMark(job.status));
  const title = "The job's page in the Ray dashboard";
  made.append(job.job_url ? common.link(job.submission_id, job.job_url, { target: "_blank", title }) : element("span", job.submission_id));
  if (job.cluster) made.append(element("span", job.cluster, { class: "faint" }));
  const history = common.historyLink(job);
  if (history) made.append(history);
  if (job.connection) made.append(element("span", [job.connection, job.address].filter(Boolean).join(" · "), { class: "faint" }));
  const failed = [job.error_type, job.exit_code === null || job.exit_code === undefined ? "" : `exit code ${job.exit_code}`];
  if (job.status === "FAILED" && !job.failure?.text) made.append(element("span", failed.filter(Boolean).join(", "), { class: "faint" }));
  if (job.node_ip) made.append(element("span", `on node ${job.node_ip}`, { class: "faint" }));
  const others = new URLSearchParams({ sort: "-submitted", dag: task.dag_id, text: task.run_id });
  made.append(common.link("All jobs of this run", `../plugin/ray-jobs#${others}`, { target: "_top" }));
  return made;
}

/** Return the stretches of time from the submission to the end, as a bar and in words. */
function timeline({ submitted, running, ended, status, read_at }) {
  if (!submitted) return [];
  const until = ended ?? read_at;
  const live = common.LIVE.includes(status);
  let stretches;
  if (status === "PENDING") stretches = [["PENDING", submitted, until]];
  else if (running >= submitted && running <= until) stretches = [["PENDING", submitted, running], ["RUNNING", running, until]];
  else stretches = [["PENDING and RUNNING", submitted, until]];
  const bar = element("div", "", { class: "bar", "aria-hidden": "true" });
  const list = element("ol", "", { class: "timeline" });
  const step = (name, at, note = "") => {
    const item = element("li");
    item.append(common.statusMark(name), " ", common.time(at), note && element("span", ` ${note}`, { class: "faint" }));
    list.append(item);
  };
  stretches.forEach(([name, from, to], index) => {
    const piece = element("span", "", { "data-status": name });
    piece.style.flexGrow = String(Math.max(to - from, 1));
    bar.append(piece);
    const sofar = live && index === stretches.length - 1 ? " so far" : "";
    step(name, from, `for ${common.durationText(to - from)}${sofar}`);
  });
  if (!live && ended) step(status, ended, `${common.durationText(ended - submitted)} after the submission`);
  return [bar, list];
}

common.onZoneChange(draw);
common.refreshRegularly(() => refresh(), $("auto"));
$("refresh").addEventListener("click", () => refresh(true));
