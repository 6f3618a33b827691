"""Real models behind the real protocol: whatever they say, nothing unsupported gets through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from text.llm.chat_server import serving
from text.llm.small_language_model import SmallModel, random_model, smollm2

from colipri.run.structure_reports import main
from colipri.text.reports.report import read_report
from colipri.text.structured_report import StructuredReport

REPORTS = {
    "a": "FINDINGS: The heart is enlarged. No pleural effusion. A 5 mm nodule is seen.",
    "b": "IMPRESSION: Possible mass in the right upper lobe.",
}


@pytest.mark.slow
@pytest.mark.parametrize("make_model", [smollm2, random_model])
def test_only_the_words_of_the_report_get_through(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make_model: Callable[[], SmallModel],
) -> None:
    monkeypatch.setattr("colipri.text.llm.structurer.ANSWER_TRIES", 1)  # seconds an answer
    folder = tmp_path / "reports"
    folder.mkdir()
    for name, text in REPORTS.items():
        (folder / f"{name}.txt").write_text(text)
    output = tmp_path / "structured.jsonl"
    model = make_model()
    arguments = ["-i", str(folder), "-o", str(output), "--model", "small", "--concurrency", "2"]
    arguments += ["--retries", "0", "--timeout", "300", "--fallback", "rules"]
    with serving(model) as server:
        assert main([*arguments, "--base_url", server.base_url]) == 0
    assert len(model.answers) >= 2 and any(model.answers)
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [record["case"] for record in records] == list(REPORTS)
    for record in records:
        structured = StructuredReport.from_dict(record)
        written = read_report(folder / f"{record['case']}.txt")
        assert structured.text == " ".join(written.text.split())
        assert set(structured.sections) == set(written.sections)
    if model.guided:  # its answers fit the schema, so the sentences themselves were judged
        assert all("sections" in json.loads(answer) for answer in model.answers)
    printed = capsys.readouterr().out
    assert "tokens in" in printed and "0 tokens in" not in printed.split("usage: ")[1][:12]
