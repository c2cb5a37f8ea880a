// The reference client, phoenix.js over ws, as a process that is told what to do: one JSON object a line each way.
//
// In:  {"do": "connect" | "join" | "push" | "leave" | "disconnect", ...}
// Out: {"saw": ..., ...}, in the order in which phoenix.js calls back; "ready" comes first.

import { createInterface } from "node:readline";
import { Socket } from "phoenix";
import WebSocket from "ws";

const [endpoint, apiKey] = process.argv.slice(2);
const say = (saw, more = {}) => process.stdout.write(JSON.stringify({ saw, ...more }) + "\n");

const socket = new Socket(endpoint, {
  transport: WebSocket,
  params: { api_key: apiKey },
  timeout: 2000,
  heartbeatIntervalMs: 100,
  reconnectAfterMs: () => 20,
  rejoinAfterMs: () => 20,
});
const channels = new Map();

socket.onOpen(() => say("open", { extensions: socket.conn.extensions }));
socket.onClose((event) => say("close", { code: event.code }));

function join({ topic, payload }) {
  const channel = socket.channel(topic, payload);
  channels.set(topic, channel);
  channel.onError((reason) => say("channel error", { topic, reason: reason ?? null }));
  channel.onClose(() => say("channel close", { topic }));
  channel.on("message", (message) => say("message", { topic, message }));
  // These hooks are called again for each rejoin, which is phoenix.js's own doing.
  channel
    .join()
    .receive("ok", (response) => say("joined", { topic, response }))
    .receive("error", (response) => say("join refused", { topic, response }))
    .receive("timeout", () => say("join timeout", { topic }));
}

function push({ topic, event, payload, id }) {
  channels
    .get(topic)
    .push(event, payload)
    .receive("ok", (response) => say("reply", { id, status: "ok", response }))
    .receive("error", (response) => say("reply", { id, status: "error", response }))
    .receive("timeout", () => say("reply", { id, status: "timeout" }));
}

function act(command) {
  switch (command.do) {
    case "connect":
      return socket.connect();
    case "join":
      return join(command);
    case "push":
      return push(command);
    case "forget":
      // A refused join is retried for ever; this ends that without a word to the node.
      return channels.get(command.topic).rejoinTimer.reset();
    case "leave":
      return channels
        .get(command.topic)
        .leave()
        .receive("ok", () => say("left", { topic: command.topic }));
    case "disconnect":
      return socket.disconnect(() => say("disconnected"), 1000, "bye");
    default:
      throw new Error(`unknown command ${command.do}`);
  }
}

createInterface({ input: process.stdin })
  .on("line", (line) => act(JSON.parse(line)))
  .on("close", () => process.exit(0));
say("ready");
