// Send records to walbatch: npm install && node track.js [ADDRESS]
//
// An event has its id and its time before the first try, so that it is the same event however often it is sent. gRPC
// itself waits for the server and repeats what ended with UNAVAILABLE, as service-config.json says.
"use strict";

const { randomUUID } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { promisify } = require("node:util");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const ROOT = join(__dirname, "..", "..");
const DEADLINE_MS = 10_000;

const definition = protoLoader.loadSync(join(ROOT, "proto", "analytics", "v1", "service.proto"), {
  keepCase: true, // fields are called as in the proto
  enums: String,
  longs: Number,
  defaults: true,
});
const { AnalyticsService } = grpc.loadPackageDefinition(definition).analytics.v1;

function newEvent(name, distinctId, properties = {}) {
  const nowMs = Date.now();
  return {
    event_id: randomUUID(),
    name,
    distinct_id: distinctId,
    event_time: { seconds: Math.floor(nowMs / 1000), nanos: (nowMs % 1000) * 1e6 },
    properties_json: JSON.stringify(properties),
  };
}

async function main(address) {
  const client = new AnalyticsService(address, grpc.credentials.createInsecure(), {
    "grpc.service_config": readFileSync(join(ROOT, "examples", "service-config.json"), "utf8"),
  });
  const call = (name, request) =>
    promisify(client[name]).call(client, request, new grpc.Metadata({ waitForReady: true }), {
      deadline: Date.now() + DEADLINE_MS,
    });
  try {
    const event = newEvent("Order Completed", "user-1", { amount: 49.99 });
    for (let time = 1; time <= 2; time += 1) {
      // the second time it is only recognised
      const reply = await call("TrackEvent", { event });
      console.log(`${event.name}: ${reply.durability}, duplicate: ${reply.duplicate}`);
    }
    await call("IdentifyUser", { user_id: "user-1", traits_json: '{"plan": "pro"}' });
    const names = ["Page Viewed", "", "Signed Out"];
    const answer = await call("Ingest", { records: names.map((name) => ({ event: newEvent(name, "user-1") })) });
    for (const { index, field, description, reason } of answer.rejections) {
      console.log(`record ${index} is refused: ${field} ${description} (${reason})`); // a bug of ours
    }
    console.log(`${answer.accepted_count} accepted`);
  } finally {
    client.close();
  }
}

function whatToDo(error) {
  switch (error.code) {
    case grpc.status.INVALID_ARGUMENT:
      return "drop it, and correct the code";
    case grpc.status.RESOURCE_EXHAUSTED:
      return "keep it, and send it again in half a minute";
    default: // UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED: it may be stored
      return "keep it, and send it again with the same event_id";
  }
}

main(process.argv[2] ?? "127.0.0.1:50051").catch((error) => {
  console.error(`${whatToDo(error)}: ${error.details ?? error.message}`);
  process.exitCode = 1;
});
