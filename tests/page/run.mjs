// The page of the HTTP endpoint in Chromium: the real program over the simulated API, in the states that an operator meets.
//
//   node tests/page/run.mjs PROGRAM NODE_MODULES CHROMIUM [SCREENSHOTS]
//
// Fails with what was seen. With a fourth argument, pictures are written there.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [program, nodeModules, executablePath, pictures] = process.argv.slice(2);
if (!executablePath) throw new Error("usage: run.mjs PROGRAM NODE_MODULES CHROMIUM [SCREENSHOTS]");
const { chromium } = createRequire(join(resolve(nodeModules), "x.js"))("playwright-core");
const iso = (days) => new Date(Date.now() - days * 86400000).toISOString().slice(0, 16) + "Z";
const TOKEN = "a-token-for-the-page-test";
const folder = mkdtempSync(join(tmpdir(), "sparkspool-page-"));
const children = [];
let failures = 0;

function check(what, holds, seen) {
  if (holds) return;
  failures += 1;
  console.error(`FAILED: ${what}${seen === undefined ? "" : `\n  seen: ${JSON.stringify(seen)?.slice(0, 2000)}`}`);
}

function start(args, options) {
  const child = spawn(resolve(program), args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  children.push(child);
  return child;
}

/** The first match of `pattern` in what a child says. */
function said(child, stream, pattern) {
  return new Promise((found, failed) => {
    let text = "";
    const look = (chunk) => {
      text += chunk;
      const match = pattern.exec(text);
      if (match) found(match[1]);
    };
    child[stream].on("data", look);
    child.on("exit", (code) => failed(new Error(`ended with ${code} before ${pattern}:\n${text}`)));
  });
}

async function end(child, signal = "SIGTERM") {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, "exit");
}

async function simulate(...args) {
  const child = start(["simulate", "--dialect", "events", ...args]);
  return { child, url: await said(child, "stdout", /^(http:\S+)/m) };
}

let lives = 0;
async function daemon(url, streams, sinks, key = "simulated-key") {
  lives += 1;
  const dir = join(folder, `life-${lives}`);
  mkdirSync(dir);
  const config = join(dir, "sparkspool.toml");
  writeFileSync(config, `data_dir = "${dir}/data"
[api]
url = "${url}"
requests_per_minute = 6000
[http]
listen = "127.0.0.1:0"
token_env = "TOKEN"
${streams}
${sinks.replaceAll("DIR", dir)}`);
  const child = start(["run", "--config", config], { cwd: dir, env: { SPARKPOST_API_KEY: key, TOKEN } });
  const at = await said(child, "stderr", /endpoint listens at=(http:\S+)/);
  child.stderr.resume();
  child.stdout.resume();
  return { child, at, dir };
}

async function until(what, look, seconds = 150) {
  const deadline = Date.now() + seconds * 1000;
  let seen;
  while (Date.now() < deadline) {
    try {
      seen = await look();
      if (seen) return seen;
    } catch (error) { seen = String(error); }
    await new Promise((go) => setTimeout(go, 200));
  }
  check(what, false, seen);
  return null;
}

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

/** Opens the page, and watches for whatever it must not do. */
async function open(site, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 900 }, colorScheme: "light", reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) wrong.push(message.text()); });
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => { if (!request.url().startsWith(site.at) && !request.url().startsWith("data:")) wrong.push(request.url()); });
  await page.goto(site.at);
  await page.waitForFunction(() => document.getElementById("live-text").textContent === "live");
  return { page, context, wrong };
}

async function shoot(page, name, fullPage = true) {
  if (!pictures) return;
  // Where this ran is nobody's business.
  await page.evaluate((folder) => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) walker.currentNode.data = walker.currentNode.data.replace(new RegExp(`${folder}/life-\\d+(/data)?`, "g"), "/var/lib/sparkspool");
  }, folder);
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage });
}

async function fits(page, what) {
  const width = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  check(`${what}: no scrolling sideways`, width[0] <= width[1], width);
}

