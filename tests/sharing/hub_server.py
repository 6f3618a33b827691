"""A hub on loopback: what huggingface_hub's client asks of one to push and to pull a model.

Real HTTP. Repositories are in memory: name -> file -> bytes. Small files arrive within the commit,
weights by the protocol of Git LFS (batch, then PUT), as on the real hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a_token_for_tests"


@dataclass
class Hub:
    """What the server holds.

    Attributes:
        address: of the server.
        repositories: name -> file -> content.
        private: names of private repositories.
        objects: digest -> content, uploaded by LFS.
        asked: method and path of every request, in order.
    """

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def commit(self, name: str) -> str:
        """Return the hash of the current state of a repository."""
        content = repr(sorted(self.repositories[name].items())).encode()
        return hashlib.sha1(content).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve an empty hub on a free port."""
    hub = Hub()

    class Handler(_Handler):
        """Requests to this hub."""

        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _answer(self, code: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.asked.append(f"{self.command} {path}")
        body = self._body()
        writes = self.command != "GET" and self.command != "HEAD"
        if writes and not path.startswith("/objects/") and not self._is_known():
            self._answer(401, {"error": "no valid token"})
            return
        for pattern, action in _ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                action(self, body, *found.groups())
                return
        self._answer(404, {"error": f"no route {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = _route  # noqa: N815

    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _missing(self, name: str) -> bool:
        hidden = name in self.state.private and not self._is_known()
        if name not in self.state.repositories or hidden:
            self._answer(404, {"error": "not found"}, X_Error_Code="RepoNotFound")
            return True
        return False

    # ------------------------------------------------------------ push

    def create(self, body: bytes) -> None:
        """Make a repository."""
        given = json.loads(body)
        name = f"{given.get('organization') or 'me'}/{given['name']}"
        code = 409 if name in self.state.repositories else 200
        self.state.repositories.setdefault(name, {})
        if given.get("private") or given.get("visibility") == "private":
            self.state.private.add(name)
        self._answer(code, {"url": f"{self.state.address}/{name}", "name": name, "id": name})

    def who(self, _: bytes) -> None:
        """Say whose token it is."""
        self._answer(200, {"name": "me", "type": "user", "orgs": []})

    def validate(self, _: bytes) -> None:
        """Check the head of a model card."""
        self._answer(200, {"warnings": [], "errors": []})

    def preupload(self, body: bytes, name: str) -> None:
        """Say which files go through LFS."""
        if self._missing(name):
            return
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for one in json.loads(body)["files"]
        ]
        self._answer(200, {"files": files})

    def batch(self, body: bytes, _: str) -> None:
        """Say where to put objects."""
        objects = [
            {
                **one,
                "authenticated": True,
                "actions": {"upload": {"href": f"{self.state.address}/objects/{one['oid']}"}},
            }
            for one in json.loads(body)["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, digest: str) -> None:
        """Take an object."""
        assert hashlib.sha256(body).hexdigest() == digest
        self.state.objects[digest] = body
        self._answer(200)

    def commit(self, body: bytes, name: str) -> None:
        """Add the files of a commit."""
        if self._missing(name):
            return
        files = self.state.repositories[name]
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
        found = self.state.commit(name)
        url = f"{self.state.address}/{name}/commit/{found}"
        self._answer(200, {"success": True, "commitOid": found, "commitUrl": url})

    # ------------------------------------------------------------ pull

    def info(self, _: bytes, name: str, __: str | None = None) -> None:
        """Describe a repository."""
        if self._missing(name):
            return
        files = [{"rfilename": file} for file in self.state.repositories[name]]
        content = {"_id": "1", "id": name, "modelId": name, "sha": self.state.commit(name)}
        self._answer(200, {**content, "private": name in self.state.private, "siblings": files})

    def tree(self, _: bytes, name: str) -> None:
        """List the files of a repository."""
        if self._missing(name):
            return
        self._answer(
            200,
            [
                {"type": "file", "path": file, "size": len(content), "oid": _etag(content)}
                for file, content in self.state.repositories[name].items()
            ],
        )

    def resolve(self, _: bytes, name: str, file: str) -> None:
        """Send a file."""
        if self._missing(name):
            return
        content = self.state.repositories[name].get(file)
        if content is None:
            self._answer(404, b"", X_Error_Code="EntryNotFound")
            return
        headers = {"ETag": f'"{_etag(content)}"', "X_Repo_Commit": self.state.commit(name)}
        self._answer(200, content, **headers)


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: tuple[tuple[str, Any], ...] = (
    (r"GET /api/whoami-v2", _Handler.who),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{_NAME}/preupload/[^/]+", _Handler.preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /objects/(\w+)", _Handler.put),
    (rf"POST /api/models/{_NAME}/commit/[^/]+", _Handler.commit),
    (rf"GET /api/models/{_NAME}/tree/[^/]+", _Handler.tree),
    (rf"GET /api/models/{_NAME}(?:/revision/([^/]+))?", _Handler.info),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/[^/]+/(.+)", _Handler.resolve),
)
