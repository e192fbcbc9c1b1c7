"""A soak: mail at a steady rate, an API that fails now and then, six sinks, one of which fails at random, and the program killed
every few seconds. When it is let alone at last, every sink must hold what the API shows: each event, and each once.
Usage: run.py PROGRAM [--minutes 10] [--rate 1000] [--kill-every 8] [--seed N], with a Python that has duckdb, a PostgreSQL and
$CLICKHOUSE_SERVER; PROGRAM is built with the features postgres and object-store."""

import argparse
import collections
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import random
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import duckdb

SERVERS = pathlib.Path(__file__).resolve().parent.parent / "servers"
# How long the program may take, let alone, until everything is everywhere, in seconds.
PATIENCE = 900
# The share of requests that the receiver of the webhook fails, in one of the ways below.
FAILING = 0.25
FAULTS = ("500", "429", "unread", "cut")
KEY = "simulated-key"

arguments = argparse.ArgumentParser()
arguments.add_argument("program")
arguments.add_argument("--minutes", type=float, default=10)
arguments.add_argument("--rate", type=int, default=1000)
arguments.add_argument("--kill-every", type=float, default=8)
arguments.add_argument("--seed", type=int, default=random.randrange(10**6))
OPTIONS = arguments.parse_args()
PROGRAM = str(pathlib.Path(OPTIONS.program).resolve())
chance = random.Random(OPTIONS.seed)


