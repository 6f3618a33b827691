"""A real HTTP server on 127.0.0.1 that speaks /v1/chat/completions, with behaviours to choose."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from colipri.text.polarity.tagging import POLARITIES, tag_sentence
from colipri.text.reports.sentences import split_sentences

KEY = "sk-test-c0ffee"


class Reply(NamedTuple):
    """What the server sends back."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}
    delay: float = 0.0  # seconds before the first byte
    pause: float = 0.0  # seconds after each byte of the body


Behaviour = Callable[[dict[str, Any], int], Reply]


def completion(content: str, finish_reason: str = "stop", words_in: int = 100) -> Reply:
    """An ordinary answer of the protocol."""
    answer = {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": words_in, "completion_tokens": 50, "total_tokens": 150},
    }
    return Reply(body=json.dumps(answer).encode())


def text_of(request: dict[str, Any]) -> dict[str, str]:
    """The sections that a request asks about."""
    sections: dict[str, str] = {}
    for block in request["messages"][3]["content"].split("### ")[1:]:
        name, _, text = block.partition("\n")
        sections[name] = text.strip()
    return sections


def right_answer(request: dict[str, Any]) -> dict[str, Any]:
    """What a good model answers: here the rules play it."""
    sections: dict[str, dict[str, list[str]]] = {}
    for name, text in text_of(request).items():
        lists: dict[str, list[str]] = {polarity: [] for polarity in POLARITIES}
        for sentence in split_sentences(text):
            for clause in tag_sentence(sentence):
                lists[clause.polarity].append(clause.text)
        sections[name] = lists
    return {"sections": sections}


def good(request: dict[str, Any], number: int) -> Reply:
    """Always the right answer."""
    return completion(json.dumps(right_answer(request)))


def error(status: int, code: str = "", **headers: str) -> Reply:
    """An error as OpenAI reports it; its message quotes the key, as some servers do."""
    content = {"error": {"message": f"no good: {KEY}", "code": code}}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(content).encode(), names)


def first(reply: Reply, times: int = 1) -> Behaviour:
    """``reply`` so many times, then right answers."""
    return lambda request, number: reply if number < times else good(request, number)


class _QuietServer(ThreadingHTTPServer):
    """Does not print that a client went away, as some tests make it do."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class ChatServer:
    """Requests as they came, and how many were answered at a time."""

    def __init__(self, behaviour: Behaviour, key: str = "") -> None:
        self.behaviour = behaviour
        self.key = key
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                server.answer(self, json.loads(content))

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = _QuietServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        """One request, in the thread of its connection."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self.headers.append(dict(handler.headers))
            self.times.append(time.monotonic())
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.key and handler.headers.get("Authorization") != f"Bearer {self.key}":
                reply = error(401, "invalid_api_key")
            elif handler.path != "/v1/chat/completions":
                reply = error(404)
            else:
                reply = self.behaviour(request, number)
            time.sleep(reply.delay)
        finally:
            with self._lock:
                self._now -= 1
        self._send(handler, reply)

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        try:
            handler.send_response(reply.status)
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(reply.body)))
            handler.end_headers()
            if not reply.pause:
                handler.wfile.write(reply.body)
                return
            for i in range(len(reply.body)):
                handler.wfile.write(reply.body[i : i + 1])
                time.sleep(reply.pause)
        except OSError:
            handler.close_connection = True  # the client had enough, as some tests want


@contextmanager
def serving(behaviour: Behaviour, key: str = "") -> Iterator[ChatServer]:
    """A running server."""
    server = ChatServer(behaviour, key)
    try:
        yield server
    finally:
        server.close()
