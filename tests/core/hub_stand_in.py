"""A small server that answers as the hub does, on this machine alone."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """One repository with its files; what it refuses, and when it hangs up, can be set."""

    def __init__(self, repository, files):
        self.repository, self.files = repository, files
        self.commit, self.gated, self.stop_after, self.sha256 = COMMIT, False, None, None
        self.asked = []

    def sha_of(self, name):
        return self.sha256 or hashlib.sha256(self.files[name]).hexdigest()

    def info(self):
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "blobId": self.sha_of(name)[:40],
                "lfs": {"sha256": self.sha_of(name), "size": len(data), "pointerSize": 130},
            }
            for name, data in self.files.items()
        ]
        return {"id": self.repository, "modelId": self.repository, "sha": self.commit, "siblings": siblings}


def handler(hub):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def refuse(self, code, error):
            self.send_response(code)
            self.send_header("X-Error-Code", error)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def answer(self, *, body):
            hub.asked.append((self.command, self.path, self.headers.get("Range")))
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{hub.repository}"):
                revision = path.partition("/revision/")[2]
                if revision not in ("", "main", hub.commit):
                    return self.refuse(404, "RevisionNotFound")
                data = json.dumps(hub.info()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                return self.wfile.write(data)
            name = path.partition(f"/resolve/{hub.commit}/")[2]
            if not path.startswith(f"/{hub.repository}/") or name not in hub.files:
                return self.refuse(404, "RepoNotFound")
            if hub.gated:
                return self.refuse(403, "GatedRepo")
            return self.send_file(name, body=body)

        def send_file(self, name, *, body):
            data = hub.files[name]
            start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            self.send_response(206 if self.headers.get("Range") else 200)
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("ETag", f'"{hub.sha_of(name)}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if body:
                self.wfile.write(data[start : None if hub.stop_after is None else start + hub.stop_after])

        def do_GET(self):
            self.answer(body=True)

        def do_HEAD(self):
            self.answer(body=False)

    return Handler


@contextmanager
def serving(hub):
    """Serve a hub, and give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
