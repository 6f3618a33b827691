"""Client of an OpenAI-compatible endpoint: requests, retries, and errors that stop the run.

Retried with exponential backoff: timeouts, broken connections, 408, 409, 425, 429, 5xx, and
responses that are not JSON (a proxy's error page). All threads respect a ``Retry-After``. Every
other failure is an error at once: retrying does not fix a wrong key.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from colipri.common.errors import ColipriError

logger = logging.getLogger(__name__)

_RETRIED = frozenset((408, 409, 425, 429))  # and 5xx
_FIRST_WAIT = 1.0  # seconds; doubled with each retry
_LONGEST_WAIT = 60.0  # seconds, of the backoff
_LONGEST_ANSWER = 1 << 24  # bytes
_LONGEST_RETRY_AFTER = 900.0  # seconds; never wait for a daily quota


class EndpointError(ColipriError):
    """One request failed permanently; others may succeed."""


class EndpointUnusableError(ColipriError):
    """No request can succeed: wrong key, wrong address, or no server."""


@dataclass(frozen=True)
class Endpoint:
    """Address of an endpoint, and how long to wait for it.

    Attributes:
        base_url: as in OpenAI's clients ("http://127.0.0.1:8000/v1").
        model: name of the model on the endpoint.
        key: sent as bearer token; "" for none. Never part of a message or of ``repr``.
        timeout: seconds until a response must be complete.
        retries: retries of a request after the first attempt.
    """

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    retries: int = 5

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ColipriError(
                f"--base_url must look like https://host/v1 or http://127.0.0.1:8000/v1, "
                f"not '{self.base_url if not parts.password else '...'}'"
            )
        if parts.username or parts.password or parts.query:
            raise ColipriError("--base_url must not contain a user, a password or a query")

    @property
    def host(self) -> str:
        """Host name or address of the machine."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def is_local(self) -> bool:
        """True if requests stay on this machine."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_encrypted(self) -> bool:
        """True if the connection is encrypted."""
        return urlsplit(self.base_url).scheme == "https"


class EndpointClient:
    """Sends requests; thread-safe. A context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # otherwise logs one line per request
        self.endpoint = endpoint
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        self._http = httpx.Client(
            base_url=endpoint.base_url.rstrip("/") + "/",
            headers=headers,
            timeout=httpx.Timeout(endpoint.timeout, connect=min(endpoint.timeout, 20.0)),
            follow_redirects=False,  # send reports only to the address that the user gave
            trust_env=not endpoint.is_local,  # a proxy would send local requests elsewhere
        )
        self._stopped = threading.Event()
        self._not_before = 0.0  # monotonic time; set by Retry-After
        self.retries_made = 0

    def __enter__(self) -> EndpointClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def stop(self) -> None:
        """Make waiting threads give up at once."""
        self._stopped.set()

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST to chat/completions and return the JSON object of the response.

        Raises:
            EndpointError: this request failed after all retries.
            EndpointUnusableError: every request would fail.
        """
        problem: ColipriError
        for attempt in range(self.endpoint.retries + 1):
            self._wait(max(0.0, self._not_before - time.monotonic()))
            problem, wait = EndpointError("stopped"), 0.0
            try:
                return self._try(body)
            except _TryAgain as again:
                problem, wait = again.problem, again.wait
            if attempt < self.endpoint.retries:
                self.retries_made += 1
                logger.debug("%s; trying again", problem)
                # jitter, so that threads that failed together do not retry together
                backoff = min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT) * random.uniform(0.75, 1.25)
                self._wait(max(wait, backoff))
        raise problem

    def _try(self, body: Mapping[str, Any]) -> dict[str, Any]:
        endpoint = self.endpoint
        try:
            response = self._post(body)
        except httpx.ConnectError as error:
            raise _TryAgain(_unreachable(endpoint, error)) from error
        except httpx.TimeoutException as error:
            raise _TryAgain(
                EndpointError(
                    f"{endpoint.host} gave no complete answer within {endpoint.timeout:g} s; a "
                    "longer --timeout or a lower --concurrency may help"
                )
            ) from error
        except httpx.HTTPError as error:
            name = type(error).__name__
            raise _TryAgain(EndpointError(f"the connection broke ({name})")) from error
        if response.status_code != 200:
            raise self._status_error(response)
        try:
            content = response.json()
        except ValueError as error:
            raise _TryAgain(EndpointError(_not_json(endpoint, response))) from error
        if not isinstance(content, dict):
            raise EndpointError(f"{endpoint.host} answered with JSON that is not an object")
        return content

    def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        """Read the whole response; httpx alone sets no limit on a slowly dripping server."""
        deadline = time.monotonic() + self.endpoint.timeout
        content = bytearray()
        with self._http.stream("POST", "chat/completions", json=dict(body)) as response:
            for piece in response.iter_bytes():
                content += piece
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("too slow")
                if len(content) > _LONGEST_ANSWER:
                    raise httpx.RemoteProtocolError("too long")
        headers = {k: v for k, v in response.headers.items() if k in ("retry-after", "location")}
        return httpx.Response(response.status_code, headers=headers, content=bytes(content))

    def _status_error(self, response: httpx.Response) -> Exception:
        status, endpoint = response.status_code, self.endpoint
        reason = _reason(response, endpoint.key)
        if status in _RETRIED or status >= 500:
            wait = retry_after(response.headers.get("Retry-After"))
            if wait > _LONGEST_RETRY_AFTER:
                return EndpointUnusableError(
                    f"{endpoint.host} asks to wait {wait / 60:.0f} minutes (status {status}, a "
                    "quota?); run the same command again then; finished reports are kept"
                )
            self._not_before = max(self._not_before, time.monotonic() + wait)
            return _TryAgain(EndpointError(f"{endpoint.host} answered {status}{reason}"), wait)
        if status in (401, 403):
            advice = "is the key right?" if endpoint.key else "it wants a key (--key_variable)"
            return EndpointUnusableError(
                f"{endpoint.host} refused the request ({status}): {advice}"
            )
        if 300 <= status < 400:
            target = urlsplit(response.headers.get("Location", "")).hostname or "another page"
            return EndpointUnusableError(
                f"{endpoint.base_url} redirects to {target}; give the final address as --base_url"
            )
        if status in (404, 405):
            return EndpointUnusableError(
                f"{endpoint.base_url}/chat/completions was not found ({status}{reason}); check "
                f"--base_url (it often ends in /v1) and --model ({endpoint.model})"
            )
        return EndpointError(
            f"{endpoint.host} does not accept the request ({status}{reason}); if it accepts none, "
            "try --response_format none, or see --extra_body"
        )

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise EndpointError("stopped")


class _TryAgain(Exception):
    """A temporary failure; ``wait`` is the delay that the endpoint asks for, in seconds."""

    def __init__(self, problem: ColipriError, wait: float = 0.0) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.wait = wait


def retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header (a number or a date); 0 if missing or unreadable."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass  # then it may be a date
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _unreachable(endpoint: Endpoint, error: Exception) -> ColipriError:
    return EndpointUnusableError(
        f"{endpoint.base_url} cannot be reached ({' '.join(str(error).split())}); is the server "
        "running? Finished reports are kept: run the same command again"
    )


def _not_json(endpoint: Endpoint, response: httpx.Response) -> str:
    is_page = response.text.lstrip()[:1] == "<"
    return (
        f"{endpoint.host} answered with {'a web page' if is_page else 'something'} instead of "
        "JSON; check --base_url (it often ends in /v1)"
    )


def _reason(response: httpx.Response, key: str) -> str:
    """The endpoint's error code, but not its message, which may quote the key or the report."""
    try:
        error = response.json()["error"]
        code = error.get("code") or error.get("type") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    code = str(code)
    usable = code.replace("_", "").replace("-", "").isalnum() and len(code) < 60 and code != key
    return f", {code}" if usable else ""
