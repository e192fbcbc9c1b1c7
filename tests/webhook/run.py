"""The webhook sink before receivers that are not ours: what the program posts is verified by the packages that receivers use, and
all that it has captured arrives although receivers fail at random, the program is killed twice, and its secret is changed.
Usage: run.py PROGRAM NODE_MODULES [SEED], with a Python that has the packages."""

import collections
import gzip
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM, NODE_MODULES = sys.argv[1:3]
SEED = sys.argv[3] if len(sys.argv) > 3 else str(random.randrange(10**6))
EVENTS = 1500
# A proof that takes longer than this, in seconds, hangs.
PATIENCE = 180
# Which secrets each run of the program signs with. The first two runs are killed when some receiver has this share of all.
RUNS = {"1": ["old"], "2": ["new", "old"], "3": ["new"]}
KILLED_AT = {"1": 0.3, "2": 0.65}
# Events in a batch: another number in each run, and yet a batch that was under way must come again as it was.
BATCHES = {"1": 50, "2": 40, "3": 60}
# The sinks before receiver.py and receiver.js, and the format of a file that holds the same events.
SINKS = {
    "batches": ('format = "normalized"\ngzip = true\nbearer_env = "EVENTS_TOKEN"', "normalized", "id"),
    "single": ('format = "cloudevents"\nsingle = true\nbearer_env = "EVENTS_TOKEN"', "cloudevents", "id"),
    "sendgrid": ('format = "sendgrid"\nsendgrid_key_env = "SENDGRID_SIGNING_KEY"', "sendgrid", "sg_event_id"),
}
FAULTS = {"500", "429", "unread", "cut", "half", "silent"}
# Answers, or want of any, of a receiver that has what it was sent, whether the sink could know that or not.
TAKEN = {"200", "cut", "half", "silent"}
SECRET = 'echo "whsec_$(openssl rand -base64 32)"'
SENDGRID_KEY = """\
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER | openssl base64 -A >sendgrid-key
openssl pkey -in key.pem -pubout -outform DER | openssl base64 -A >sendgrid-key.pub
"""

folder = pathlib.Path(tempfile.mkdtemp())
children = []


def shell(command):
    return subprocess.run(["bash", "-ec", command], cwd=folder, check=True, capture_output=True).stdout.decode().strip()


def start(*command, env={}, **how):
    child = subprocess.Popen(command, env=os.environ | env, stdout=subprocess.PIPE, text=True, **how)
    children.append(child)
    return child


def kill(child):
    child.kill()
    child.wait()


def first_line(child):
    line = child.stdout.readline().strip()
    assert line, f"{child.args} did not start"
    return line


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def documented():
    """What the documents quote is what is proven here."""
    docs = "\n".join(page.read_text() for page in (HERE.parent.parent / "docs").glob("*.md"))
    for text in (SECRET, SENDGRID_KEY, (HERE / "example.py").read_text(), (HERE / "anymail_view.py").read_text()):
        assert text in docs, f"no document has this any more:\n{text}"


class Receivers:
    """All receivers, and what they say of themselves."""

    def __init__(self, keys):
        self.keys, self.example_port = keys, free_port()
        self.logs = {name: folder / f"{name}.log" for name in ("python", "node", "anymail")}
        command = {
            "python": [sys.executable, HERE / "receiver.py", self.logs["python"], SEED],
            "node": ["node", HERE / "receiver.js", self.logs["node"], SEED],
            "anymail": [sys.executable, HERE / "anymail_site.py", self.logs["anymail"]],
        }
        env = keys | {"NODE_PATH": NODE_MODULES, "PYTHONDONTWRITEBYTECODE": "yes"}
        for log in self.logs.values():
            log.touch()
        self.ports = {name: first_line(start(*words, env=env)) for name, words in command.items()}
        self.start_example("OLD_SECRET")

    def start_example(self, secret):
        words = [sys.executable, HERE / "example.py", str(self.example_port), folder / "taken.db"]
        self.example = start(*words, env={"EVENTS_SECRET": self.keys[secret]}, stderr=subprocess.DEVNULL)

    def requests(self):
        """What the logs hold: for each path of each receiver its requests, in their order."""
        found = collections.defaultdict(list)
        for name, log in self.logs.items():
            for line in log.read_text().split("\n")[:-1]:
                request = json.loads(line)
                found[name + request["path"]].append(request)
        return found


