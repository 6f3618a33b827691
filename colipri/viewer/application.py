"""What the server answers: each address of the page is a small function of the request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

import colipri
from colipri.common.errors import ColipriError
from colipri.common.names import printable
from colipri.viewer.analysis import LONGEST_FINDING, Analysis
from colipri.viewer.jobs import WAITING, Job, JobQueue, QueueFullError
from colipri.viewer.scans import UPLOAD
from colipri.viewer.uploads import UploadArea, UploadError

LARGEST_BODY = 64 << 10  # bytes of a request that is no file
_STATIC = {
    "viewer.css": "text/css; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "planes.js": "text/javascript; charset=utf-8",
    "panels.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
    "files.js": "text/javascript; charset=utf-8",
    "niivue.umd.js": "text/javascript; charset=utf-8",
    "niivue_licences.txt": "text/plain; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_JSON, _VOXELS = "application/json", "application/octet-stream"


@dataclass(frozen=True)
class Request:
    """A request that may be answered.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: behind the token.
        query: after the question mark.
        length: bytes of the body.
        read: at most so many bytes of it as they arrive.
    """

    method: str
    path: str
    query: str
    length: int
    read: Callable[[int], bytes]

    def content(self) -> dict[str, Any]:
        """Return the JSON object of the body.

        Raises:
            ColipriError: it is none, or too large.
        """
        if self.length > LARGEST_BODY:
            raise ColipriError("the request is too large")
        body = b""
        while len(body) < self.length:
            piece = self.read(self.length - len(body))
            if not piece:
                raise ColipriError("the request was cut off")
            body += piece
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ColipriError("the request is no JSON") from error
        if not isinstance(content, dict):
            raise ColipriError("the request is no JSON object")
        return content


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: HTTPStatus
    kind: str
    body: bytes


def as_json(content: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """Return an answer that holds JSON."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Answer(status, _JSON, text.encode("utf-8", "backslashreplace"))


def as_problem(status: HTTPStatus, text: str) -> Answer:
    """Return an answer that says what is wrong, in one line."""
    return as_json({"error": " ".join(text.split())}, status)


