"""MONAI Label's HTTP interface for inference, on the loopback address.

3D Slicer's MONAI Label module and MONAILabelClient speak it: /info/, /session/, /datastore/ and
/infer/. Training and active learning are not offered. Every path begins with a random token, so
that no web page that a browser on this machine shows can ask.
"""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from colipri.common.errors import ColipriError
from colipri.inference.inputs import ImageInput
from colipri.serving.inference import Inference
from colipri.serving.multipart import Part, read_form, write_form
from colipri.serving.uploads import Uploads

logger = logging.getLogger(__name__)
ADDRESS = "127.0.0.1"
LARGEST_UPLOAD = 1 << 30  # bytes
_SILENT_SECONDS = 60


class InferenceServer(ThreadingHTTPServer):
    """Serves a model until it is told to stop.

    Args:
        inference: answers.
        folder: where uploads go.
        images: name -> scan of this machine that clients may name; nothing else is read.
        port: 0 for any that is free.

    Raises:
        ColipriError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(
        self, inference: Inference, folder: Path, images: Mapping[str, ImageInput], port: int
    ) -> None:
        self.inference, self.images = inference, dict(images)
        self.incoming, scans = folder / "incoming", folder / "scans"
        for place in (self.incoming, scans):
            place.mkdir()
        self.uploads = Uploads(scans)
        self.token = secrets.token_urlsafe(16)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ColipriError(
                f"the port {port} cannot be used ({error}); choose another one with --port"
            ) from error

    @property
    def url(self) -> str:
        """The address that clients are given."""
        return f"http://{ADDRESS}:{self.server_address[1]}/{self.token}"


class _Handler(BaseHTTPRequestHandler):
    server: InferenceServer
    timeout = _SILENT_SECONDS

    def log_message(self, format: str, *arguments: Any) -> None:
        """To the log, without the token."""
        text = (format % arguments).replace(self.server.token, "TOKEN")
        logger.debug("%s", text)

    def do_GET(self) -> None:
        """Describe the server, its scans, or a session."""
        self._answer_to("GET")

    def do_PUT(self) -> None:
        """Take a scan."""
        self._answer_to("PUT")

    def do_POST(self) -> None:
        """Infer."""
        self._answer_to("POST")

    def do_DELETE(self) -> None:
        """Forget a session."""
        self._answer_to("DELETE")

    def _answer_to(self, method: str) -> None:
        address = urlsplit(self.path)
        _, token, *parts = [unquote(part) for part in address.path.split("/")]
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._send_json(403, {"detail": "the address must begin with the token of the server"})
            return
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        names = [part for part in parts if part]
        action = _ROUTES.get((method, names[0] if names else ""))
        if action is None:
            self._send_json(404, {"detail": f"{method} /{'/'.join(names)} is not offered here"})
            return
        try:
            with tempfile.TemporaryDirectory(dir=self.server.incoming) as received:
                self.received = Path(received)  # what is not kept of it goes with the request
                action(self, names[1:], query)
        except ColipriError as error:
            self._send_json(400, {"detail": " ".join(str(error).split())})

    # ------------------------------------------------------------ what is asked

    def info(self, _: list[str], __: Mapping[str, str]) -> None:
        """/info/."""
        content = self.server.inference.info()
        content["datastore"] = {"total": len(self.server.images), "completed": 0}
        self._send_json(200, content)

    def list_images(self, _: list[str], __: Mapping[str, str]) -> None:
        """/datastore/."""
        objects: dict[str, Any] = {
            name: {"image": {"info": {}}, "labels": {}} for name in self.server.images
        }
        self._send_json(200, {"objects": objects})

    def take_image(self, _: list[str], query: Mapping[str, str]) -> None:
        """/datastore/?image=NAME with a file."""
        name = query.get("image", "")
        if not name:
            raise ColipriError("name the scan: /datastore/?image=NAME")
        self._send_json(200, {"image": self.server.uploads.keep(self._form().get("file"), name)})

    def new_session(self, _: list[str], __: Mapping[str, str]) -> None:
        """/session/ with a file."""
        self._send_json(200, {"session_id": self.server.uploads.keep(self._form().get("files"))})

    def session(self, names: list[str], _: Mapping[str, str]) -> None:
        """/session/ID."""
        if not names or self.server.uploads.find(names[0]) is None:
            self._send_json(404, {"detail": "there is no such session"})
            return
        self._send_json(200, {"session_id": names[0], "image": "scan"})

    def end_session(self, names: list[str], _: Mapping[str, str]) -> None:
        """/session/ID."""
        known = bool(names) and self.server.uploads.forget(names[0])
        self._send_json(200 if known else 404, {"status": "removed" if known else "unknown"})

    def infer(self, names: list[str], query: Mapping[str, str]) -> None:
        """/infer/MODEL?image=NAME, or ?session_id=ID, or with the scan as file."""
        form = self._form()
        params = _params(form.get("params"))
        result = self.server.inference.run("/".join(names), self._image(form, query), params)
        output = query.get("output", "all")
        text = json.dumps(result.params).encode()
        if output == "json" or not result.content:
            self._send(200, "application/json", text)
        elif output == "image":
            self._send(200, "application/octet-stream", result.content)
        else:
            fields = {"params": Part(text), "file": Part(result.content, result.file_name)}
            self._send(200, *write_form(fields))

    def _image(self, form: Mapping[str, Part], query: Mapping[str, str]) -> ImageInput:
        server = self.server
        name = query.get("session_id") or query.get("image") or ""
        if "file" in form:
            name = server.uploads.keep(form["file"])
        image = server.uploads.find(name) or server.images.get(name)
        if image is None:
            raise ColipriError("there is no scan of this name here; upload it, or name one of -i")
        return image

    # ------------------------------------------------------------ how it is sent

    def _form(self) -> dict[str, Part]:
        try:
            size = int(self.headers.get("Content-Length", ""))
        except ValueError as error:
            raise ColipriError("the request does not say its length") from error
        if not 0 <= size <= LARGEST_UPLOAD:
            self.close_connection = True
            raise ColipriError(f"the request is larger than {LARGEST_UPLOAD >> 20} MB")
        kind = self.headers.get("Content-Type", "")
        return read_form(kind, self.rfile, size, self.received)

    def _send_json(self, code: int, content: Any) -> None:
        self._send(code, "application/json", json.dumps(content).encode())

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def _params(part: Part | None) -> dict[str, Any]:
    try:
        content = json.loads(part.content) if part is not None and part.content else {}
    except ValueError as error:
        raise ColipriError("params is not JSON") from error
    if not isinstance(content, dict):
        raise ColipriError("params must be a JSON object")
    return content


_ROUTES: dict[tuple[str, str], Any] = {
    ("GET", "info"): _Handler.info,
    ("GET", "datastore"): _Handler.list_images,
    ("PUT", "datastore"): _Handler.take_image,
    ("PUT", "session"): _Handler.new_session,
    ("GET", "session"): _Handler.session,
    ("DELETE", "session"): _Handler.end_session,
    ("POST", "infer"): _Handler.infer,
}
