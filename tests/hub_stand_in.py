"""A Hub in a thread: the few endpoints that pushing and pulling a model use, in memory."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_stand_in"


class StandIn:
    """Repositories by name, each a commit id and files; `requests` as (method, path)."""

    def __init__(self):
        self.repositories = {}
        self.private = set()
        self.requests = []
        self.refuses = None  # a status to answer everything with
        self.url = None

    def commit(self, name, changes):
        files = {**self.repositories[name][1], **changes}
        listing = repr(
            sorted((path, hashlib.sha1(data).hexdigest()) for path, data in files.items())
        )
        self.repositories[name] = (hashlib.sha1(listing.encode()).hexdigest(), files)
        return self.repositories[name][0]


@contextmanager
def serving():
    """A running `StandIn`."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(("POST", self.path))
        if self.hub.refuses is not None:
            return self._json(self.hub.refuses, {"error": "refused"})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self._json(200, {"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path)
        if found and found[1] in self.hub.repositories:
            return (self._preupload if found[2] == "preupload" else self._commit)(found[1], body)
        return self._missing("RepoNotFound")

    def do_GET(self):
        self.hub.requests.append((self.command, self.path))
        if self.hub.refuses is not None:
            return self._json(self.hub.refuses, {"error": "refused"})
        path = self.path.partition("?")[0]
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = (api or file)[1] if api or file else None
        seen = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name not in self.hub.repositories or (name in self.hub.private and not seen):
            return self._missing("RepoNotFound")
        commit, files = self.hub.repositories[name]
        if ((api and api[3]) or (file and file[2]) or "main") not in ("main", commit):
            return self._missing("RevisionNotFound")
        if file:
            return self._file(commit, files.get(file[3]))
        if api[2] == "tree":
            return self._json(200, [self._entry(path, data) for path, data in files.items()])
        siblings = [{"rfilename": path} for path in files]
        return self._json(200, {"id": name, "sha": commit, "siblings": siblings, "tags": []})

    do_HEAD = do_GET

    def _create(self, wanted):
        name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repositories:
            return self._json(409, url | {"error": "You already created this model repo"})
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.hub.private.add(name)
        self.hub.repositories[name] = ("", {})
        self.hub.commit(name, {".gitattributes": b""})
        return self._json(200, url)

    def _preupload(self, name, body):
        wanted = json.loads(body)["files"]
        same = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
        return self._json(200, {"files": [same | {"path": f["path"]} for f in wanted]})

    def _commit(self, name, body):
        changes = {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                assert line["value"]["encoding"] == "base64"
                changes[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = self.hub.commit(name, changes)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        return self._json(200, {"commitUrl": url, "commitOid": commit, "success": True})

    def _entry(self, path, data):
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return {"type": "file", "path": path, "size": len(data), "oid": oid}

    def _file(self, commit, data):
        if data is None:
            return self._missing("EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        return self._answer(200, data, headers)

    def _missing(self, code):
        # The real Hub says 401 of a repository that is not there, not to give private ones away.
        status = 401 if code == "RepoNotFound" else 404
        return self._json(status, {"error": code}, {"X-Error-Code": code})

    def _json(self, status, data, headers=None):
        return self._answer(status, json.dumps(data).encode(), headers or {})

    def _answer(self, status, body, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
