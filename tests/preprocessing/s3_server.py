"""S3 as its clients see it: moto's server on loopback, which can fail as often as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen


@dataclass
class S3Server:
    """A running server.

    Attributes:
        url: of its interface.
        fails: asked for each request (method, path): "" to serve it, "500" to answer with an
            internal error, "cut" to close the connection after half of the content.
        requests: "METHOD path" of all that arrived.
    """

    url: str = ""
    fails: Callable[[str, str], str] = lambda method, path: ""
    requests: list[str] = field(default_factory=list)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Serve an empty S3 until the block ends."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = S3Server()
    application = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        server.requests.append(f"{method} {path}")
        failure = server.fails(method, path)
        if failure == "500":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"We encountered an internal error. Please try again."]
        content = b"".join(application(environ, start))
        return [content[: len(content) // 2]] if failure == "cut" else [content]

    listening = make_server("127.0.0.1", 0, answer, threaded=True)
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        # moto keeps what earlier servers of this process held
        urlopen(Request(f"{server.url}/moto-api/reset", method="POST"))
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
