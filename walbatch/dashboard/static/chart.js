// The last hour as one picture: records per second above, what is pending below, on one axis of time.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 52;
const RIGHT = 12;
const RATES = { top: 14, bottom: 150 };
const BACKLOG = { top: 176, bottom: 232 };
const HEIGHT = 256;
const HOUR_MS = 3_600_000;
const SHORTEST_MS = 300_000;  // a young server's chart is not a dot at the right edge
const STEPS_MIN = [1, 2, 5, 10, 15];
const ROOM_FOR_TIME = 64;

// Draw samples, oldest first: {at (ms), accepted, sent, pending}. The picture is as wide as its element.
export function draw(svg, samples, nowMs) {
  const width = Math.max(svg.clientWidth, 240);
  const first = samples.length ? samples[0].at : nowMs;
  const fromMs = Math.max(nowMs - HOUR_MS, Math.min(first, nowMs - SHORTEST_MS));
  const x = (ms) => LEFT + ((ms - fromMs) / (nowMs - fromMs)) * (width - LEFT - RIGHT);
  const rates = ratesOf(samples);
  const top = {
    rate: roundedUp(Math.max(1, ...rates.map((rate) => Math.max(rate.received, rate.sent)))),
    pending: roundedUp(Math.max(1, ...samples.map((sample) => sample.pending))),
  };
  const yRate = scale(RATES, top.rate);
  const yPending = scale(BACKLOG, top.pending);

  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const parts = [
    ...times(fromMs, nowMs, x, width),
    ...levels(RATES, top.rate, width, [1, 0.5, 0]),
    ...levels(BACKLOG, top.pending, width, [1, 0]),
  ];
  parts.push(text(LEFT, RATES.top - 4, "per second", "caption"), text(LEFT, BACKLOG.top - 4, "pending", "caption"));
  if (samples.length > 1) {
    const pending = samples.map((sample) => [x(sample.at), yPending(sample.pending)]);
    const ends = [[pending.at(-1)[0], BACKLOG.bottom], [pending[0][0], BACKLOG.bottom]];
    parts.push(shape("path", { class: "backlog-area", d: `${path([...pending, ...ends])}Z` }));
    parts.push(shape("path", { class: "backlog", d: path(pending) }));
    parts.push(shape("path", { class: "in", d: path(rates.map((rate) => [x(rate.at), yRate(rate.received)])) }));
    parts.push(shape("path", { class: "out", d: path(rates.map((rate) => [x(rate.at), yRate(rate.sent)])) }));
  }
  svg.querySelector("desc").textContent = described(samples, rates);
  svg.querySelectorAll(":scope > :not(title, desc)").forEach((old) => old.remove());
  svg.append(...parts);
}

// Records per second between each two samples, at the later one.
function ratesOf(samples) {
  return samples.slice(1).map((sample, index) => {
    const before = samples[index];
    const seconds = Math.max((sample.at - before.at) / 1000, 0.001);
    const perSecond = (count) => (sample[count] - before[count]) / seconds;
    return { at: sample.at, received: perSecond("accepted"), sent: perSecond("sent") };
  });
}

function scale(band, most) {
  return (value) => band.bottom - (value / most) * (band.bottom - band.top);
}

// The next number that reads well.
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((digit) => digit * power).find((round) => round >= value);
}

function times(fromMs, nowMs, x, width) {
  const room = Math.max(1, Math.floor((width - LEFT - RIGHT) / ROOM_FOR_TIME));
  const minutes = (nowMs - fromMs) / 60_000;
  const stepMs = (STEPS_MIN.find((step) => minutes / step <= room) ?? 30) * 60_000;
  const parts = [];
  for (let ms = Math.ceil(fromMs / stepMs) * stepMs; ms < nowMs; ms += stepMs) {
    parts.push(shape("line", { class: "grid", x1: x(ms), x2: x(ms), y1: RATES.top, y2: BACKLOG.bottom }));
    if (x(ms) < width - 20) parts.push(text(x(ms), HEIGHT - 6, clock(ms), "time"));
  }
  return parts;
}

function levels(band, most, width, shares) {
  return shares.flatMap((share) => {
    const y = band.bottom - share * (band.bottom - band.top);
    const line = shape("line", { class: share ? "grid" : "base", x1: LEFT, x2: width - RIGHT, y1: y, y2: y });
    return [line, text(LEFT - 8, y + 4, short(share * most), "level")];
  });
}

function described(samples, rates) {
  if (samples.length < 2) return "The first numbers come within ten seconds.";
  const most = (values) => short(Math.max(...values));
  return `Since ${clock(samples[0].at)}: received at most ${most(rates.map((rate) => rate.received))} a second, `
    + `sent at most ${most(rates.map((rate) => rate.sent))} a second, `
    + `at most ${most(samples.map((sample) => sample.pending))} pending; now ${short(samples.at(-1).pending)} pending.`;
}

// Few characters: 950, 12k, 1.5M.
function short(value) {
  for (const [unit, size] of [["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
  }
  return `${Number(value.toPrecision(3))}`;
}

function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
}

function path(points) {
  return points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

function text(x, y, content, name) {
  const made = shape("text", { x, y, class: name });
  made.textContent = content;
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
