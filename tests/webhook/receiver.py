"""A receiver of webhooks that believes nothing: verifies every request with the official packages, and that they refuse it once
anything is changed. It answers as receivers do on a bad day; what it takes and what it answers is written down for run.py.
Usage: receiver.py LOG SEED; keys are in the environment. receiver.js is the same in another language."""

import gzip
import hashlib
import http.server
import json
import os
import random
import socket
import struct
import sys
import threading
import time

from sendgrid.helpers.eventwebhook import EventWebhook
from standardwebhooks import Webhook, WebhookVerificationError

KEYS = {name: Webhook(os.environ[f"{name.upper()}_SECRET"]) for name in ("old", "new", "other")}
SENDGRID = EventWebhook(os.environ["SENDGRID_PUBLIC"])
TOKEN = os.environ["EVENTS_TOKEN"]
FAULTS = ["500", "429", "unread", "cut", "half", "silent"]
GAPS = {"/single": 100}
LOG = open(sys.argv[1], "a")
LOCK = threading.Lock()


class Deck:
    """Deals every fault once before any comes twice, with a random number of good answers in between."""

    def __init__(self, path):
        self.random = random.Random(sys.argv[2] + path)
        self.gap, self.left, self.faults = GAPS.get(path, 2), 1, []

    def deal(self):
        self.left -= 1
        if self.left >= 0:
            return "200"
        self.left = self.random.randint(1, 2 * self.gap)
        self.faults = self.faults or self.random.sample(FAULTS, len(FAULTS))
        return self.faults.pop()


DECKS = {path: Deck(path) for path in ("/batches", "/single", "/sendgrid")}


def holds(key, body, headers):
    try:
        key.verify(body, headers)
        return True
    except WebhookVerificationError:
        return False


def verify(path, body, headers):
    """Which keys have signed a request. An assertion fails where it is not as it should be, or could be another."""
    signed = {name: headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    keys = [name for name, key in KEYS.items() if holds(key, body, signed)]
    assert keys, "no key has signed it"
    later = str(int(signed["webhook-timestamp"]) + 1)
    changed = [
        (body + b" ", {}),
        (body[1:], {}),
        (body, {"webhook-id": signed["webhook-id"] + "0"}),
        (body, {"webhook-timestamp": later}),
    ]
    for other, header in changed:
        assert not any(holds(key, other, signed | header) for key in KEYS.values()), f"also holds with {header or 'another body'}"
    assert headers["idempotency-key"] == signed["webhook-id"], "two ids"
    if path == "/sendgrid":
        signature = headers["x-twilio-email-event-webhook-signature"]
        timestamp = headers["x-twilio-email-event-webhook-timestamp"]
        text = body.decode()
        assert SENDGRID.verify_signature(text, signature, timestamp), "SendGrid's signature does not hold"
        assert not SENDGRID.verify_signature(text + " ", signature, timestamp), "SendGrid's holds for another body"
        assert not SENDGRID.verify_signature(text, signature, later), "SendGrid's holds for another instant"
    else:
        assert headers["authorization"] == f"Bearer {TOKEN}", "another token"
    return keys


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        with LOCK:
            answer = DECKS[self.path].deal()
        if answer == "unread":
            self.note({"answer": answer})
            return self.cut()
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        seen = {"answer": answer, "id": self.headers["webhook-id"], "body": hashlib.sha256(body).hexdigest()}
        try:
            seen["keys"] = verify(self.path, body, self.headers)
            events = json.loads(body)
            seen["events"] = [self.name_of(event) for event in (events if isinstance(events, list) else [events])]
        except Exception as error:
            seen["wrong"] = f"{type(error).__name__}: {error}"
        self.note(seen)
        if answer in ("200", "500"):
            self.answer(int(answer))
        elif answer == "429":
            self.answer(429, {"Retry-After": "2"})
        elif answer == "half":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nha")
            self.cut()
        elif answer == "cut":
            self.cut()
        else:
            time.sleep(1.5)
            self.cut()

    def name_of(self, event):
        return event["sg_event_id" if self.path == "/sendgrid" else "id"]

    def note(self, seen):
        gzipped = self.headers["content-encoding"] == "gzip"
        seen |= {"path": self.path, "run": self.headers["x-run"], "gzip": gzipped, "at": time.monotonic()}
        seen["connection"] = self.client_address[1]
        with LOCK:
            print(json.dumps(seen), file=LOG, flush=True)

    def answer(self, status, headers={}):
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def cut(self):
        """Resets the connection."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        # The program was killed in the middle of a request.
        if not isinstance(sys.exc_info()[1], (ConnectionError, ValueError)):
            super().handle_error(request, address)

    def shutdown_request(self, request):
        # Not the orderly end that the base class makes of it: that would keep a reset from being one.
        request.close()


server = Server(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
