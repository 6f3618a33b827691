"""Structuring reports with a language model behind an endpoint; every answer is checked.

Valid answers are cached on disk, so no request is paid for twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_text
from colipri.common.hashing import json_digest
from colipri.text.llm.answer import (
    AnswerCounts,
    Findings,
    MalformedAnswerError,
    read_answer,
    support,
)
from colipri.text.llm.client import EndpointClient, EndpointError
from colipri.text.llm.prompt import (
    PROMPT_VERSION,
    ReportPart,
    answer_schema,
    messages_of,
    parts_of,
)
from colipri.text.polarity.tagging import Clause
from colipri.text.reports.cleaning import fold_spaces
from colipri.text.reports.report import Report, context_sections
from colipri.text.reports.sentences import split_sentences
from colipri.text.structured_report import StructuredReport

RESPONSE_FORMATS = ("json_schema", "json_object", "none")
ANSWER_TRIES = 3  # a model that fails three times on a text fails the fourth time too
_SHORTEST_ANSWER = 512  # tokens: the JSON around the sentences
_CHARACTERS_PER_TOKEN = 2  # at least, of an answer; English has about 4, other scripts fewer


@dataclass
class Usage:
    """Cost of the requests so far.

    Attributes:
        requests: number of requests sent.
        from_cache: answers that needed no request.
        malformed: invalid answers (each was requested again).
        input_tokens: as the endpoint counts them; 0 if it does not.
        output_tokens: likewise.
        answers: what became of the findings in the answers.
    """

    requests: int = 0
    from_cache: int = 0
    malformed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    answers: AnswerCounts = field(default_factory=AnswerCounts)

    def cost(self, input_price: float, output_price: float) -> float:
        """Cost in the currency of the prices, which are per million tokens."""
        return (self.input_tokens * input_price + self.output_tokens * output_price) / 1e6


class AnswerCache:
    """A folder of valid answers; safe for several threads and processes.

    Each answer is a small file named by the digest of everything that it depends on. The folder
    contains text of reports: protect it like the reports.

    Args:
        folder: created with the first answer; None disables the cache.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @staticmethod
    def key(request: Mapping[str, Any]) -> str:
        """Digest of a whole request, including model and messages (prompt and text)."""
        return json_digest(request)

    def get(self, key: str) -> str | None:
        """The cached answer; None if it is missing or damaged."""
        if self.folder is None:
            return None
        try:
            answer = json.loads(self._path(key).read_text(encoding="utf-8"))["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return answer if isinstance(answer, str) else None

    def put(self, key: str, answer: str) -> None:
        """Store an answer.

        Raises:
            ColipriError: the file cannot be written, for example because the disk is full.
        """
        if self.folder is not None:
            content = json.dumps({"answer": answer}, ensure_ascii=False)
            atomic_write_text(self._path(key), content)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.json"


class EndpointStructurer:
    """Structures reports with one request each (more for very long ones); thread-safe.

    Args:
        client: sends the requests.
        cache: stores the answers.
        response_format: how to request JSON: "json_schema" (the server enforces the layout),
            "json_object", or "none" for servers that support neither.
        extra_body: additional fields of the request ({"seed": 1}); the value None removes a
            default field.
    """

    def __init__(
        self,
        client: EndpointClient,
        cache: AnswerCache,
        response_format: str = "json_schema",
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self.client = client
        self.cache = cache
        self.response_format = response_format
        self.extra_body = dict(extra_body or {})
        self.usage = Usage()
        self._lock = threading.Lock()

    @property
    def method(self) -> str:
        """Name of what makes the results; results of another method are made again."""
        return f"{self.client.endpoint.model} (prompt {PROMPT_VERSION})"

    def structure(self, report: Report) -> StructuredReport:
        """Structure one report.

        Raises:
            EndpointError: this report got no valid answer.
            EndpointUnusableError: the endpoint answers no request.
        """
        tagged: dict[str, list[Clause]] = {}
        for part in parts_of(report):
            for name, clauses in self._ask(part).items():
                tagged.setdefault(name, []).extend(clauses)
        for name in context_sections() & report.sections.keys():
            sentences = split_sentences(report.sections[name])
            tagged[name] = [Clause(fold_spaces(sentence), "neutral") for sentence in sentences]
        return StructuredReport.from_tagged({n: tagged[n] for n in report.sections if n in tagged})

    def _ask(self, part: ReportPart) -> dict[str, list[Clause]]:
        body = self._body(part)
        key = self.cache.key({k: v for k, v in body.items() if k != "max_tokens"})
        known = self.cache.get(key)
        if known is not None:
            try:
                return self._accept(known, part, from_cache=1)
            except MalformedAnswerError:
                pass  # cached by a version with other checks: ask again
        problem = ""
        for _ in range(ANSWER_TRIES):
            answer, was_cut = self._request(body)
            try:
                if was_cut:
                    raise MalformedAnswerError("the answer was cut off")
                result = self._accept(answer, part)
            except MalformedAnswerError as error:
                problem = str(error)
                with self._lock:
                    self.usage.malformed += 1
                body = _asked_again(body, "" if was_cut else answer, problem)
            else:
                self.cache.put(key, answer)
                return result
        raise EndpointError(f"no valid answer in {ANSWER_TRIES} tries: {problem}")

    def _accept(
        self, answer: str, part: ReportPart, from_cache: int = 0
    ) -> dict[str, list[Clause]]:
        findings: Findings = read_answer(answer, part)
        clauses, counts = support(part, findings)
        with self._lock:
            self.usage.answers += counts
            self.usage.from_cache += from_cache
        return clauses

    def _request(self, body: dict[str, Any]) -> tuple[str, bool]:
        """One answer, and True if it was cut off at max_tokens."""
        response = self.client.complete(body)
        counted = response.get("usage")
        counted = counted if isinstance(counted, dict) else {}
        with self._lock:
            self.usage.requests += 1
            self.usage.input_tokens += _count(counted.get("prompt_tokens"))
            self.usage.output_tokens += _count(counted.get("completion_tokens"))
        try:
            choice = response["choices"][0]
            content = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            return "", False
        return content if isinstance(content, str) else "", choice.get("finish_reason") == "length"

    def _body(self, part: ReportPart) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.client.endpoint.model,
            "messages": messages_of(part),
            "temperature": 0,  # the same answer each time, as far as the server supports it
            "max_tokens": _SHORTEST_ANSWER + len(part.text) // _CHARACTERS_PER_TOKEN,
        }
        if self.response_format == "json_schema":
            schema = {"name": "report", "strict": True, "schema": answer_schema(part)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.response_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        merged = {**body, **self.extra_body}
        return {name: value for name, value in merged.items() if value is not None}


def _asked_again(body: dict[str, Any], answer: str, problem: str) -> dict[str, Any]:
    """The request plus the last failure: without it, zero temperature repeats the answer."""
    messages = list(body["messages"][:4])
    if answer:
        messages.append({"role": "assistant", "content": answer[: 4 * len(messages[3]["content"])]})
    again = f"That is not valid: {problem}. Answer the same text again, following all rules."
    if answer:
        messages.append({"role": "user", "content": again})
    limits = {k: 2 * v for k, v in body.items() if k == "max_tokens" and not answer}
    return {**body, **limits, "messages": messages}


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
