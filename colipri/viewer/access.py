"""Who may talk to the viewer: its own page, which knows the token, and nobody else.

Three doors are closed. Another user of the machine can reach the port but does not know the token.
A page of another site that the same browser shows can send requests (cross-site requests), or point
its own host name at 127.0.0.1 (DNS rebinding): the browser then states a foreign Origin or Host.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus

ADDRESS = "127.0.0.1"
_NAMES = (ADDRESS, "localhost")  # any port, so that a tunnel (ssh -L) may use another one
_PATH = re.compile(r"/(?:[A-Za-z0-9._-]+/)*[A-Za-z0-9._-]*")  # nothing encoded, no empty parts
_TICKET_SECONDS = 60.0
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
SECURITY_HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered."""

    status: HTTPStatus
    reason: str


class Access:
    """Checks requests.

    Attributes:
        token: 256 bits, the first part of every path.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._tickets: dict[str, float] = {}

    def new_ticket(self) -> str:
        """Return a path that opens the page once, within a minute.

        The command line of a browser is visible to other users of the machine; a ticket in it is of
        no use once the browser has used it.
        """
        ticket = secrets.token_urlsafe(32)
        self._tickets[ticket] = time.monotonic() + _TICKET_SECONDS
        return f"/open/{ticket}"

    def use_ticket(self, path: str) -> bool:
        """True if the path is that of a ticket that is still valid; it is not valid after that."""
        expires = self._tickets.pop(path.removeprefix("/open/"), 0.0)
        return time.monotonic() < expires

    def check_origin(self, headers: Message) -> Refusal | None:
        """Refuse what a page of another site has sent; None if all is well.

        Args:
            headers: of the request.
        """
        host = headers.get("Host") or ""
        if host.rpartition(":")[0] not in _NAMES and host not in _NAMES:
            return Refusal(
                HTTPStatus.FORBIDDEN, f"open the viewer at http://{ADDRESS}, not at another host"
            )
        origin = headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            return Refusal(HTTPStatus.FORBIDDEN, "requests of other sites are refused")
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return Refusal(HTTPStatus.FORBIDDEN, "requests of other sites are refused")
        return None

    def check_path(self, path: str) -> str | Refusal:
        """Return the path behind the token, without the slash.

        Args:
            path: of the request, without its query.
        """
        if not _PATH.fullmatch(path) or ".." in path:
            return Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        given, _, rest = path[1:].partition("/")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return Refusal(
                HTTPStatus.FORBIDDEN, "open the address that colipri_view printed, with its token"
            )
        return rest