def configuration(api, receivers, run, allow='["127.0.0.1"]'):
    sinks, tables = [], []
    for name in ("normalized", "cloudevents", "sendgrid", "sparkpost-webhook"):
        sinks.append(f"file-{name}")
        tables.append(f'[sinks.file-{name}.file]\npath = "{folder}/{name}.ndjson"\nformat = "{name}"')

    def webhook(name, url, keys, more=""):
        sinks.append(name)
        tables.append(f'[sinks.{name}]\nbatch_events = {BATCHES[run]}\n{more}[sinks.{name}.webhook]\nurl = "http://127.0.0.1:{url}"\n{keys}')
        tables.append(f'timeout = "1s"\nallow = {allow}\n[sinks.{name}.webhook.headers]\nX-Run = "{run}"')

    for language in ("python", "node"):
        for path, (keys, _, _) in SINKS.items():
            webhook(f"{language}-{path}", f"{receivers.ports[language]}/{path}", f'secret_env = "EVENTS_SECRET"\n{keys}')
    # These never fail, and would have everything before the first kill.
    slow = "rate_limit = 200\n"
    anymail = 'secret_env = "ANYMAIL_SECRET"\nformat = "sparkpost-webhook"'
    webhook("anymail", f'{receivers.ports["anymail"]}/sparkpost/', anymail, slow)
    webhook("example", receivers.example_port, 'secret_env = "EVENTS_SECRET"\ngzip = true', slow)
    head = f'data_dir = "{folder}/data"\n[api]\nurl = "{api}"\nkey_env = "SIMULATED_KEY"\nrequests_per_minute = 6000'
    stream = f"[streams.all]\nsinks = {json.dumps(sinks)}"
    (folder / "sparkspool.toml").write_text("\n".join([head, stream, *tables, ""]))


def sparkspool(*words, env, **how):
    return subprocess.Popen([PROGRAM, "--config", folder / "sparkspool.toml", *words], env=os.environ | env, **how)


