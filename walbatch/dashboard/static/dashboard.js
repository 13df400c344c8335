// Keeps the page current: listens to api/live while somebody looks, and puts what comes into its places.
// Whatever comes from outside becomes text, never markup.

import { draw } from "./chart.js";
import { attempt, discard, flush, pause, replay, resend, resume, takeToken } from "./changes.js";

const KEPT_BATCHES = 50;
const KEPT_SAMPLES = 361;
const DEAD_PAUSE_MS = 5000;  // between two looks at the letters: there may be many

const byId = (id) => document.getElementById(id);

let source = null;
let fresh = true;  // the next event is the first of its stream, and has all of it
let lostAt = null;
let samples = [];
let batches = [];
let destinations = [];
let lettersSeen = "";
let lettersShown = "";
let lettersAt = 0;

function watch() {
  if (source) return;
  fresh = true;
  source = new EventSource("api/live");
  source.onopen = () => {
    fresh = true;
    lostAt = null;
    put(byId("connection"), "live");
  };
  source.onmessage = (event) => show(JSON.parse(event.data));
  source.onerror = () => {
    lostAt ??= new Date().toLocaleTimeString("sv");
    put(byId("connection"), `no answer since ${lostAt}, trying again`);
    if (source.readyState !== EventSource.CLOSED) return;
    source = null;  // a browser gives up by itself when the answer is no stream
    setTimeout(watch, DEAD_PAUSE_MS);
  };
}

function unwatch() {
  source?.close();
  source = null;
}

function show({ stats, shown, words, batches: newBatches, samples: newSamples }) {
  const first = fresh;
  fresh = false;
  if (first) {
    samples = [];
    batches = [];
    lettersSeen = "";
  }
  for (const place of document.querySelectorAll("[data-shown]")) put(place, shown[place.dataset.shown]);
  document.title = `walbatch: ${shown.state}`;
  byId("state").dataset.state = shown.state;
  samples = [...samples, ...newSamples.map((sample) => ({ ...sample, at: Date.parse(sample.at) }))].slice(-KEPT_SAMPLES);
  batches = [...batches, ...newBatches].slice(-KEPT_BATCHES);
  destinations = stats.destinations.map((destination) => destination.name);
  byId("replay").disabled = !destinations.length;
  showDestinations(stats.destinations, words);
  if (first || newSamples.length) drawChart();
  if (first || newBatches.length) showBatches();
  showLettersIfNew(stats);
}

function put(place, text) {
  if (place.textContent !== text) place.textContent = text;  // unchanged text is not announced, and keeps its selection
}

function drawChart() {
  draw(byId("chart"), samples, Math.max(Date.now(), samples.at(-1)?.at ?? 0));
}

// ---------------------------------------------------------------- destinations

const rows = new Map();

// Rows stay the same elements, so that whoever is on a button with the keyboard stays there.
function showDestinations(found, words) {
  for (const destination of found) {
    if (!rows.has(destination.name)) rows.set(destination.name, destinationRow(destination.name));
    const row = rows.get(destination.name);
    row.paused = Boolean(destination.paused_at);
    row.state.dataset.state = words[destination.name];
    put(row.state, words[destination.name]);
    put(row.numbers, numbersOf(destination));
    put(row.button, row.paused ? "Resume" : "Pause");
    row.button.setAttribute("aria-label", `${row.paused ? "Resume" : "Pause"} delivery to ${destination.name}`);
  }
  for (const [name, row] of rows) {
    if (!destinations.includes(name)) {
      row.item.remove();
      rows.delete(name);
    }
  }
}

function destinationRow(name) {
  const row = {
    state: make("span", { className: "state" }), numbers: make("span", { className: "quiet" }),
    paused: false, button: make("button", { type: "button" }), flush: make("button", { type: "button" }, "Flush"),
  };
  row.flush.setAttribute("aria-label", `Flush what waits for ${name}`);
  row.button.onclick = () => attempt(() => (row.paused ? resume(name) : pause(name)));
  row.flush.onclick = () => attempt(() => flush(name));
  row.item = make("li", {},
    make("div", { className: "what" }, make("strong", {}, name), row.state, row.numbers),
    make("div", { className: "buttons" }, row.button, row.flush));
  byId("destinations").append(row.item);
  return row;
}

function numbersOf(destination) {
  const sum = (name) => destination.lanes.reduce((total, lane) => total + lane[name], 0);
  const sent = sum("sent") + sum("purged");
  const parts = [`${whole(sum("pending"))} pending`, `${whole(sum("in_flight"))} in flight`, `${whole(sent)} sent`];
  if (destination.failing_since) parts.push(`failing since ${time(destination.failing_since, true)}`);
  if (destination.failing_since && destination.retry_in_s) parts.push(`next try in ${Math.ceil(destination.retry_in_s)} s`);
  return parts.join(" · ");
}