const text = (page, selector) => page.locator(selector).innerText();
const SINKS = `[sinks.archive.file]
path = "DIR/events.ndjson"
[sinks.database.sqlite]
path = "DIR/events.db"
`;

async function healthy() {
  const api = await simulate("--events", "30000", "--from", "30h", "--to", "3h");
  const site = await daemon(api.url, `[streams.all]
every = "1s"
settle = "2s"
start = "30h"
sinks = ["archive", "database"]
[streams.bounces]
every = "1s"
settle = "2s"
start = "30h"
sinks = ["archive"]
filter = { events = ["bounce", "out_of_band", "spam_complaint"] }`, SINKS);
  const { page, context, wrong } = await open(site);
  await until("all is well", async () => (await text(page, "#headline")) === "All is well: nothing is being lost");
  await until("everything is counted", async () => !/still counting|not read yet/.test(await text(page, "#streams")) && (await page.locator(".f-delivered").count()) > 20);
  check("two streams", (await page.locator("article.stream").count()) === 2);
  const bars = await page.locator("article.stream .chart svg rect").count();
  check("the charts are drawn", bars > 60, bars);
  const tall = await page.locator("article.stream .chart svg").first().evaluate((svg) => Math.max(...[...svg.querySelectorAll("rect")].map((rect) => rect.getBoundingClientRect().height)));
  check("and fill their place", tall > 30, tall);
  check("a chart says what it shows", /[0-9] delivered/.test(await page.locator("article.stream .chart .plot").first().getAttribute("aria-label")));
  check("the strip says what it shows", /complete/.test(await page.locator(".strip [role=img]").first().getAttribute("aria-label")));
  check("rates", /bounce rate\s*[0-9.]+ %/.test(await text(page, "article.stream >> nth=0")), await text(page, "article.stream >> nth=0"));
  check("ten-day strips", (await page.locator(".strip .h-c").count()) >= 2);

  // It is alive: events that come are seen without anybody doing anything, and what has the focus keeps it.
  await page.locator("button", { hasText: "pause" }).first().focus();
  const captured = () => page.locator("article.stream dd").nth(2).innerText();
  const before = await captured();
  await until("a live update", async () => (await captured()) !== before, 90);
  check("the focus stays", /^pause sink/.test(await page.evaluate(() => document.activeElement.getAttribute("aria-label") || document.activeElement.tagName)));

  await page.locator("label[for=h24]").click();
  await until("a day in the charts", async () => /20:|2[0-3]:|0[0-9]:|1[0-9]:/.test(await text(page, ".axis >> nth=0")) && (await page.locator(".chart svg").first().evaluate((svg) => svg.viewBox.baseVal.width)) <= 730);
  await page.locator("summary").first().click();
  check("the chart as a table", (await page.locator("details[open] tbody tr").count()) > 5);
  await new Promise((go) => setTimeout(go, 4000));
  check("an open table stays open", (await page.locator("details[open]").count()) === 1);
  await page.locator("summary").first().click();
  await page.locator("label[for=h6]").click();

  // The keyboard reaches everything that can be done.
  await page.evaluate(() => document.activeElement.blur());
  await page.locator("body").click({ position: { x: 2, y: 2 } });
  const reached = [];
  for (let i = 0; i < 12; i += 1) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => {
      const one = document.activeElement, style = getComputedStyle(one);
      if (one === document.body) return { what: "", ring: true };
      const label = one.id && document.querySelector(`label[for="${one.id}"]`);
      const ring = label ? getComputedStyle(label) : style;
      return { what: one.getAttribute("aria-label") || one.textContent.trim() || one.id, ring: ring.outlineStyle !== "none" };
    }));
  }
  const names = reached.map((one) => one.what);
  for (const wanted of ["Skip to the state", "h6", "as a table", "pause sink archive", "pause sink database"]) check(`the keyboard reaches "${wanted}"`, names.includes(wanted), names);
  check("the focus is seen", reached.every((one) => one.ring), reached);
  for (const landmark of ["header", "main", "footer", "h1", "main section[aria-labelledby]"]) check(`there is ${landmark}`, (await page.locator(landmark).count()) > 0);
  check("the verdict is announced", (await page.locator("#headline").getAttribute("aria-live")) === "polite");
  const unnamed = await page.locator("button, input, [role=img]").evaluateAll((all) => all.filter((one) => one.offsetParent && !(one.getAttribute("aria-label") || one.textContent.trim() || document.querySelector(`label[for="${one.id}"]`))).length);
  check("everything has a name", unnamed === 0, unnamed);

  // A change: the token is asked for, a wrong one is refused, the right one pauses the sink.
  await page.getByRole("button", { name: "pause sink archive" }).click();
  await page.locator("#token").fill("not-the-token-not-the-token");
  wrong.length = 0;
  await page.getByRole("button", { name: "Go on" }).click();
  await until("a wrong token is refused", async () => (await text(page, "#ask-why")).includes("not the token"));
  check("and that is all that went wrong", wrong.every((one) => one.includes("401")), wrong);
  wrong.length = 0;
  await page.locator("#token").fill(TOKEN);
  await page.keyboard.press("Enter");
  await until("the sink is paused", async () => (await text(page, "#sinks")).includes("paused"));
  await page.getByRole("button", { name: "resume sink archive" }).click();
  await until("the sink goes on", async () => !(await text(page, "#sinks")).includes("paused"));

  await page.evaluate(() => document.activeElement.blur());
  await page.mouse.move(2, 2);
  await shoot(page, "page-light");
  await page.emulateMedia({ colorScheme: "dark" });
  await shoot(page, "page-dark");
  const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  check("dark is dark", /rgb\((\d|[1-4]\d), /.test(ground), ground);
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 320, height: 640 });
  await fits(page, "320 px");
  await shoot(page, "page-phone");
  await page.setViewportSize({ width: 1180, height: 900 });
  check("nothing went wrong", wrong.length === 0, wrong);

  // The daemon goes, and the page says so; it comes back by itself where the daemon does.
  await end(site.child, "SIGKILL");
  await until("the connection is lost", async () => (await text(page, "#lost-line")).startsWith("Connection lost"));
  check("and seen as such", await page.locator("#live.off").count() === 1 && await page.locator("body.stale").count() === 1);
  await shoot(page, "page-lost", false);
  await context.close();
  await end(api.child);
}

