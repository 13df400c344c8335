// Mixpanel's importer: mixpanel_import.cjs PORT EVENTS sends that many events from memory, with its own defaults, and
// prints in how many seconds. It gathers before it sends, so what arrives when would tell too good a rate.
// It has no setting for another address, so the connections that it makes are led to this machine.
const undici = require("undici");
const crypto = require("crypto");

const [port, events] = process.argv.slice(2).map(Number);
const Pool = undici.Pool;
undici.Pool = class extends Pool {
  constructor(_origin, options) {
    super(`http://127.0.0.1:${port}`, options);
  }
};
const mixpanelImport = require("mixpanel-import");

const record = () => ({
  event: "Bench",
  properties: {
    time: Date.now(),
    distinct_id: "user-1",
    $insert_id: crypto.randomUUID(),
    text_0: "a value of usual length",
    text_1: "a value of usual length",
    text_2: "a value of usual length",
    text_3: "a value of usual length",
    number_0: 0.0,
    number_1: 1.5,
    number_2: 3.0,
    number_3: 4.5,
    list: ["a", "b"],
    object: { plan: "pro" },
  },
});

const records = Array.from({ length: events }, record);
const started = performance.now();
mixpanelImport({ token: "bench", secret: "bench" }, records, {
  recordType: "event",
  compress: true,
  strict: true,
  logs: false,
  verbose: false,
  showProgress: false,
}).then(
  (summary) => {
    console.log((performance.now() - started) / 1000);
    process.exit(summary.success === events ? 0 : 1);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
