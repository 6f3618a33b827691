"""colipri_structure_reports as a user runs it: by rules, and against a real local endpoint."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from commands import run, run_until
from text.llm.chat_server import KEY, Reply, completion, error, first, good, right_answer, serving
from tiny_dataset import write_tiny_dataset

from colipri.run.structure_reports import main
from colipri.text.reports.report import read_report
from colipri.text.structured_report import StructuredReport, structure_report

REPORTS = {
    "a": b"FINDINGS: Small left effusion, no pneumothorax.\r\nIMPRESSION: Possible mass.\r\n",
    "b": "Befund: Herz normal groß.".encode("cp1252"),
    "c": "\ufeffFINDINGS:\nNo nodule.\n".encode("utf-16"),
    "d": b'{"findings": {"lungs": "Clear.", "heart": ""}, "impression": "Normal study."}',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four reports: Windows line ends, Windows-1252, UTF-16, JSON."""
    folder = tmp_path / "reports"
    (folder / "deeper").mkdir(parents=True)
    for name, content in REPORTS.items():
        ending = ".json" if name == "d" else ".txt"
        (folder / ("deeper" if name == "b" else "") / (name + ending)).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colipri.text.llm.client._FIRST_WAIT", 0.02)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def lines(file: Path) -> dict[str, dict[str, Any]]:
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [r["case"] for r in records] == sorted(r["case"] for r in records)
    return {record["case"]: record for record in records}


def by_rules(folder: Path) -> dict[str, StructuredReport]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.stem: structure_report(read_report(file)) for file in files}


def ask(folder: Path, output: Path, base_url: str, *more: str) -> int:
    return main(
        ["-i", str(folder), "-o", str(output), "--base_url", base_url, "--model", "m", *more]
    )


