// Everything that changes something: asked for in a dialog, sent with the token, answered in a line of text.

const KEPT_AS = "walbatch.token";  // in sessionStorage: it is gone when the tab is closed

const byId = (id) => document.getElementById(id);

// Take the token out of an address like /#token=..., and leave no trace of it there.
export function takeToken() {
  const found = /^#token=([\w-]+)$/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEPT_AS, found[1]);
  history.replaceState(null, "", location.pathname + location.search);
}

// Ask with the one dialog of the page, and return what was filled in; null if the person thinks better of it.
// fields: [{name, label, type, must (what it has to be), options ([value, text]), hint}]
export function ask({ title, text, confirm, fields = [] }) {
  const dialog = byId("dialog");
  const form = byId("dialog-form");
  byId("dialog-title").textContent = title;
  byId("dialog-text").textContent = text;
  byId("dialog-confirm").textContent = confirm;
  const made = fields.map(field);
  byId("dialog-fields").replaceChildren(...made.map((one) => one.label));
  return new Promise((resolve) => {
    let answer = null;
    form.onsubmit = (event) => {
      event.preventDefault();
      answer = Object.fromEntries(made.map((one) => [one.input.name, one.input.value.trim()]));
      dialog.close();
    };
    byId("dialog-cancel").onclick = () => dialog.close();
    dialog.onclose = () => {
      byId("dialog-fields").replaceChildren();  // no token stays in the page
      resolve(answer);
    };
    dialog.showModal();
    (made.length ? made[0].input : byId("dialog-cancel")).focus();
  });
}

function field({ name, label, type = "text", must, options, hint }) {
  const wrapper = document.createElement("label");
  const input = document.createElement(options ? "select" : "input");
  input.name = name;
  if (options) input.append(...options.map(([value, shown]) => new Option(shown, value)));
  else Object.assign(input, { type, autocomplete: "off", spellcheck: false });
  input.required = must !== undefined || type === "password";
  if (type === "datetime-local") input.step = 1;
  if (must !== undefined) {
    const check = () => input.setCustomValidity(input.value.trim() === must ? "" : `Type ${must} to go ahead`);
    input.oninput = check;
    check();
  }
  const head = document.createElement("span");
  head.textContent = label;
  wrapper.append(head, input);
  if (hint) {
    const small = document.createElement("small");
    small.textContent = hint;
    wrapper.append(small);
  }
  return { label: wrapper, input };
}

// Say what became of a change. Screen readers hear it.
export function say(text) {
  byId("said").textContent = text;
  byId("said").hidden = false;
}

