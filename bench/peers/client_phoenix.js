// phoenix.js on Node.js with ws; the same items as work.py, and the same line of JSON. Run with --expose-gc.
"use strict";
const fs = require("node:fs");
const { WebSocket } = require("ws");
const { Socket } = require("phoenix");

const DID = "did:web:node.test:bench";
const JOIN = { payload_types: ["https://didcomm.org/basicmessage/2.0"], reply_protocol: true };
const [url, item, text, payloads] = process.argv.slice(2);
const count = Number(text);

const made = new Map();  // the warm-up pays for making them
function payload(size) {
  if (!made.has(size)) made.set(size, JSON.parse(fs.readFileSync(`${payloads}/${size}.json`, "utf8")));
  return made.get(size);
}
const answered = (push) => new Promise((ok, failed) =>
  push.receive("ok", ok).receive("error", (reason) => failed(new Error(JSON.stringify(reason))))
    .receive("timeout", () => failed(new Error("timeout"))));

async function joined(did, more = {}) {
  const socket = new Socket(url.replace(/\/websocket$/, ""), { transport: WebSocket, params: { api_key: "bench" }, ...more });
  socket.connect();
  const channel = socket.channel(`plugins:${did}`, JOIN);
  await answered(channel.join());
  return { socket, channel };
}

class Timed {
  constructor() { this.cpu = 0; this.wall = 0; this.start(); }
  start() { this.usage = process.cpuUsage(); this.since = process.hrtime.bigint(); }
  stop() {
    const wall = Number(process.hrtime.bigint() - this.since) / 1e3;
    const usage = process.cpuUsage(this.usage);
    this.wall += wall;
    this.cpu += usage.user + usage.system;
    return wall;
  }
}

function perUnit(timed, walls = []) {
  const figures = { n: count, cpu_us: timed.cpu / count, wall_us: timed.wall / count, rate: count / timed.wall * 1e6 };
  if (walls.length) {
    walls.sort((a, b) => a - b);
    figures.p50_us = walls[Math.floor(walls.length / 2)];
    figures.p99_us = walls[Math.min(walls.length - 1, Math.floor(walls.length * 99 / 100))];
  }
  return figures;
}

function anonymousKib() {
  global.gc();
  return Number(/RssAnon:\s+(\d+) kB/.exec(fs.readFileSync("/proc/self/status", "utf8"))[1]);
}

function inFlight(channel, times, window, body) {
  return new Promise((done, failed) => {
    let left = times, open = 0;
    const next = () => {
      if (left === 0) { if (open === 0) done(); return; }
      left--; open++;
      channel.push("message", body).receive("ok", () => { open--; next(); }).receive("timeout", () => failed(new Error("timeout")));
    };
    for (let i = 0; i < Math.min(window, times); i++) next();
  });
}

async function several(channel, times, walls) {
  if (item === "seq" || item.startsWith("out")) {
    const body = payload(item === "seq" ? 300 : item.slice(3));
    for (let i = 0; i < times; i++) {
      const start = process.hrtime.bigint();
      await answered(channel.push("message", body));
      walls.push(Number(process.hrtime.bigint() - start) / 1e3);
    }
  } else if (item.startsWith("pipe")) {
    await inFlight(channel, times, Number(item.slice(4)), payload(300));
  } else if (item === "fnf") {
    const body = payload(300);
    for (let i = 0; i < times; i++) {
      channel.push("cast", body);
      // Without a turn of the loop nothing is written, and a push keeps a timer for its reply.
      if (i % 100 === 99) await new Promise(setImmediate);
    }
    await answered(channel.push("count", {}));
  } else {
    let left = times;
    await new Promise((done) => {
      const on = channel.on("message", () => { if (--left === 0) { channel.off("message", on); done(); } });
      channel.push("flood", { count: times, size: Number(item.slice(2)) });
    });
  }
}

async function many(total, more, each = () => {}) {
  const all = [];
  for (let first = 0; first < total; first += 50) {
    const some = [];
    for (let i = first; i < Math.min(first + 50, total); i++) some.push(joined(`${DID}-${i}`, more));
    all.push(...await Promise.all(some));
  }
  all.forEach(each);
  return all;
}

async function main() {
  if (item === "connect") {
    let timed = new Timed(), walls = [];
    for (let i = -2; i < count; i++) {
      timed.start();
      const { socket } = await joined(`${DID}-${i}`);
      walls.push(timed.stop());
      await new Promise((closed) => socket.disconnect(closed));
      if (i < 0) { timed = new Timed(); walls = []; }
    }
    return perUnit(timed, walls);
  }
  if (item === "memory") {
    const first = await many(1);
    const before = anonymousKib();
    const all = await many(count);
    const growth = anonymousKib() - before;
    return { n: count, kib: growth / count, held: first.length + all.length };
  }
  if (item === "reconnect") {
    let back = 0, done;
    const finished = new Promise((resolve) => { done = resolve; });
    const all = await many(count);
    // channel.js joins again by itself; its reply is announced to the hooks of the first join.
    all.forEach(({ channel }) => channel.joinPush.receive("ok", () => { if (++back === 2 * count) done(); }));
    const timed = new Timed();
    all[0].channel.push("restart", { down_ms: 500 });
    await finished;
    timed.stop();
    return { ...perUnit(timed), wall_s: timed.wall / 1e6 };
  }
  const { channel } = await joined(DID);
  const walls = [];
  await several(channel, Math.max(1, Math.floor(count / 10)), walls);
  walls.length = 0;
  const timed = new Timed();
  await several(channel, count, walls);
  timed.stop();
  return perUnit(timed, walls);
}

main().then((figures) => { console.log(JSON.stringify(figures)); process.exit(0); },
  (error) => { console.error(error); process.exit(1); });
