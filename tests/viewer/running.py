"""A viewer in a thread of the test, and requests to it without a browser."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from colipri.run.view import _application, build_parser
from colipri.viewer.application import Application
from colipri.viewer.server import ViewerServer


@dataclass(frozen=True)
class Reply:
    """What a request got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A viewer that serves."""

    server: ViewerServer
    application: Application

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server.server_address[1])

    @property
    def base(self) -> str:
        """The path of the page."""
        return f"/{self.server.access.token}/"

    def raw(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def ask(self, method: str, path: str, content: Any = None) -> Reply:
        """Send a request as the page does."""
        body = None if content is None else json.dumps(content).encode()
        return self.raw(method, self.base + path, body)

    def run(self, kind: str, scan: str, argument: str = "") -> dict[str, Any]:
        """Have something computed; the job at its end."""
        job: dict[str, Any] = self.ask(
            "POST", "jobs", {"kind": kind, "scan": scan, "argument": argument}
        ).content
        deadline = time.monotonic() + 60
        while job.get("state") in ("waiting", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
            job = self.ask("GET", f"jobs/{job['id']}").content
        return job

    def upload(self, files: Mapping[str, bytes]) -> Reply:
        """Send files as one upload; the answer to its end, or to what was refused."""
        identifier = self.ask("POST", "uploads").content["id"]
        for name, content in files.items():
            path = f"{self.base}uploads/{identifier}?name={quote(name, safe='')}"
            reply = self.raw("PUT", path, content)
            if reply.status != 200:
                return reply
        return self.ask("POST", f"uploads/{identifier}")


@contextmanager
def start(*arguments: object) -> Iterator[Running]:
    """Serve what ``colipri_view`` would with these arguments."""
    options = build_parser().parse_args([*map(str, arguments), "-device", "cpu"])
    server = ViewerServer(options.port)
    server.application = application = _application(options)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Running(server, application)
    finally:
        server.shutdown()
        server.server_close()
        application.close()
        thread.join()
