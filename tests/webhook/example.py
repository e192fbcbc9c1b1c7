import gzip, http.server, os, sqlite3, sys
from standardwebhooks import Webhook, WebhookVerificationError

SECRET = Webhook(os.environ["EVENTS_SECRET"])
TAKEN = sqlite3.connect(sys.argv[2])
TAKEN.execute("CREATE TABLE IF NOT EXISTS taken (id TEXT PRIMARY KEY, body BLOB)")

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            SECRET.verify(gzip.decompress(body), dict(self.headers), json_parse=False)
        except WebhookVerificationError:
            return self.send_error(401)
        with TAKEN:  # Committed when the block ends; what came before under the same id is there already.
            TAKEN.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (self.headers["webhook-id"], body))
        self.send_response(204)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