async function failing() {
  const api = await simulate("--events", "4000", "--from", "11d", "--to", "1h");
  const base = `[streams.all]
every = "1s"
settle = "2s"
start = "9d"
sinks = ["archive", "receiver"]
[sinks.archive.file]
path = "DIR/events.ndjson"
[sinks.receiver.webhook]
url = "http://127.0.0.1:9/"
allow = ["127.0.0.1"]
[accounts.eu]
url = "${api.url}"
key_env = "WRONG"
`;
  lives += 1;
  const dir = join(folder, `life-${lives}`);
  mkdirSync(dir);
  writeFileSync(join(dir, "events.ndjson"), "half a line that nobody knows");
  const config = join(dir, "sparkspool.toml");
  writeFileSync(config, `data_dir = "${dir}/data"
[api]
url = "${api.url}"
requests_per_minute = 6000
[http]
listen = "127.0.0.1:0"
token_env = "TOKEN"
${base.replaceAll("DIR", dir)}
[streams.europe]
account = "eu"
every = "1s"
sinks = ["archive"]
`);
  const env = { SPARKPOST_API_KEY: "simulated-key", TOKEN, WRONG: "not-the-key" };
  const lost = start(["backfill", "--stream", "all", "--from", iso(11), "--to", iso(10.5), "--patience", "5s", "--config", config], { cwd: dir, env });
  lost.stderr.resume(); lost.stdout.resume();
  const [code] = await once(lost, "exit");
  check("a backfill of what has expired is incomplete", code === 65 || code === 69, code);
  const child = start(["run", "--config", config], { cwd: dir, env });
  const at = await said(child, "stderr", /endpoint listens at=(http:\S+)/);
  child.stderr.resume();
  const { page, context, wrong } = await open({ at });
  await until("the loss, the key and the sink are named", async () => {
    const seen = await text(page, "#reasons");
    return ["Lost: all", "Key refused: europe", "Sink: archive"].every((one) => seen.includes(one));
  });
  check("the verdict is bad", (await page.locator("#verdict.bad").count()) === 1 && (await text(page, "#headline")) === "Events were lost");
  check("the title counts", /^\(\d+\) sparkspool$/.test(await page.title()), await page.title());
  const sinks = await text(page, "#sinks");
  check("the sink's error and when it is tried again", sinks.includes("suspended") && /tried again (in|now)/.test(sinks), sinks);
  check("the gap is listed", (await page.locator("#losses tbody tr").count()) >= 1);
  await shoot(page, "page-failing");
  await page.setViewportSize({ width: 320, height: 640 });
  await fits(page, "failing, 320 px");
  await shoot(page, "page-failing-phone");
  await page.setViewportSize({ width: 1180, height: 900 });
  await page.getByRole("button", { name: "Acknowledge what is shown" }).click();
  await page.locator("#token").fill(TOKEN);
  await page.getByRole("button", { name: "Go on" }).click();
  await until("the loss is acknowledged", async () => !(await text(page, "#reasons")).includes("Lost: all") && (await text(page, "#losses")).includes("acknowledged"));
  check("nothing went wrong", wrong.length === 0, wrong);
  check("no address on the page", !(await page.content()).includes("@example"));
  await context.close();
  await end(child);
  await end(api.child);
}

