// Callers that append one event each to a stream of its own with Emmett's PostgreSQL event store, and wait for their answers.
// node emmett.mjs FOLDER_OF_PACKAGES CALLERS WARM_UP_SECONDS SECONDS; the database's address on standard input. Prints one JSON object.
import { createRequire } from "node:module";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

const [folder, callers, warmUp, seconds] = process.argv.slice(2);
const connectionString = readFileSync(0, "utf8").trim();
const require = createRequire(`${folder}/`);
const { getPostgreSQLEventStore } = require("@event-driven-io/emmett-postgresql");
const pg = require("pg");

const pool = new pg.Pool({ connectionString, max: Number(callers) });
const store = getPostgreSQLEventStore(connectionString, {
  schema: { autoMigration: "None" },
  connectionOptions: { pooled: true, pool },
});
const migrating = getPostgreSQLEventStore(connectionString);
await migrating.schema.migrate();
await migrating.close();

const metadata = Object.fromEntries(["correlation_id", "causation_id", "command_id"].map((name) => [name, "0".repeat(36)]));
const event = { type: "thing.happened", data: { text: "x".repeat(285) }, metadata: { actor: "key:benchmark", ...metadata } };

async function round(length) {
  const waits = [];
  const started = performance.now();
  const caller = async () => {
    while (performance.now() < started + length * 1000) {
      const before = performance.now();
      await store.appendToStream(`thing-${randomUUID()}`, [event], { expectedStreamVersion: "STREAM_DOES_NOT_EXIST" });
      waits.push((performance.now() - before) / 1000);
    }
  };
  await Promise.all(Array.from({ length: Number(callers) }, caller));
  waits.sort((a, b) => a - b);
  const at = (share) => waits[Math.floor(waits.length * share)];
  return { rate: waits.length / ((performance.now() - started) / 1000), p50: at(0.5), p99: at(0.99) };
}

await round(Number(warmUp));
console.log(JSON.stringify(await round(Number(seconds))));
await store.close();
await pool.end();
process.exit(0);
