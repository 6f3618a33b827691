"""The transport against a real server: what is retried, what is waited for, what ends at once."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path

import pytest
from text.llm.chat_server import KEY, Reply, completion, error, first, good, serving

from colipri.common.errors import ColipriError
from colipri.text.llm.client import (
    Endpoint,
    EndpointClient,
    EndpointError,
    EndpointUnusableError,
    retry_after,
)
from colipri.text.llm.structurer import AnswerCache, EndpointStructurer
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report

REPORT = report_from_text(
    "HISTORY: Cough.\nFINDINGS: Small effusion, no pneumothorax.\nIMPRESSION: Possible mass."
)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off from 20 ms, so that tests of retries are short; its doubling stays."""
    monkeypatch.setattr("colipri.text.llm.client._FIRST_WAIT", 0.02)


def structurer(
    base_url: str, key: str = "", retries: int = 2, timeout: float = 5.0, cache: Path | None = None
) -> EndpointStructurer:
    client = EndpointClient(Endpoint(base_url, "some-model", key, timeout, retries))
    return EndpointStructurer(client, AnswerCache(cache))


def test_a_right_answer_is_taken_over() -> None:
    with serving(good, KEY) as server:
        structuring = structurer(server.base_url, KEY)
        assert structuring.structure(REPORT) == structure_report(REPORT)
        usage = structuring.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (1, 100, 50)
    assert usage.cost(2.0, 10.0) == pytest.approx((100 * 2 + 50 * 10) / 1e6)
    (request,) = server.requests
    assert request["model"] == "some-model" and request["temperature"] == 0
    assert request["response_format"]["json_schema"]["schema"]["required"] == ["sections"]
    assert "Cough" not in str(request)


@pytest.mark.parametrize(
    "reply",
    [
        error(500),
        error(503),
        error(429),
        error(408),
        Reply(200, b"<html><body>Bad gateway</body></html>"),
        Reply(200, b""),
        Reply(502, b"<html>"),
    ],
    ids=["500", "503", "429", "408", "html", "nothing", "502"],
)
def test_what_may_pass_is_tried_again(reply: Reply) -> None:
    with serving(first(reply, times=2)) as server:
        structuring = structurer(server.base_url)
        assert structuring.structure(REPORT) == structure_report(REPORT)
    assert len(server.requests) == 3
    assert structuring.client.retries_made == 2


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(200, b"<html>hello</html>"), "a web page instead of JSON; check --base_url"),
        (error(500, "server_error"), "answered 500, server_error"),
        (Reply(200, b"[1]"), "JSON that is not an object"),
        (error(400, "context_length_exceeded"), "400, context_length_exceeded"),
    ],
)
def test_what_does_not_pass_is_said_in_one_line(reply: Reply, words: str) -> None:
    with serving(first(reply, times=99)) as server, pytest.raises(EndpointError) as caught:
        structurer(server.base_url, KEY, retries=1).structure(REPORT)
    assert words in str(caught.value)
    assert KEY not in str(caught.value)


def test_waits_grow() -> None:
    with serving(first(error(500), times=4)) as server:
        structurer(server.base_url, retries=4).structure(REPORT)
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert waits[3] > 0.11  # 0.02 * 2**3 * 0.75 at least


def test_retry_after_is_honoured_by_all_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with serving(first(error(429, Retry_After="1"))) as server:
        structuring = structurer(server.base_url)
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(structuring.structure, REPORT)]
            while not server.requests:
                time.sleep(0.005)
            time.sleep(0.2)
            jobs += [pool.submit(structuring.structure, REPORT) for _ in range(3)]
            assert all(job.result() == structure_report(REPORT) for job in jobs)
    assert min(server.times[1:]) - server.times[0] >= 0.99


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after("7") == 7
    assert retry_after("0.5") == 0.5
    assert 8 < retry_after(formatdate(time.time() + 10, usegmt=True)) <= 10
    assert [retry_after(v) for v in (None, "", "soon", "-3", "Wed, 99 Foo")] == [0, 0, 0, 0, 0]


def test_a_quota_of_a_day_is_not_waited_for() -> None:
    reply = error(429, "insufficient_quota", Retry_After="86400")
    with (
        serving(first(reply)) as server,
        pytest.raises(EndpointUnusableError, match="wait 1440 minutes"),
    ):
        structurer(server.base_url).structure(REPORT)


@pytest.mark.parametrize(
    ("key", "words"), [("sk-wrong", "is the key right"), ("", "it wants a key")]
)
def test_a_wrong_key_ends_at_once(key: str, words: str) -> None:
    with serving(good, KEY) as server, pytest.raises(EndpointUnusableError, match=words) as caught:
        structurer(server.base_url, key).structure(REPORT)
    assert len(server.requests) == 1
    assert not key or key not in str(caught.value)


def test_a_wrong_path_and_a_redirect_end_at_once() -> None:
    with serving(good) as server:
        with pytest.raises(EndpointUnusableError, match="was not found"):
            structurer(server.base_url.removesuffix("/v1")).structure(REPORT)
        server.behaviour = first(Reply(307, b"", {"Location": "http://127.0.0.2/v1"}), 99)
        with pytest.raises(EndpointUnusableError, match=r"redirects to 127\.0\.0\.2"):
            structurer(server.base_url).structure(REPORT)
        assert len(server.requests) == 2


