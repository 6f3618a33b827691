"""Reports structured by a language model behind an endpoint, with every answer checked."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colipri.text.cleaning import fold_spaces
from colipri.text.endpoint_answer import (
    AnswerCounts,
    Findings,
    MalformedAnswerError,
    read_answer,
    support,
)
from colipri.text.endpoint_cache import AnswerCache
from colipri.text.endpoint_client import EndpointClient, EndpointError
from colipri.text.endpoint_prompt import (
    PROMPT_VERSION,
    ReportPart,
    answer_schema,
    messages_of,
    parts_of,
)
from colipri.text.polarity import Clause
from colipri.text.report import Report, context_sections
from colipri.text.sentences import split_sentences
from colipri.text.structuring import StructuredReport

RESPONSE_FORMATS = ("json_schema", "json_object", "none")
ANSWER_TRIES = 3  # a model that fails three times at one text fails the fourth time
_SHORTEST_ANSWER = 512  # tokens: the object around the sentences
_CHARACTERS_PER_TOKEN = 2  # at least, of an answer; English has about 4, other scripts fewer


@dataclass
class Usage:
    """What requests have cost so far.

    input_tokens, output_tokens: as the endpoint counts them; 0 from one that does not.
    malformed: answers that were no valid answers (and were asked for again).
    from_cache: answers that needed no request.
    """

    requests: int = 0
    from_cache: int = 0
    malformed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    answers: AnswerCounts = field(default_factory=AnswerCounts)

    def cost(self, input_price: float, output_price: float) -> float:
        """In the currency of the prices, which are per million tokens."""
        return (self.input_tokens * input_price + self.output_tokens * output_price) / 1e6


class EndpointStructurer:
    """Structures reports, one request a report (more for very long ones); thread-safe.

    Args:
        client: where to ask.
        cache: where answers are kept.
        response_format: how the endpoint is told to answer in JSON: "json_schema" (it then cannot
            answer otherwise), "json_object", or "none" for servers that know neither.
        extra_body: further fields of the request ({"seed": 1}); None removes one of ours.
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
        """Names what makes the results; another name makes them again."""
        return f"{self.client.endpoint.model} (prompt {PROMPT_VERSION})"

    def structure(self, report: Report) -> StructuredReport:
        """Structure one report.

        Raises:
            EndpointError: no valid answer was to be had for it.
            EndpointUnusableError: the endpoint answers nobody.
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
                pass  # kept under other rules than today's: ask again
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
        """One answer, and whether it was cut off at max_tokens."""
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
            "temperature": 0,  # the same answer each time, as far as the server can
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
    """The first question with the last failure behind it: without it, zero temperature repeats."""
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