def guarded(receivers, env):
    """Without `allow` nothing on this machine is reached; with it everything is there."""
    for allow, code in (("[]", 69), ('["127.0.0.1"]', 0)):
        configuration(receivers.api, receivers, "1", allow)
        check = sparkspool("check", "--online", env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        children.append(check)
        said = check.communicate()[0]
        refused = said.count("is no public address")
        assert (check.returncode, refused) == (code, 8 if code else 0), f"allow = {allow}: {said}"


def forward(receivers, run, env):
    """One run of the program, until it has forwarded everything or has been killed."""
    configuration(receivers.api, receivers, run)
    with open(folder / f"run-{run}.err", "w") as errors:
        child = sparkspool("backfill", "--since", "1d", env=env, stderr=errors)
    children.append(child)
    while child.poll() is None:
        if run in KILLED_AT and max(progress(receivers).values(), default=0) >= KILLED_AT[run]:
            kill(child)
        time.sleep(0.2)
    assert child.returncode == (-9 if run in KILLED_AT else 0), f"run {run} of the program ended with {child.returncode}"


def progress(receivers):
    """Which share of the events each path has taken."""
    return {path: sum(map(len, stable(path, seen).values())) / EVENTS for path, seen in receivers.requests().items()}


def rotate_example(receivers):
    """The second run signs with both secrets: in the middle of it, the example learns the new one."""

    def change():
        time.sleep(2)
        kill(receivers.example)
        receivers.start_example("NEW_SECRET")

    changing = threading.Thread(target=change)
    changing.start()
    return changing


def forged(receivers):
    """What was not signed by us is refused by the receivers that have to know."""
    for port, path, body in (
        (receivers.ports["anymail"], "sparkpost/", b"[]"),
        (receivers.example_port, "", gzip.compress(b"[]")),
    ):
        headers = {"webhook-id": "msg_x", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
        forgery = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", body, headers)
        try:
            status = urllib.request.urlopen(forgery, timeout=10).status
        except urllib.error.HTTPError as error:
            status = error.code
        assert status in (401, 403), f"a forged request was answered {status}"


def events_of(name):
    return [json.loads(line) for line in (folder / f"{name}.ndjson").read_text().split("\n")[:-1]]


def once_each(path, batches, expected):
    """Batches by their ids, each once, are all events, each once."""
    found = collections.Counter(event for events in batches.values() for event in events)
    missing, surplus = collections.Counter(expected) - found, found - collections.Counter(expected)
    assert not missing, f"{path}: {missing.total()} of {len(expected)} events are missing, as {next(iter(missing))}"
    assert not surplus, f"{path}: {surplus.total()} events came under two ids, as {next(iter(surplus))}"


def stable(path, requests):
    """An id stands for one body, however often it came. Returns what was taken, by ids."""
    bodies, taken = {}, {}
    for request in requests:
        if "id" in request:
            body = request.get("body")
            assert bodies.setdefault(request["id"], body) == body, f"{path}: two bodies of {request['id']}"
        if request["answer"] in TAKEN:
            taken[request["id"]] = request.get("events", [])
    return taken


def verified(path, requests):
    """Every request was verified, every fault has struck, and every secret has had its time."""
    for request in requests:
        assert "wrong" not in request, f"{path}: {request}"
        whole = request["answer"] != "unread"
        assert not whole or sorted(request["keys"]) == sorted(RUNS[request["run"]]), f"{path}: signed with others: {request}"
        assert request["gzip"] == path.endswith("batches"), f"{path}: {request}"
    missing = FAULTS - {request["answer"] for request in requests}
    assert not missing, f"{path}: never happened: {missing}"
    runs = {request["run"] for request in requests}
    assert runs == set(RUNS), f"{path}: only runs {runs} reached it"


def patient(path, requests):
    """`Retry-After` is kept. Returns how often that was seen. An answer that came too late for the program was none, and
    its connection is not used again."""
    answers = [(a, b) for a, b in zip(requests, requests[1:]) if a["answer"] == "429" and a["connection"] == b["connection"]]
    for request, following in answers:
        waited = following["at"] - request["at"]
        assert waited >= 1.9, f"{path}: Retry-After: 2, and {waited:.1f} s later"
    return len(answers)


def resumed(path, requests):
    """A batch that was under way when the program was killed comes again, under the id that it had. Returns how many were."""
    kept = 0
    for request, following in zip(requests, requests[1:]):
        if request["run"] != following["run"] and request["answer"] not in ("200", "413", "unread") and "id" in following:
            assert request["id"] == following["id"], f"{path}: another batch after the kill: {request} {following}"
            kept += 1
    return kept


def judge(receivers, env):
    status = sparkspool("status", "--json", env=env, stdout=subprocess.PIPE)
    children.append(status)
    status = json.loads(status.communicate()[0])
    captured = status["streams"][0]["captured"]
    waiting = {sink["name"]: sink["waiting"] for sink in status["sinks"] if sink["waiting"] or sink["suspended"]}
    assert not (waiting or status["dead_letters"] or status["gaps"]), f"not all is forwarded: {status}"
    ids = [event["id"] for event in events_of("normalized")]
    assert len(ids) == captured > 0, "the file does not hold what was captured"
    found, kept, waits = receivers.requests(), 0, 0
    for language in ("python", "node"):
        for name, (_, file, key) in SINKS.items():
            path, requests = f"{language}/{name}", found[f"{language}/{name}"]
            verified(path, requests)
            waits += patient(path, requests)
            # Single events begin again where their batch does.
            kept += 0 if name == "single" else resumed(path, requests)
            taken, expected = stable(path, requests), [event[key] for event in events_of(file)]
            once_each(path, taken, expected)
            again = sum(request["answer"] in TAKEN for request in requests) - len(taken)
            faults = sum(request["answer"] in FAULTS for request in requests)
            assert again > 0, f"{path}: nothing ever came twice, which proves nothing"
            print(f"{path}: {len(requests)} requests, {faults} faults, {again} batches twice; all of {len(expected)} events")
    parts = sum(request["answer"] == "413" for request in found["node/batches"])
    assert parts > 0, "no batch was ever too large"
    seen = found["anymail/anymail"]
    taken = {key: [event[0] for event in made] for key, made in stable("anymail", seen).items()}
    # An event about a text message has no id of its own.
    events = [members for event in events_of("sparkpost-webhook") for members in event["msys"].values()]
    expected = [event.get("event_id") for event in events]
    once_each("anymail", taken, expected)
    types = {event[1] for request in seen for event in request["events"]}
    print(f"django-anymail: {len(seen)} batches, all of {len(expected)} events, of {len(types)} types")
    rows = sqlite3.connect(folder / "taken.db").execute("SELECT id, body FROM taken").fetchall()
    taken = {key: [event["id"] for event in json.loads(gzip.decompress(body))] for key, body in rows}
    once_each("example.py", taken, ids)
    print(f"example.py: {len(taken)} batches, all of {captured} events")
    assert waits > 0, "no receiver was ever left alone for as long as it asked"
    print(f"{parts} batches were halved, {kept} were under way when the program was killed, {waits} waits were kept to")


def main():
    documented()
    names = ("OLD_SECRET", "NEW_SECRET", "OTHER_SECRET", "ANYMAIL_SECRET", "EVENTS_TOKEN")
    keys = {name: shell(SECRET) for name in names}
    shell(SENDGRID_KEY)
    keys["SENDGRID_PUBLIC"] = (folder / "sendgrid-key.pub").read_text()
    private = {"SENDGRID_SIGNING_KEY": (folder / "sendgrid-key").read_text(), "SIMULATED_KEY": "simulated-key"}
    receivers = Receivers(keys)
    api = start(PROGRAM, "simulate", "--events", str(EVENTS), "--from", "23h", "--to", "0s", "--seed", "7")
    receivers.api = first_line(api).split()[0]
    for run, secrets in RUNS.items():
        env = keys | private | {"EVENTS_SECRET": ",".join(keys[f"{name.upper()}_SECRET"] for name in secrets)}
        if run == "1":
            guarded(receivers, env)
        changing = rotate_example(receivers) if run == "2" else None
        forward(receivers, run, env)
        if changing:
            changing.join()
    forged(receivers)
    judge(receivers, env)


def stop(number, _):
    sys.exit(f"stopped by {signal.Signals(number).name}")


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGALRM, stop)
signal.alarm(PATIENCE)
try:
    main()
except BaseException:
    for errors in sorted(folder.glob("run-*.err")):
        print(f"-- {errors.name}:", *errors.read_text().split("\n")[-9:], sep="\n", file=sys.stderr)
    print(f"-- the webhook's proof failed, with the seed {SEED}", file=sys.stderr)
    raise
finally:
    for child in children:
        kill(child)
    shutil.rmtree(folder, ignore_errors=True)