def test_nobody_there() -> None:
    with serving(good) as server:
        pass  # the port is free again
    with pytest.raises(EndpointUnusableError, match="cannot be reached"):
        structurer(server.base_url, retries=1).structure(REPORT)


def test_a_slow_answer_is_given_up_and_tried_again() -> None:
    slow = good({"messages": [{}, {}, {}, {"content": ""}]}, 0)._replace(delay=20.0)
    with serving(first(slow)) as server:
        start = time.monotonic()
        structuring = structurer(server.base_url, timeout=0.5)
        assert structuring.structure(REPORT) == structure_report(REPORT)
        assert 0.5 < time.monotonic() - start < 15


def test_an_answer_that_drips_is_given_up() -> None:
    dripping = completion("x" * 1000)._replace(pause=0.02)
    with serving(first(dripping, 99)) as server:
        start = time.monotonic()
        with pytest.raises(EndpointError, match=r"no complete answer within 0\.3 s"):
            structurer(server.base_url, retries=0, timeout=0.3).structure(REPORT)
        assert time.monotonic() - start < 10  # all of it would take over 20 s


@pytest.mark.parametrize(
    "content",
    ["I am sorry.", '{"sections": {"findings": {"positive": ["Small', '{"sections": {}}', "[]", ""],
)
def test_malformed_answers_are_asked_for_again_with_the_reason(content: str) -> None:
    with serving(first(completion(content))) as server:
        structuring = structurer(server.base_url)
        assert structuring.structure(REPORT) == structure_report(REPORT)
    assert structuring.usage.malformed == 1
    if content:
        assert "That is not valid" in server.requests[1]["messages"][-1]["content"]


def test_a_response_without_choices_is_malformed() -> None:
    with serving(first(Reply(200, b'{"choices": []}'))) as server:
        structuring = structurer(server.base_url)
        assert structuring.structure(REPORT) == structure_report(REPORT)
    assert structuring.usage.malformed == 1


def test_an_answer_that_was_cut_off_gets_more_room() -> None:
    with serving(first(completion('{"sections": {', "length"))) as server:
        assert structurer(server.base_url).structure(REPORT) == structure_report(REPORT)
    assert server.requests[1]["max_tokens"] == 2 * server.requests[0]["max_tokens"]


def test_three_malformed_answers_are_enough() -> None:
    with (
        serving(first(completion("No."), 99)) as server,
        pytest.raises(
            EndpointError, match="no valid answer in 3 tries: the answer contains no JSON"
        ),
    ):
        structurer(server.base_url).structure(REPORT)
    assert len(server.requests) == 3


def test_answers_are_kept_by_content_model_and_prompt(tmp_path: Path) -> None:
    with serving(good) as server:
        for expected in (1, 0):
            structuring = structurer(server.base_url, cache=tmp_path)
            assert structuring.structure(REPORT) == structure_report(REPORT)
            assert structuring.usage.requests == expected
        other = report_from_text("FINDINGS: Small effusion, no pneumothorax!")
        structuring.structure(other)
        assert structuring.usage.requests == 1
        (file, *_) = tmp_path.rglob("*.json")
        file.write_text("{torn")
        structuring.structure(REPORT)
        structuring.structure(other)
        assert structuring.usage.requests == 2
        structuring.extra_body = {"seed": 1}
        structuring.structure(REPORT)
        assert structuring.usage.requests == 3
    assert server.requests[-1]["seed"] == 1


def test_malformed_answers_are_not_kept(tmp_path: Path) -> None:
    with serving(first(completion("No."), 3)) as server:
        structuring = structurer(server.base_url, cache=tmp_path)
        with pytest.raises(EndpointError):
            structuring.structure(REPORT)
        assert not list(tmp_path.rglob("*"))


def test_fields_of_the_request_can_be_left_out() -> None:
    with serving(good) as server:
        structuring = structurer(server.base_url)
        structuring.response_format = "none"
        structuring.extra_body = {"temperature": None, "max_completion_tokens": 99}
        structuring.structure(REPORT)
    assert set(server.requests[0]) == {"model", "messages", "max_tokens", "max_completion_tokens"}


def test_an_empty_report_asks_nothing() -> None:
    with serving(good) as server:
        assert structurer(server.base_url).structure(report_from_text("TECHNIQUE: CT.")).sections
        assert structurer(server.base_url).structure(report_from_text("")).is_empty
    assert server.requests == []


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:80/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://127.1.2.3", True),
        ("https://api.example.org/v1", False),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example.org/v1", False),
        ("http://0.0.0.0/v1", False),
    ],
)
def test_what_is_local(url: str, local: bool) -> None:
    assert Endpoint(url, "m").is_local is local


@pytest.mark.parametrize("url", ["api.example.org", "ftp://a/b", "http://", "http://u:p@h/v1"])
def test_bad_addresses(url: str) -> None:
    with pytest.raises(ColipriError, match="--base_url") as caught:
        Endpoint(url, "m")
    assert "u:p" not in str(caught.value)


def test_the_key_is_no_part_of_what_may_be_printed() -> None:
    assert KEY not in repr(Endpoint("http://127.0.0.1", "m", KEY))


def test_a_proxy_does_not_get_local_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serving(good) as server:
        structurer(server.base_url).structure(REPORT)
    assert len(server.requests) == 1
