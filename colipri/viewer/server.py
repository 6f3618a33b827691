"""The HTTP server: on 127.0.0.1 only, with limits on what one connection may take.

Python's own server is enough for one user on one machine, and needs nothing to be installed.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from colipri.common.errors import ColipriError
from colipri.viewer.access import ADDRESS, SECURITY_HEADERS, Access, Refusal
from colipri.viewer.application import LARGEST_BODY, Answer, Application, Request, as_problem

logger = logging.getLogger(__name__)
_MOST_CONNECTIONS = 64
_SILENT_SECONDS = 20.0  # without a byte
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 16 << 20
_HEADER_SECONDS = 20.0  # until a request has said what it wants


class ViewerServer(ThreadingHTTPServer):
    """Listens from the start; answers once :attr:`application` is set.

    Args:
        port: 0 for any that is free.

    Attributes:
        access: who may ask.
        application: what answers.

    Raises:
        ColipriError: the port is in use, or may not be used.
    """

    daemon_threads = True
    request_queue_size = _MOST_CONNECTIONS
    application: Application

    def __init__(self, port: int = 0) -> None:
        self.access = Access()
        self._connections: set[socket.socket] = set()
        self._headers_begun: dict[socket.socket, float] = {}
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        try:
            super().__init__((ADDRESS, port), ViewerHandler)
        except OverflowError as error:
            raise ColipriError(f"--port must be between 0 and 65535, not {port}") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = "is in use; choose another one, or leave out --port"
            else:
                why = f"cannot be used ({error.strerror}); leave out --port for a free one"
            raise ColipriError(f"the port {port} {why}") from error

    @property
    def url(self) -> str:
        """The address of the page, with its token."""
        return f"http://{ADDRESS}:{self.server_address[1]}/{self.access.token}/"

    def ticket_url(self) -> str:
        """An address that opens the page once (:meth:`Access.new_ticket`)."""
        return f"http://{ADDRESS}:{self.server_address[1]}{self.access.new_ticket()}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; too many at once are closed."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._connections.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._headers_begun.pop(request, None)
            self._connections.discard(request)
            self._places.release()

    def waits_for_headers(self, connection: socket.socket, waits: bool) -> None:
        """Note that a connection begins to send a request, or has said what it wants."""
        if waits:
            self._headers_begun[connection] = time.monotonic()
        else:
            self._headers_begun.pop(connection, None)

    def service_actions(self) -> None:
        """Close connections that take too long to say what they want (called twice a second)."""
        now = time.monotonic()
        for connection, begun in list(self._headers_begun.items()):
            if now - begun > _HEADER_SECONDS:
                self._headers_begun.pop(connection, None)
                _end(connection)

    def server_close(self) -> None:
        """Stop listening and end all connections."""
        super().server_close()
        for connection in list(self._connections):
            _end(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a connection; a browser that was closed is nothing special."""
        error = sys.exc_info()[1]
        if isinstance(error, ConnectionError | TimeoutError):
            logger.debug("connection ended: %s", error)
        else:
            logger.warning("a request failed: %s: %s", type(error).__name__, error)
            logger.debug("where", exc_info=True)


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        logger.debug("closed already: %s", error)


class ViewerHandler(BaseHTTPRequestHandler):
    """Checks a request, has it answered, and sends the answer with its headers."""

    server: ViewerServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "colipri", ""
    timeout = _SILENT_SECONDS

    def handle_one_request(self) -> None:
        """Serve a request of a connection."""
        self.server.waits_for_headers(self.connection, True)
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the headers."""
        understood = super().parse_request()
        self.server.waits_for_headers(self.connection, False)
        return understood

    def do_GET(self) -> None:
        """Answer a request."""
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        refusal = self.server.access.check_origin(self.headers)
        if refusal is None and path.startswith("/open/"):
            self._open_ticket(path)
            return
        rest = refusal or self.server.access.check_path(path)
        if isinstance(rest, Refusal):
            self._refuse(rest.status, rest.reason)
            return
        if path == f"/{self.server.access.token}":
            self._redirect(f"{path}/")
            return
        length = self._length(rest)
        if length is None:
            return
        left = length

        def read(count: int) -> bytes:
            nonlocal left
            piece: bytes = self.rfile.read1(min(count, left))
            left -= len(piece)
            return piece

        answer = self.server.application.answer(Request(self.command, rest, query, length, read))
        self._send(answer, unread=left > 0)

    def _length(self, path: str) -> int | None:
        """Bytes of the body; None if the request was refused for it."""
        if self.headers.get("Transfer-Encoding"):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "send the length of the body")
            return None
        given = self.headers.get("Content-Length", "0")
        if not (given.isascii() and given.isdigit() and len(given) < 16):
            self._refuse(HTTPStatus.BAD_REQUEST, "the length of the body is no number")
            return None
        if int(given) > LARGEST_BODY and not (self.command == "PUT" and path.startswith("uploads")):
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request is too large")
            return None
        return int(given)

    def _open_ticket(self, path: str) -> None:
        if self.server.access.use_ticket(path):
            self._redirect(f"/{self.server.access.token}/")
        else:
            self._refuse(HTTPStatus.FORBIDDEN, "this link was used already; copy the printed one")

    def _redirect(self, target: str) -> None:
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._send(as_problem(status, reason), unread=True)

    def _send(self, answer: Answer, unread: bool = False) -> None:
        if unread:  # what is left of the body would be taken for the next request
            self.close_connection = True
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)
        if unread and self.command in ("POST", "PUT"):
            self._linger()

    def _linger(self) -> None:
        """Read on for a moment: a sender that is cut off at once never sees why."""
        self.connection.shutdown(socket.SHUT_WR)
        deadline, left = time.monotonic() + _LINGER_SECONDS, _LINGER_BYTES
        self.connection.settimeout(_LINGER_SECONDS)
        while left > 0 and time.monotonic() < deadline:
            piece = self.connection.recv(min(left, 1 << 16))
            if not piece:
                return
            left -= len(piece)

    def end_headers(self) -> None:
        """Add the headers that every answer has."""
        for name, value in SECURITY_HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request, without repeating any of it.

        Args:
            code: HTTP status.
            message, explain: of the base class, which may hold parts of the request; not used.
        """
        self.server.waits_for_headers(self.connection, False)
        self._refuse(HTTPStatus(code), HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests out of the terminal: their addresses hold the token."""
        token = self.server.access.token
        logger.debug("%s", (format % args).replace(token, "TOKEN"))
