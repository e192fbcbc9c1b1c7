// receiver.py in another language, with the packages that were written for it. Usage: node receiver.js LOG SEED
"use strict";
const { createHash } = require("node:crypto");
const { appendFileSync } = require("node:fs");
const http = require("node:http");
const { gunzipSync } = require("node:zlib");
const { EventWebhook } = require("@sendgrid/eventwebhook");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

const [log, seed] = process.argv.slice(2);
const keys = ["old", "new", "other"].map((name) => [name, new Webhook(process.env[`${name.toUpperCase()}_SECRET`])]);
const sendgrid = new EventWebhook();
const sendgridKey = sendgrid.convertPublicKeyToECDSA(process.env.SENDGRID_PUBLIC);
const faults = ["500", "429", "unread", "cut", "half", "silent"];
// More events than this are too many at once: they have to come in parts.
const eventsMax = 30;

class Deck {
  constructor(path, gap) {
    this.word = createHash("sha256").update(seed + path).digest().readUInt32LE();
    Object.assign(this, { gap, left: 1, faults: [] });
  }

  // Up to, and not including, `below`.
  random(below) {
    this.word = (Math.imul(this.word, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.word / 2 ** 32) * below);
  }

  deal() {
    this.left -= 1;
    if (this.left >= 0) return "200";
    this.left = 1 + this.random(2 * this.gap);
    if (this.faults.length === 0) this.faults = [...faults];
    return this.faults.splice(this.random(this.faults.length), 1)[0];
  }

  // Keeps a fault for the next request, where this one has another answer.
  instead(dealt, answer) {
    if (dealt !== "200") {
      this.faults.push(dealt);
      this.left = 0;
    }
    return answer;
  }
}

const decks = { "/batches": new Deck("/batches", 4), "/single": new Deck("/single", 100), "/sendgrid": new Deck("/sendgrid", 4) };

function holds(key, body, headers) {
  try {
    key.verify(body, headers);
    return true;
  } catch (error) {
    // What was no JSON any more would be an error of another class: it had a signature that holds.
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

function demand(condition, otherwise) {
  if (!condition) throw new Error(otherwise);
}

function verify(path, body, headers) {
  const signedBy = keys.filter(([, key]) => holds(key, body, headers)).map(([name]) => name);
  demand(signedBy.length > 0, "no key has signed it");
  const later = String(Number(headers["webhook-timestamp"]) + 1);
  const changed = [
    [Buffer.concat([body, Buffer.from(" ")]), {}],
    [body.subarray(1), {}],
    [body, { "webhook-id": headers["webhook-id"] + "0" }],
    [body, { "webhook-timestamp": later }],
  ];
  for (const [other, header] of changed) {
    const fooled = keys.some(([, key]) => holds(key, other, { ...headers, ...header }));
    demand(!fooled, `also holds with ${Object.keys(header)[0] ?? "another body"}`);
  }
  demand(headers["idempotency-key"] === headers["webhook-id"], "two ids");
  if (path === "/sendgrid") {
    const signature = headers["x-twilio-email-event-webhook-signature"];
    const timestamp = headers["x-twilio-email-event-webhook-timestamp"];
    const good = (text, at) => sendgrid.verifySignature(sendgridKey, text, signature, at);
    demand(good(body, timestamp), "SendGrid's signature does not hold");
    demand(!good(body + " ", timestamp), "SendGrid's holds for another body");
    demand(!good(body, later), "SendGrid's holds for another instant");
  } else {
    demand(headers.authorization === `Bearer ${process.env.EVENTS_TOKEN}`, "another token");
  }
  return signedBy;
}

function note(request, seen) {
  const { url: path, headers } = request;
  const at = performance.now() / 1000;
  const connection = request.socket.remotePort;
  Object.assign(seen, { path, run: headers["x-run"], gzip: headers["content-encoding"] === "gzip", at, connection });
  appendFileSync(log, JSON.stringify(seen) + "\n");
}

function respond(request, response, answer) {
  const { socket } = request;
  if (answer === "429") response.writeHead(429, { "Retry-After": "2" }).end();
  else if (answer === "half") socket.end("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nha");
  else if (answer === "cut") socket.resetAndDestroy();
  else if (answer === "silent") setTimeout(() => socket.destroy(), 1500);
  else response.writeHead(Number(answer)).end();
}

const server = http.createServer((request, response) => {
  if (request.method !== "POST") return response.writeHead(405).end();
  const deck = decks[request.url];
  let answer = deck.deal();
  if (answer === "unread") {
    note(request, { answer });
    return request.socket.resetAndDestroy();
  }
  const chunks = [];
  // The program may be killed in the middle of a request.
  request.on("error", () => {});
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const sent = Buffer.concat(chunks);
    const body = request.headers["content-encoding"] === "gzip" ? gunzipSync(sent) : sent;
    const id = request.headers["webhook-id"];
    const seen = { id, body: createHash("sha256").update(body).digest("hex") };
    try {
      seen.keys = verify(request.url, body, request.headers);
      seen.events = [JSON.parse(body)].flat().map((event) => event.sg_event_id ?? event.id);
      if (seen.events.length > eventsMax) answer = deck.instead(answer, "413");
    } catch (error) {
      seen.wrong = String(error);
    }
    note(request, { ...seen, answer });
    respond(request, response, answer);
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
