// A worker without the SDK, written from docs/reference/worker-sessions.md alone: one agent and one tool. It loses its connection
// once, while its agent waits for the tool, and comes back with its session. Each line of output is a thing that has happened.
"use strict";

const { randomUUID } = require("node:crypto");
const WebSocket = require("ws");

const url = process.env.TIDELOG_URL.replace(/^http/, "ws") + "/v1/workers/session";
const headers = { Authorization: `Bearer ${process.env.TIDELOG_API_KEY}` };
const incarnation = randomUUID();
const inHand = new Map(); // work → the message `work`, with the version up to which this worker has the journal
const unanswered = new Map(); // id → what was sent, and what to do with the answer
let socket, session = null, secret = null, ids = 0, number = 0, losses = 0;

const tell = (happened, more = {}) => console.log(JSON.stringify({ happened, ...more }));
const say = (...messages) => socket.send(JSON.stringify(messages));
const credit = () => say({ t: "credit", n: number, agent: 2 - count("agent"), tool: losses === 0 ? 0 : 1 - count("tool") });
const count = (kind) => [...inHand.values()].filter((work) => work.kind === kind).length;

function report(work, t, fields, then = () => {}) {
  const message = { t, id: ++ids, work: work.work, attempt: work.attempt, token: work.token, ...fields };
  unanswered.set(message.id, { message, then });
  say(message);
}

function over(work, t, fields) {
  report(work, t, fields, () => {
    inHand.delete(work.work);
    tell(t, { kind: work.kind });
    credit();
  });
}

function begin(work) {
  if (work.kind === "tool") return over(work, "complete", { result: work.arguments.text.toUpperCase() });
  if (work.input === "fail") return over(work, "fail", { error: { type: "Error", message: "as asked", kind: "permanent" } });
  report(work, "record", { key: "parse", kind: "step", result: { text: work.input } }, () =>
    report(work, "call", { key: "upper", tool: "js.upper", arguments: { text: work.input } }, () => {
      tell("called");
      if (losses++ === 0) socket.terminate();
    }),
  );
}

function finish(work, journal) {
  const entry = journal.find((one) => one.key === "upper" && one.status !== "pending");
  if (!entry) return;
  if (entry.status === "error") over(work, "fail", { error: { type: "ToolFailed", message: entry.error.message, kind: "permanent" } });
  else over(work, "complete", { result: entry.result });
}

const heard = {
  beat: () => {},
  welcome(message) {
    tell("welcome", { again: message.session === session, agents: message.agents, tools: message.tools });
    ({ session, secret } = message);
    const lost = [...unanswered.values()];
    unanswered.clear();
    for (const { message: { t, id, work, attempt, token, ...fields }, then } of lost) {
      if (inHand.has(work)) report(inHand.get(work), t, fields, then);
    }
    credit();
  },
  work(message) {
    number = Math.max(number, message.n);
    if (inHand.has(message.work)) return;
    inHand.set(message.work, message);
    begin(message);
  },
  done(message) {
    const found = unanswered.get(message.id);
    unanswered.delete(message.id);
    if (found) found.then(message);
  },
  refused(message) {
    tell("refused", { problem: message.problem });
    unanswered.delete(message.id);
  },
  update(message) {
    const work = inHand.get(message.work);
    if (!work || work.attempt !== message.attempt) return;
    work.version = message.version;
    finish(work, message.journal);
  },
  stop(message) {
    tell("stop", { reason: message.reason });
    inHand.delete(message.work);
    credit();
  },
  drain: () => {},
  error: (message) => tell("error", { problem: message.problem }),
};

function connect() {
  number = 0;
  socket = new WebSocket(url, ["tidelog.worker.v1"], { headers, perMessageDeflate: false, maxPayload: 1024 * 1024 });
  socket.on("open", () =>
    say({
      t: "hello", versions: [1], worker: "js-1", incarnation, session, secret, release: "js",
      agents: [{ name: "js-agent", description: "Upper case." }],
      tools: [
        { name: "js.upper", parameters: { type: "object", properties: { text: { type: "string" } } }, idempotent: true },
        { name: "js.half", description: "half \ud800", parameters: {} },
      ],
      problems: [], slots: { agent: 2, tool: 1 },
      work: [...inHand.values()].map(({ work, attempt, token, version }) => ({ work, attempt, token, ...(version && { version }) })),
    }),
  );
  socket.on("message", (frame) => {
    for (const message of JSON.parse(frame)) (heard[message.t] ?? (() => {}))(message);
  });
  socket.on("error", (error) => tell("socket", { error: String(error) }));
  socket.on("close", (code) => {
    tell("closed", { code });
    if (code === 1000) process.exit(0);
    setTimeout(connect, 100 + Math.random() * 200);
  });
}

setInterval(() => socket.readyState === WebSocket.OPEN && say({ t: "beat" }), 3000);
process.on("SIGTERM", () => say({ t: "leaving" }));
connect();