async function empty() {
  const api = await simulate("--events", "5", "--from", "20d", "--to", iso(19));
  const site = await daemon(api.url, `[streams.all]
every = "1s"
settle = "2s"
start = "1h"
sinks = ["archive"]`, `[sinks.archive.file]
path = "DIR/events.ndjson"`);
  const { page, context, wrong } = await open(site, { viewport: { width: 900, height: 700 } });
  await until("well without an event", async () => (await text(page, "#headline")) === "All is well: nothing is being lost");
  check("no bars, and words instead", /no events in this time|Nothing was captured yet/.test(await text(page, "#streams")), await text(page, "#streams"));
  check("no losses, no letters", (await text(page, "#losses")).includes("Nothing has expired") && (await text(page, "#letters")).startsWith("None"));
  await shoot(page, "page-empty");
  check("nothing went wrong", wrong.length === 0, wrong);
  await context.close();
  await end(site.child);
  await end(api.child);
}

async function ten() {
  const api = await simulate("--events", "8000", "--from", "8h", "--to", "1h");
  const kinds = ["delivery", "injection", "open", "click", "bounce", "delay", "out_of_band", "spam_complaint", "list_unsubscribe", "policy_rejection"];
  const streams = kinds.map((kind) => `[streams.a-rather-long-name-of-a-stream-${kind}]
every = "5s"
settle = "2s"
start = "8h"
sinks = ["archive", "database"]
filter = { events = ["${kind}"] }`).join("\n");
  const site = await daemon(api.url, streams, SINKS);
  const { page, context, wrong } = await open(site);
  await until("ten streams are well", async () => (await page.locator("article.stream .tag.good").count()) === 10 && (await page.locator(".chart .legend").allInnerTexts()).filter((one) => one).length >= 9);
  await shoot(page, "page-ten-streams");
  await page.setViewportSize({ width: 320, height: 640 });
  await fits(page, "ten streams, 320 px");
  check("nothing went wrong", wrong.length === 0, wrong);
  await context.close();
  await end(site.child);
  await end(api.child);
}

try {
  for (const state of [healthy, failing, empty, ten]) {
    console.log(`== ${state.name}`);
    await state();
  }
} catch (error) {
  failures += 1;
  console.error(error);
} finally {
  await browser.close();
  for (const child of children) await end(child, "SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
if (failures) {
  console.error(`${failures} failed`);
  process.exit(1);
}
console.log("the page is as it should be");