class Application:
    """Answers requests.

    Args:
        analysis: of the scans.
        uploads: where uploads go.
        largest_upload: bytes.
        how_to_index: the command that makes an index, for the page.
    """

    def __init__(
        self, analysis: Analysis, uploads: UploadArea, largest_upload: int, how_to_index: str
    ) -> None:
        self.analysis, self.uploads = analysis, uploads
        self._largest_upload, self._how_to_index = largest_upload, how_to_index
        # Two queues, so that scans can be opened and scrolled while the model is busy
        self._queues = {"open": JobQueue("reader"), "model": JobQueue("model")}

    def close(self) -> None:
        """Begin no further work, and delete what was uploaded."""
        for queue in self._queues.values():
            queue.close()
        self.uploads.close()

    def answer(self, request: Request) -> Answer:
        """Answer a request; what is wrong with it becomes an answer too."""
        first, *rest = request.path.split("/")
        try:
            if request.method == "GET" and first == "" and not rest:
                return Answer(HTTPStatus.OK, "text/html; charset=utf-8", _static("index.html"))
            if request.method == "GET" and first == "static" and len(rest) == 1:
                return _file(rest[0])
            handler = self._handlers().get((request.method, first, len(rest)))
            if handler is None:
                return as_problem(HTTPStatus.NOT_FOUND, "there is no such page")
            return handler(request, *rest)
        except QueueFullError as error:
            return as_problem(HTTPStatus.TOO_MANY_REQUESTS, str(error))
        except UploadError as error:
            return as_problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))
        except ColipriError as error:
            return as_problem(HTTPStatus.BAD_REQUEST, str(error))

    def _handlers(self) -> Mapping[tuple[str, str, int], Callable[..., Answer]]:
        """(Method, first part of the path, number of further parts) -> what answers."""
        return {
            ("GET", "state", 0): self._state,
            ("GET", "voxels", 1): self._voxels,
            ("GET", "map", 2): self._map,
            ("POST", "jobs", 0): self._start,
            ("GET", "jobs", 1): self._job,
            ("DELETE", "jobs", 1): self._drop,
            ("DELETE", "scans", 1): self._remove,
            ("POST", "uploads", 0): self._begin_upload,
            ("PUT", "uploads", 1): self._receive,
            ("POST", "uploads", 1): self._finish_upload,
            ("DELETE", "uploads", 1): self._cancel_upload,
        }

    # ---------------------------------------------------------------- what there is

    def _state(self, request: Request) -> Answer:
        analysis = self.analysis
        predictor = analysis.predictor
        known = analysis.known
        return as_json(
            {
                "version": colipri.__version__,
                "model": predictor.describe(),
                "findings": list(predictor.plans.findings),
                "text": analysis.zero_shot is not None,
                "heads": len(analysis.heads),
                "known": None if known is None else known.description,
                "how_to_index": self._how_to_index,
                "writers": list(analysis.drafts),
                "largest_upload": self._largest_upload,
                "longest_finding": LONGEST_FINDING,
                "scans": [scan.plain() for scan in analysis.scans.all()],
            }
        )

    def _voxels(self, request: Request, scan: str) -> Answer:
        return Answer(HTTPStatus.OK, _VOXELS, self.analysis.voxels(scan.removesuffix(".nii")))

    def _map(self, request: Request, scan: str, number: str) -> Answer:
        content = self.analysis.map_file(scan, number.removesuffix(".nii"))
        return Answer(HTTPStatus.OK, _VOXELS, content)

    def _remove(self, request: Request, scan: str) -> Answer:
        self.analysis.scans.remove(scan)
        self.analysis.close(scan)
        return as_json({})

    # ---------------------------------------------------------------- work

    def _start(self, request: Request) -> Answer:
        content = request.content()
        kind, identifier, argument = (_text(content, key) for key in ("kind", "scan", "argument"))
        scan = self.analysis.scans.get(identifier)
        work = self.analysis.work(kind, scan, printable(argument))
        queue = self._queues["open" if kind == "open" else "model"]
        return as_json(self._plain(queue.submit(f"{kind} {scan.identifier}", work)))

    def _find(self, identifier: str) -> tuple[JobQueue, Job]:
        for queue in self._queues.values():
            job = queue.find(identifier)
            if job is not None:
                return queue, job
        raise ColipriError("there is no such work any more; ask for it again")

    def _job(self, request: Request, identifier: str) -> Answer:
        return as_json(self._plain(self._find(identifier)[1]))

    def _drop(self, request: Request, identifier: str) -> Answer:
        queue, job = self._find(identifier)
        queue.drop(identifier)
        return as_json(self._plain(job))

    def _plain(self, job: Job) -> dict[str, Any]:
        ahead = 0
        if job.state == WAITING:
            ahead = max(queue.ahead_of(job) for queue in self._queues.values())
        return {
            "id": job.identifier,
            "state": job.state,
            "step": job.step,
            "ahead": ahead,
            "seconds": round(job.seconds, 1),
            "result": job.result,
            "error": job.error,
        }

    # ---------------------------------------------------------------- uploads

    def _begin_upload(self, request: Request) -> Answer:
        return as_json({"id": self.uploads.begin()})

    def _receive(self, request: Request, identifier: str) -> Answer:
        name = parse_qs(request.query).get("name", ["file"])[0]
        self.uploads.receive(identifier, name, request.length, request.read)
        return as_json({})

    def _finish_upload(self, request: Request, identifier: str) -> Answer:
        images = self.uploads.finish(identifier, self.analysis.predictor.num_channels)
        scans = self.analysis.scans
        added = [scans.add(one, UPLOAD, self.uploads.folder_of(one)) for one in images]
        return as_json({"scans": [scan.plain() for scan in added]})

    def _cancel_upload(self, request: Request, identifier: str) -> Answer:
        self.uploads.cancel(identifier)
        return as_json({})


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise ColipriError("kind, scan and argument must be texts")
    return value


def _file(name: str) -> Answer:
    """A file of the page; only those that are listed, whatever the name says."""
    kind = _STATIC.get(name)
    if kind is None:
        return as_problem(HTTPStatus.NOT_FOUND, "there is no such file")
    return Answer(HTTPStatus.OK, kind, _static(name))


@cache
def _static(name: str) -> bytes:
    return resources.files("colipri.viewer").joinpath("static", name).read_bytes()