def tell(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


class Receiver(http.server.ThreadingHTTPServer):
    """Takes batches of the webhook, or fails: what it has taken counts, whether it said so or not."""

    daemon_threads = True

    def __init__(self):
        self.taken, self.answers, self.lock = collections.Counter(), collections.Counter(), threading.Lock()
        self.chance = random.Random(OPTIONS.seed + 1)
        super().__init__(("127.0.0.1", 0), Request)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def draw(self):
        with self.lock:
            fault = self.chance.choice(FAULTS) if self.chance.random() < FAILING else "200"
            self.answers[fault] += 1
            return fault

    def take(self, body):
        events = [known(event["id"], event["source_type"]) for event in json.loads(body)]
        with self.lock:
            self.taken.update(events)

    def handle_error(self, request, address):
        """A connection that the other side has ended is what this is about."""


class Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        fault = self.server.draw()
        if fault == "unread":
            return self.reset()
        body = self.rfile.read(int(self.headers["content-length"]))
        if fault in ("200", "cut"):
            self.server.take(body)
        if fault == "cut":
            return self.reset()
        self.send_response(int(fault))
        if fault == "429":
            self.send_header("retry-after", "1")
        self.send_header("content-length", "0")
        self.end_headers()

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def server(script, folder):
    """A server of tests/servers; gives its URL."""
    started = subprocess.run([SERVERS / script, "start", folder], check=True, stdout=subprocess.PIPE, text=True)
    try:
        yield started.stdout.strip()
    finally:
        subprocess.run([SERVERS / script, "stop", folder], check=True)


@contextlib.contextmanager
def simulated(events):
    """The simulated API; gives its URL."""
    words = ["simulate", "--events", str(events), "--from", "0s", "--to", f"{round(OPTIONS.minutes * 60)}s", "--faults", "some"]
    child = subprocess.Popen([PROGRAM, *words, "--key", KEY, "--seed", str(OPTIONS.seed)], stdout=subprocess.PIPE, text=True)
    try:
        yield child.stdout.readline().split()[0]
    finally:
        child.kill()
        child.wait()


def configuration(folder, api, receiver, clickhouse):
    (folder / "sparkspool.toml").write_text(f"""
data_dir = "{folder}/data"
[api]
url = "{api}"
requests_per_minute = 6000
[streams.all]
every = "5s"
settle = "20s"
start = "1h"
sinks = ["lines", "table", "receiver", "warehouse", "olap", "lake"]
[sinks.lines.file]
path = "{folder}/lines.ndjson"
[sinks.table.sqlite]
path = "{folder}/table.db"
[sinks.receiver]
batch_events = 500
[sinks.receiver.webhook]
url = "http://127.0.0.1:{receiver.server_port}/"
allow = ["127.0.0.1"]
timeout = "5s"
[sinks.warehouse.postgres]
url_env = "WAREHOUSE_URL"
ca_file = "{folder}/postgres/authority.pem"
[sinks.olap.clickhouse]
url = "{clickhouse}"
[sinks.lake]
batch_events = 5000
batch_age = "5s"
[sinks.lake.object_store]
url = "file://{folder}/lake"
""")


class Spool:
    """The program under test, life after life."""

    def __init__(self, folder, warehouse):
        self.folder, self.lives, self.peak = folder, 0, 0
        self.env = os.environ | {"SPARKPOST_API_KEY": KEY, "WAREHOUSE_URL": warehouse}
        self.errors = open(folder / "errors", "w")

    def command(self, *words):
        return [PROGRAM, "--config", str(self.folder / "sparkspool.toml"), *words]

    def start(self):
        self.lives += 1
        self.child = subprocess.Popen(self.command("run"), env=self.env, stdout=self.errors, stderr=self.errors)

    def measure(self):
        """The most memory that this life has had, in KiB."""
        assert self.child.poll() is None, f"the program ended by itself, with {self.child.returncode}"
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        self.peak = max(self.peak, int(status.split("VmHWM:")[1].split()[0]))

    def kill(self):
        self.measure()
        self.child.kill()
        self.child.wait()

    def status(self):
        said = subprocess.run(self.command("status", "--json"), env=self.env, stdout=subprocess.PIPE, check=True)
        return json.loads(said.stdout)

    def drain(self, expected):
        """Until as many events as the API shows are captured, and no sink has any of them before it; then stops."""
        begun = time.monotonic()
        while True:
            time.sleep(2)
            self.measure()
            status = self.status()
            captured, waiting = status["streams"][0]["captured"], {sink["name"]: sink["waiting"] for sink in status["sinks"]}
            tell(f"let alone: {captured} of {expected} captured, waiting: {waiting}")
            if captured >= expected and not any(waiting.values()):
                break
            assert time.monotonic() - begun < PATIENCE, f"{captured} of {expected} captured, waiting: {waiting}"
        assert not status["gaps"] and not status["dead_letters"], status
        self.child.terminate()
        assert self.child.wait(timeout=60) == 0


def known(id, source_type):
    """What an event is known by here: an id that sparkspool made, where there was none, is nobody's."""
    return (id if id and not id.startswith("sha256:") else "", source_type)


def truth(api):
    """What the API shows, read by nobody's code but this: each event's id and type."""
    found, target = collections.Counter(), f"{api}/api/v1/events/message?cursor=initial&per_page=10000"
    while target:
        request = urllib.request.Request(target, headers={"Authorization": KEY})
        try:
            page = json.load(urllib.request.urlopen(request, timeout=60))
        except (OSError, ValueError, http.client.HTTPException):
            time.sleep(0.2)
            continue
        found.update(known(row.get("event_id"), row["type"]) for row in page["results"])
        following = page["links"].get("next")
        target = following and (following if following.startswith("http") else api + following)
    return found


def held(folder, receiver, warehouse, clickhouse):
    """What each sink holds: how often each event."""
    psql = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin/psql"), default="psql")
    copy = [psql, warehouse, "-qc", "COPY (SELECT id, source_type FROM sparkpost_events) TO STDOUT"]
    rows = subprocess.run(copy, check=True, stdout=subprocess.PIPE, text=True).stdout
    question = b"SELECT id, source_type FROM sparkpost_events FINAL FORMAT TabSeparated"
    answer = urllib.request.urlopen(clickhouse, question, timeout=120).read().decode()
    lines = map(json.loads, (folder / "lines.ndjson").open())
    lake = f"SELECT id, source_type FROM read_parquet('{folder}/lake/**/*.parquet')"
    pairs = lambda text: (line.split("\t") for line in text.splitlines())
    count = lambda rows: collections.Counter(known(*row) for row in rows)
    return {
        "file": count((event["id"], event["source_type"]) for event in lines),
        "sqlite": count(sqlite3.connect(folder / "table.db").execute("SELECT id, source_type FROM events")),
        "webhook": receiver.taken,
        "postgres": count(pairs(rows)),
        "clickhouse": count(pairs(answer)),
        "object_store": count(duckdb.sql(lake).fetchall()),
    }


def judge(expected, found):
    for name, events in found.items():
        missing, again = (expected - events).total(), (events - expected).total()
        print(f"{name:>12}: {events.total() - again} events, {again} of them again")
        assert not missing, f"{name}: {missing} events are missing"
        assert events.keys() == expected.keys(), f"{name} has events that nobody sent"
        assert name == "webhook" or not again, f"{name} holds events twice"


def soak(folder):
    events = round(OPTIONS.minutes * 60 * OPTIONS.rate)
    receiver = Receiver()
    with (
        server("postgres.sh", folder / "postgres") as warehouse,
        server("clickhouse.sh", folder / "clickhouse") as clickhouse,
        simulated(events) as api,
        contextlib.ExitStack() as stack,
    ):
        configuration(folder, api, receiver, clickhouse)
        spool, end = Spool(folder, warehouse), time.monotonic() + OPTIONS.minutes * 60
        # However this ends, no life outlasts it.
        stack.callback(lambda: spool.child.kill())
        while time.monotonic() < end:
            spool.start()
            time.sleep(OPTIONS.kill_every * chance.uniform(0.3, 1.7))
            spool.kill()
            tell(f"{max(0, end - time.monotonic()):.0f} s to go, {spool.lives} kills, webhook: {len(receiver.taken)} events")
        kills = spool.lives
        spool.start()
        let_alone = time.monotonic()
        # The last of the events is visible within a minute.
        time.sleep(65)
        expected = truth(api)
        assert expected.total() == events, f"the API shows {expected.total()} of {events} events"
        spool.drain(events)
        took = time.monotonic() - let_alone
        tell("")
        judge(expected, held(folder, receiver, warehouse, clickhouse))
        refused = sum(receiver.answers[fault] for fault in FAULTS)
        assert refused and kills, "nothing went wrong, which proves nothing"
        print(f"{events} events at {OPTIONS.rate} a second, {kills} kills, {refused} of {receiver.answers.total()} requests of the webhook "
              f"failed; all of them everywhere {took:.0f} s after the last kill; at most {spool.peak >> 10} MiB (seed {OPTIONS.seed})")


folder = pathlib.Path(tempfile.mkdtemp())
# The server's user must get there.
folder.chmod(0o755)
try:
    soak(folder)
except BaseException:
    print(f"-- the soak failed, with the seed {OPTIONS.seed}; left in {folder}", file=sys.stderr)
    raise
shutil.rmtree(folder)