// ---------------------------------------------------------------- batches

function showBatches() {
  byId("batches-none").hidden = batches.length > 0;
  byId("batches").replaceChildren(...batches.toReversed().map((batch) => make("tr", { role: "row" },
    cell(time(batch.finished_at)),
    cell(`${batch.destination} ${batch.lane}`),
    cell(whole(batch.events), "number", "events"),
    cell(size(batch.payload_bytes), "number"),
    cell(whole(batch.attempt), "number", "attempt"),
    cell(took(batch.duration_s), "number"),
    cell(becameOf(batch)))));
}

function becameOf({ answer, dead, held, pending, events }) {
  const rest = [[dead, "dead"], [held, "held"], [pending, "to be sent again"]].filter(([count]) => count);
  const parts = rest.map(([count, what]) => `${count === events ? "all" : whole(count)} ${what}`);
  return [answer, ...parts].join(" · ");
}

function cell(text, className = "", label = "") {
  const made = make("td", { className, role: "cell" }, text);  // the roles stay when a narrow screen takes the table apart
  if (label) made.dataset.label = label;
  return made;
}

// ---------------------------------------------------------------- dead letters

async function showLettersIfNew(stats) {
  const counts = `${stats.dead} ${stats.held} ${stats.resolved} ${stats.erased}`;
  if (counts === lettersSeen || (lettersSeen && Date.now() - lettersAt < DEAD_PAUSE_MS)) return;
  lettersSeen = counts;
  lettersAt = Date.now();
  try {
    const reply = await fetch("api/dead");
    if (!reply.ok) throw new Error(`${reply.status}`);
    showLetters(await reply.text());
  } catch {
    lettersSeen = "";  // with the next numbers once more
  }
}

function showLetters(text) {
  if (text === lettersShown) return;
  lettersShown = text;
  const { groups, more } = JSON.parse(text);
  const list = byId("dead");
  const opened = new Set([...list.querySelectorAll("details[open]")].map((one) => one.dataset.key));
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  list.replaceChildren(...groups.map((group) => letterRow(group, opened.has(group.id))));
  if (more) list.append(make("li", { className: "quiet" }, `and ${whole(more)} more groups: walbatch dead list`));
  byId("dead-none").hidden = groups.length > 0;
  if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function letterRow(group, open) {
  const held = group.held ? "held, it may have arrived: " : "";
  const said = [group.code || "", group.field].filter(Boolean).join(" ");
  const span = [...new Set([group.first_at, group.last_at].map((moment) => time(moment, true)))].join(" – ");
  const sample = make("details", { open },
    make("summary", {}, "what one looks like"),
    make("p", { className: "quiet" }, "names and types, no values"),
    outline(group.sample));
  sample.dataset.key = group.id;
  sample.firstChild.dataset.key = `${group.id}-sample`;
  const again = make("button", { type: "button" }, "Send again…");
  const away = make("button", { type: "button" }, "Discard…");
  for (const [button, run] of [[again, resend], [away, discard]]) {
    button.dataset.key = `${group.id}-${run.name}`;
    button.onclick = async () => {
      await attempt(() => run(group));
      lettersAt = 0;  // what one did oneself is seen at once
    };
    button.setAttribute("aria-describedby", `letter-${group.id}`);
  }
  return make("li", {},
    make("div", { className: "what" },
      make("strong", { className: "count" }, whole(group.count)),
      make("span", { id: `letter-${group.id}` }, held, said ? `${said}: ` : "", group.reason),
      make("span", { className: "quiet" }, `${group.destination} ${group.lane} · ${span} · ${group.id}`),
      sample),
    make("div", { className: "buttons" }, again, away));
}

function outline(sample) {
  return make("dl", { className: "outline" }, ...Object.entries(sample).flatMap(([name, type]) => [
    make("dt", {}, name), make("dd", {}, typeof type === "string" ? type : outline(type)),
  ]));
}

// ---------------------------------------------------------------- words and numbers

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function whole(number) {
  return number.toLocaleString("en");
}

function time(text, withDay = false) {
  const moment = new Date(text);
  return withDay && moment.toDateString() !== new Date().toDateString()
    ? moment.toLocaleString("sv").slice(0, 16) : moment.toLocaleTimeString("sv");
}

function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 ** 2 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}

function took(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

document.documentElement.classList.add("scripted");
takeToken();
addEventListener("hashchange", takeToken);
byId("replay").onclick = () => attempt(() => replay(destinations));
document.addEventListener("visibilitychange", () => (document.hidden ? unwatch() : watch()));
new ResizeObserver(() => samples.length && drawChart()).observe(byId("chart"));
watch();