def test_a_folder_by_rules(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "structured.jsonl"
    assert main(["-i", str(folder), "-o", str(output), "-np", "1"]) == 0
    records = lines(output)
    assert {c: StructuredReport.from_dict(r) for c, r in records.items()} == by_rules(folder)
    assert records["a"]["sections"]["findings"] == {
        "positive": ["Small left effusion,"],
        "negative": ["no pneumothorax."],
        "uncertain": [],
        "neutral": [],
    }
    assert records["b"]["sections"]["findings"]["negative"] == ["Herz normal groß."]
    assert not list(tmp_path.glob("*.unfinished"))


def test_processes_give_the_same_file(folder: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"{n}.jsonl" for n in (1, 2)]
    assert main(["-i", str(folder), "-o", str(outputs[0]), "-np", "1"]) == 0
    result = run("colipri_structure_reports", "-i", str(folder), "-o", str(outputs[1]), "-np", "2")
    assert result.returncode == 0, result.stderr
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_only_what_changed_is_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "structured.jsonl"
    arguments = ["-i", str(folder), "-o", str(output), "-np", "1"]
    main(arguments)
    made: list[object] = []

    def counted(report: Any) -> StructuredReport:
        made.append(report)
        return structure_report(report)

    monkeypatch.setattr("colipri.text.structured_file.structure_report", counted)
    before = output.read_bytes()
    assert main(arguments) == 0
    assert made == [] and output.read_bytes() == before
    (folder / "a.txt").write_text("No effusion.")
    (folder / "c.txt").unlink()
    assert main(arguments) == 0
    assert len(made) == 1
    records = lines(output)
    assert set(records) == {"a", "b", "d"}
    assert records["a"]["sections"] == {
        "": {"positive": [], "negative": ["No effusion."], "uncertain": [], "neutral": []}
    }


def test_a_table(tmp_path: Path) -> None:
    table = tmp_path / "reports.csv"
    rows = (
        "VolumeName,PatientName,Technique_EN,Findings_EN,Impressions_EN\n"
        'train_1_a_1.nii.gz,Doe,CT.,"Nodule, 3 mm. No effusion.",Nodule.\n'
        "train_2_a_1.nii.gz,Roe,,Große Bulla.,\n"
    )
    table.write_bytes(rows.encode("latin-1"))
    output = tmp_path / "structured.jsonl"
    assert main(["-i", str(table), "-o", str(output), "-np", "1"]) == 0
    records = lines(output)
    assert set(records) == {"train_1_a_1", "train_2_a_1"}
    sections = records["train_1_a_1"]["sections"]
    assert set(sections) == {"technique", "findings", "impression"}
    assert sections["findings"]["positive"] == ["Nodule, 3 mm."]
    assert "Doe" not in output.read_text()


def test_a_table_with_a_column_of_whole_reports(tmp_path: Path) -> None:
    table = tmp_path / "reports.tsv"
    table.write_text('who\treport\np1\t"FINDINGS: Effusion.\nIMPRESSION: Effusion."\n')
    output = tmp_path / "structured.jsonl"
    assert main(["-i", str(table), "-o", str(output)]) == 1
    assert main(["-i", str(table), "-o", str(output), "--case_column", "who", "-np", "1"]) == 0
    assert set(lines(output)["p1"]["sections"]) == {"findings", "impression"}


def test_a_raw_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_tiny_dataset(tmp_path, num_cases=4, image_only=2)
    output = dataset / "structured_reports.jsonl"
    assert main(["-i", str(dataset), "-o", str(output), "-np", "1"]) == 0
    assert set(lines(output)) == {"case_000", "case_001"}  # the others are image-only
    assert "next: colipri_preprocess -d Dataset950_Tiny" in capsys.readouterr().out


def test_a_broken_report_is_named_and_harms_no_other(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.json").write_text('{"findings": ')
    (folder / "empty.txt").write_text("")
    output = tmp_path / "structured.jsonl"
    assert main(["-i", str(folder), "-o", str(output), "-np", "1"]) == 1
    captured = capsys.readouterr()
    assert "error: case broken: report" in captured.err and "not valid JSON" in captured.err
    assert "case empty: the report holds no text" in captured.out
    assert set(lines(output)) == {*REPORTS, "empty"}


def test_bad_reports_are_structured_whole(tmp_path: Path) -> None:
    texts = {
        "one_word": "Normal",
        "long": "FINDINGS: " + "A small nodule is seen in the left lung. " * 2500,
        "endless": "effusion " * 20_000,
        "empty_sections": "FINDINGS:\n\nIMPRESSION:\n",
        "negatives": "FINDINGS: No effusion. No nodule.",
        "turkish": "BULGULAR: Plevral efüzyon izlenmedi.\nSONUÇ: Normal.",
        "arabic": "لا يوجد انصباب جنبي.",
        "chinese": "所见\uff1a双肺未见结节。心影不大。",
        "emoji": "FINDINGS: Effusion 😀👩🏽‍⚕️. No nodule.",
        "control": "FIND\x00INGS: Effu\x07sion.\x0bNo nodule.\x1b[31m",
    }
    folder = tmp_path / "reports"
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode("utf-8"))
    output = tmp_path / "structured.jsonl"
    assert main(["-i", str(folder), "-o", str(output), "-np", "1"]) == 0
    records = {c: StructuredReport.from_dict(r) for c, r in lines(output).items()}
    for name, structured in records.items():
        written = read_report(folder / f"{name}.txt").text
        assert "".join(structured.text.split()) == "".join(written.split()), name
    assert records["empty_sections"].is_empty
    assert len(records["long"].with_polarity("positive")) == 2500
    assert records["negatives"].with_polarity("negative") == ["No effusion.", "No nodule."]
    assert records["control"].sections["findings"]["negative"] == ["No nodule.[31m"]


def test_a_broken_report_does_not_stop_an_endpoint(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a_broken.json").write_text("[")
    with serving(good) as server:
        assert ask(folder, tmp_path / "o.jsonl", server.base_url, "--concurrency", "1") == 1
    assert "case a_broken: report" in capsys.readouterr().err
    assert set(lines(tmp_path / "o.jsonl")) == set(REPORTS)


def test_the_same_reports_through_an_endpoint(tmp_path: Path) -> None:
    """What the rules keep whole, checked answers keep whole too."""
    folder = tmp_path / "reports"
    folder.mkdir()
    long = "".join(f"A nodule of {i} mm. " for i in range(4000))  # 20,000 words
    texts = ["Normal", "所见\uff1a双肺未见结节。", "Effusion 😀. No nodule.", long]
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(text, encoding="utf-8")
    with serving(good) as server:
        assert ask(folder, tmp_path / "o.jsonl", server.base_url) == 0
    assert len(server.requests) > 10  # the long one is asked about in parts
    for case, record in lines(tmp_path / "o.jsonl").items():
        assert record["sections"] == by_rules(folder)[case].sections


def test_an_endpoint(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "structured.jsonl"
    with serving(good, KEY) as server:
        more = ("--input_price", "2", "--output_price", "10", "--verbose")
        assert ask(folder, output, server.base_url, *more) == 0
    assert {c: StructuredReport.from_dict(r) for c, r in lines(output).items()} == by_rules(folder)
    captured = capsys.readouterr()
    assert "400 tokens in, 200 out, cost 0.0028" in captured.out
    assert "(100% agree with the rules)" in captured.out
    assert "leaves this machine" not in captured.out + captured.err
    everything = captured.out + captured.err + output.read_text()
    assert KEY not in everything
    assert "effusion" not in captured.out + captured.err


def test_invented_findings_are_rejected_and_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def inventive(request: dict[str, Any], number: int) -> Reply:
        answer = right_answer(request)
        for section in answer["sections"].values():
            section["positive"] += ["Large pulmonary embolism.", "pneumothorax"]
        return completion(json.dumps(answer))

    with serving(inventive) as server:
        assert ask(folder, tmp_path / "o.jsonl", server.base_url) == 0
    assert {c: r["sections"] for c, r in lines(tmp_path / "o.jsonl").items()} == {
        c: s.sections for c, s in by_rules(folder).items()
    }
    assert "12 rejected as not in the report" in capsys.readouterr().out  # 2 in each of 6 sections


def test_reports_leave_the_machine_only_with_a_warning(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 192.0.2.1 is reserved for documentation: nothing is there; no retry, and a short time-out
    more = ("--timeout", "0.2", "--retries", "0")
    assert ask(folder, tmp_path / "o.jsonl", "http://192.0.2.1/v1", *more) == 1
    output = capsys.readouterr().out
    assert output.count("leaves this machine: it is sent to 192.0.2.1, UNENCRYPTED") == 1


def test_malformed_answers_leave_a_case_out_or_fall_back(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails_for_a(request: dict[str, Any], number: int) -> Reply:
        text = request["messages"][3]["content"]
        return completion("No.") if "Small left effusion" in text else good(request, number)

    output = tmp_path / "o.jsonl"
    with serving(fails_for_a) as server:
        assert ask(folder, output, server.base_url) == 1
        captured = capsys.readouterr()
        assert "case a: no valid answer in 3 tries" in captured.err
        assert set(lines(output)) == {"b", "c", "d"}
        asked = len(server.requests)
        assert ask(folder, output, server.base_url, "--fallback", "rules") == 0
        assert len(server.requests) == asked + 3  # only the missing one
        assert "structured by rules: 1 (a)" in capsys.readouterr().out
        assert lines(output)["a"]["method"] == "rules (fallback)"
        server.behaviour = good
        assert ask(folder, output, server.base_url) == 0
        assert lines(output)["a"]["method"] == lines(output)["b"]["method"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401), "refused the request (401): is the key right?"),
        (error(404, "model_not_found"), "was not found (404, model_not_found)"),
    ],
)
def test_what_fails_for_all_ends_the_run(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    reply: Reply,
    words: str,
) -> None:
    with serving(first(reply, 99)) as server:
        more = ("--concurrency", "1", "--fallback", "rules")
        assert ask(folder, tmp_path / "o.jsonl", server.base_url, *more) == 1
        assert len(server.requests) == 1
    captured = capsys.readouterr()
    assert words in captured.err and len(captured.err.strip().splitlines()) == 1
    assert KEY not in captured.out + captured.err
    assert not (tmp_path / "o.jsonl").exists()


def test_what_was_finished_before_an_error_is_kept(tmp_path: Path) -> None:
    folder = many_reports(tmp_path, 20)
    output = tmp_path / "o.jsonl"

    def runs_out(request: dict[str, Any], number: int) -> Reply:
        return good(request, number) if number < 12 else error(403)

    with serving(runs_out) as server:
        more = ("--concurrency", "1", "--cache", str(tmp_path / "answers"))
        assert ask(folder, output, server.base_url, *more) == 1
        server.behaviour = good
        shutil.rmtree(tmp_path / "answers")  # the finished reports do not need it
        assert ask(folder, output, server.base_url, *more) == 0
    assert len(server.requests) == 13 + 8
    assert len(lines(output)) == 20


def test_an_endpoint_that_is_down(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(good) as server:
        pass
    assert ask(folder, tmp_path / "o.jsonl", server.base_url, "--retries", "1") == 1
    error_lines = capsys.readouterr().err.strip().splitlines()
    assert len(error_lines) == 1 and "cannot be reached" in error_lines[0]
    assert not list(tmp_path.glob("o.jsonl*"))


def test_an_endpoint_that_fails_every_report_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = many_reports(tmp_path, 100)
    with serving(first(Reply(200, b"<html></html>"), 10_000)) as server:
        more = ("--concurrency", "2", "--retries", "0")
        assert ask(folder, tmp_path / "o.jsonl", server.base_url, *more) == 1
        assert 8 <= len(server.requests) < 20
    assert "8 reports in a row failed" in capsys.readouterr().err


def test_no_more_requests_at_a_time_than_allowed(tmp_path: Path) -> None:
    folder = many_reports(tmp_path, 30)
    with serving(lambda request, number: good(request, number)._replace(delay=0.05)) as server:
        assert ask(folder, tmp_path / "o.jsonl", server.base_url, "--concurrency", "3") == 0
        assert server.most_at_once == 3


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = many_reports(tmp_path, 60)
    output = tmp_path / "o.jsonl"
    unfinished = tmp_path / "o.jsonl.unfinished"
    with serving(lambda request, number: good(request, number)._replace(delay=0.05)) as server:
        arguments = ("-i", str(folder), "-o", str(output), "--base_url", server.base_url)
        arguments = (*arguments, "--model", "m", "--concurrency", "2")
        code, _ = run_until(
            lambda: len(server.requests) > 15,
            signal.SIGKILL,
            "colipri_structure_reports",
            *arguments,
        )
        assert code == -signal.SIGKILL
        assert not output.exists()
        done = unfinished.read_bytes().count(b"\n")
        assert done > 5
        with unfinished.open("ab") as file:
            file.write(b'{"case": "r5", "sections": {"torn')  # killed while writing a line
        asked = len(server.requests)
        assert main(list(arguments)) == 0
        assert len(server.requests) - asked <= 60 - done
        assert len(lines(output)) == 60
        assert not unfinished.exists()
        output.unlink()
        asked = len(server.requests)
        assert main(list(arguments)) == 0  # from the cache of answers
        assert len(server.requests) == asked


def test_ctrl_c_does_not_wait_for_the_endpoint(tmp_path: Path) -> None:
    folder = many_reports(tmp_path, 5)
    with serving(lambda request, number: good(request, number)._replace(delay=30)) as server:
        arguments = ("-i", str(folder), "-o", str(tmp_path / "o.jsonl"))
        arguments = (*arguments, "--base_url", server.base_url, "--model", "m")
        interrupted: list[float] = []

        def is_asking() -> bool:
            if len(server.requests) > 1:
                interrupted.append(time.monotonic())
            return bool(interrupted)

        code, text = run_until(is_asking, signal.SIGINT, "colipri_structure_reports", *arguments)
        assert code == 130 and "interrupted" in text
        assert time.monotonic() - interrupted[0] < 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "o.txt"], "must end in .jsonl"),
        (["--model", "m"], "belong together"),
        (["--base_url", "http://127.0.0.1", "--model", "m", "--concurrency", "0"], "concurrency"),
        (["--base_url", "nowhere", "--model", "m"], "--base_url must look like"),
        (["--base_url", "http://127.0.0.1", "--model", "m", "--extra_body", "{"], "--extra_body"),
        (["-i", "nowhere"], "does not exist"),
        (["--timeout", "0"], "above 0"),
    ],
)
def test_wrong_arguments(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-i", str(folder), "-o", "o.jsonl", *arguments]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()


def test_another_file_is_not_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "o.jsonl"
    output.write_text('{"important": 1}\n')
    assert main(["-i", str(folder), "-o", str(output)]) == 1
    assert "line 1, is not a structured report" in capsys.readouterr().err
    assert output.read_text() == '{"important": 1}\n'


def test_two_reports_of_one_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.txt").write_text("Effusion.")
    assert main(["-i", str(folder), "-o", str(tmp_path / "o.jsonl")]) == 1
    assert "two reports are called 'b'" in capsys.readouterr().err


def many_reports(tmp_path: Path, count: int) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(count):
        (folder / f"r{i}.txt").write_text(f"FINDINGS: Nodule of {i} mm, no effusion.")
    return folder