// Post with the token, which is asked for when it is missing or wrong. Return the last report; null if nobody wants to.
export async function post(path, body) {
  let note = "Whoever changes something shows the token of the running server.";
  for (;;) {
    const token = sessionStorage.getItem(KEPT_AS) ?? (await askToken(note));
    if (token === null) return null;
    const reply = await fetch(path, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (reply.status !== 401) {
      sessionStorage.setItem(KEPT_AS, token);
      return report(reply);
    }
    sessionStorage.removeItem(KEPT_AS);
    note = "That is not the token of the running server: each start makes a new one.";
  }
}

async function askToken(text) {
  const hint = "the file admin.token in the data directory; `walbatch dashboard --with-token` prints an address that has it";
  const answer = await ask({
    title: "Token", text, confirm: "Go on", fields: [{ name: "token", label: "Token", type: "password", hint }],
  });
  return answer && answer.token;
}

async function report(reply) {
  const lines = (await reply.text()).split("\n").filter((line) => line);
  const last = lines.length ? JSON.parse(lines.at(-1)) : {};
  if (last.error) throw new Error(last.error);
  if (!reply.ok) throw new Error(`the server answered ${reply.status}`);
  return last;
}

// Do one thing that a person asked for: run it, and say what it returns, or why it failed.
export async function attempt(run) {
  try {
    const outcome = await run();
    if (outcome) say(outcome);
  } catch (error) {
    say(`Not done: ${error.message}`);
  }
}

export async function pause(destination) {
  const wanted = await ask({
    title: `Pause delivery to ${destination}?`,
    text: "Records are still accepted, and wait on disk until somebody resumes. What is in flight is not cut off.",
    confirm: "Pause",
  });
  return wanted && (await post("pause", { destination })) && `Delivery to ${destination} is paused.`;
}

export async function resume(destination) {
  const wanted = await ask({
    title: `Resume delivery to ${destination}?`, text: "What waits goes out now.", confirm: "Resume",
  });
  return wanted && (await post("resume", { destination })) && `Delivery to ${destination} goes on.`;
}

export async function flush(destination) {
  const wanted = await ask({
    title: `Flush to ${destination}?`, confirm: "Flush",
    text: "What waits goes out now, without waiting for full batches; a destination that is backing off is asked at once.",
  });
  const last = wanted && (await post("flush", { destination }));
  if (!last) return null;
  return last.paused_at ? `${destination} is paused: nothing goes out before it is resumed.`
    : `${counted(last.due, "record")} due now for ${destination}.`;
}

const RESENT = "Mixpanel drops the copies of events that it still has; an update that adds counts once more.";

export async function replay(destinations) {
  const wanted = await ask({
    title: "Replay stored records", confirm: "Count",
    text: `Sends records again that were settled. First they are counted. ${RESENT}`,
    fields: [
      { name: "destination", label: "To", options: destinations.map((name) => [name, name]) },
      { name: "status", label: "Which", options: [["sent", "delivered"], ["dead", "refused"], ["all", "both"]] },
      { name: "since", label: "Accepted at or after", type: "datetime-local" },
      { name: "until", label: "Accepted before", type: "datetime-local" },
      { name: "event", label: "Event name" },
      { name: "distinct_id", label: "User (distinct_id)" },
    ],
  });
  if (!wanted) return null;
  const { destination, status } = wanted;
  const selection = {
    status, since_ms: moment(wanted.since), until_ms: moment(wanted.until),
    event: wanted.event || null, distinct_id: wanted.distinct_id || null,
  };
  const plan = await post("replay", { destination, selection, dry_run: true });
  if (!plan) return null;
  if (!plan.count) return "No records match; nothing was sent.";
  const sure = await ask({
    title: `Send ${counted(plan.count, "record")} to ${destination} again?`, confirm: "Send again",
    text: `${plan.sent.toLocaleString("en")} delivered, ${plan.dead.toLocaleString("en")} refused, accepted from `
      + `${shownTime(plan.first_ms)} to ${shownTime(plan.last_ms)}. ${RESENT}`,
  });
  if (!sure) return null;
  const body = { destination, selection: { ...selection, through: plan.through }, dry_run: false };
  const last = await post("replay", body);
  return last && `${counted(last.replayed ?? 0, "record")} in the log again, for ${destination}.`;
}

export async function resend(group) {
  const held = group.held ? `Held: they may have arrived, and may count twice. ` : "";
  const wanted = await ask({
    title: `Send ${counted(group.count, "letter")} to ${group.destination} again?`, confirm: "Send again",
    text: `${held}Oldest first, as they are. To correct them first: walbatch dead replay ${group.id} --edit`,
    fields: group.held ? [typed(group.count)] : [],
  });
  const choice = { groups: [group.id], held: group.held, limit: group.count };
  const last = wanted && (await post("dead/replay", { destination: group.destination, choice }));
  return last && `${counted(last.replayed ?? 0, "letter")} in the log again, for ${group.destination}.`;
}

export async function discard(group) {
  const wanted = await ask({
    title: `Give up ${counted(group.count, "letter")}?`, confirm: "Discard",
    text: `They will never be sent to ${group.destination}. It cannot be undone; walbatch dead export ${group.id} keeps a copy.`,
    fields: [typed(group.count)],
  });
  const body = { destination: group.destination, choice: { groups: [group.id] }, expected: group.count };
  const last = wanted && (await post("dead/discard", body));
  return last && `${counted(last.discarded ?? 0, "letter")} given up.`;
}

function typed(count) {
  return { name: "count", label: `Type ${count} to go ahead`, must: String(count) };
}

function moment(text) {
  return text ? new Date(text).getTime() : null;
}

function shownTime(ms) {
  return new Date(ms).toLocaleString("sv");
}

export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}
