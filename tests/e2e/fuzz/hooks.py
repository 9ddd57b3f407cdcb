"""What schemathesis has to know about us: who asks, and from where. Writes AIRSTREAM_WFC, which tells it of the people."""

import itertools
import json
import os
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import schemathesis

URL = os.environ["AIRSTREAM_URL"]
LOGINS = json.loads(os.environ["AIRSTREAM_LOGINS"])
# Shorter than an access token lasts.
KEPT_SECONDS = 300

clients = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Each request comes from another address, or most of a long run would be told that somebody there guesses passwords."""
    # What only those on this machine may see.
    if not case.path.startswith("/mailbox"):
        client = next(clients)
        case.headers["X-Forwarded-For"] = f"198.18.{client >> 8 & 255}.{client & 255}"


def ask(method, path, body=None, token=None):
    headers = {"Content-Type": "application/json", "X-Forwarded-For": "203.0.113.1"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers, method=method)) as answer:
        return json.load(answer)


class Tokens(BaseHTTPRequestHandler):
    """An access token for whose name is posted to: the one before as long as it is good. They expire, the run itself ends their
    sessions, and schemathesis asks again after each 401, also after one that was meant: logging in each time is too much."""

    kept = {}
    turn = threading.Lock()

    def do_POST(self):
        name = self.path.strip("/")
        with self.turn:
            token, until = self.kept.get(name, (None, 0))
            if time.monotonic() > until or not self.is_good(token):
                token = ask("POST", "/v1/auth/login", LOGINS[name])["access_token"]
                self.kept[name] = (token, time.monotonic() + KEPT_SECONDS)
        body = json.dumps({"access_token": token}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def is_good(self, token):
        try:
            return bool(ask("GET", "/v1/whoami", token=token))
        except urllib.error.HTTPError:
            return False

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
threading.Thread(target=server.serve_forever, daemon=True).start()


def entry(name):
    token = {
        "extractFrom": "body",
        "extractSelector": "/access_token",
        "sendIn": "header",
        "sendName": "Authorization",
        "sendTemplate": "Bearer {token}",
    }
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    login = {"externalEndpointURL": url, "verb": "POST", "contentType": "application/json", "payloadRaw": "{}"}
    return {"name": name, "loginEndpointAuth": {**login, "token": token}}


# Web Fuzzing Commons: whose requests there are, and how to sign in as them.
with open(os.environ["AIRSTREAM_WFC"], "w") as file:
    json.dump({"auth": [entry(name) for name in LOGINS]}, file)
