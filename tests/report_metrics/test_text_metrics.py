"""BLEU, ROUGE-L, CIDEr and METEOR: against other libraries, and intervals that are exact."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from colipri.report_metrics.resampling import Resamples
from colipri.report_metrics.text_metrics import text_metrics, tokenize

REFERENCES = [
    "There is a small left pleural effusion. No pneumothorax is seen in the chest.",
    "The heart is enlarged. No pleural effusion. Calcified plaques of the aorta.",
    "Consolidation in the right lower lobe with air bronchograms. No effusion.",
]
GENERATED = [
    "There is a large left pleural effusion. No pneumothorax is seen.",
    "The heart is normal. No pleural effusion.",
    "Consolidation in the left upper lobe, no pleural effusion.",
]


_without_meteor = partial(text_metrics, with_meteor=False)  # Java takes seconds to start


def test_bleu_is_that_of_sacrebleu() -> None:
    for order in range(1, 5):
        theirs = sacrebleu.BLEU(lowercase=True, max_ngram_order=order, smooth_method="none")
        score = theirs.corpus_score(GENERATED, [REFERENCES]).score / 100
        found, _ = _without_meteor(REFERENCES, GENERATED, Resamples.of(["a", "b", "c"], 0))
        assert found[f"bleu_{order}"].value == pytest.approx(score, abs=1e-6)


def test_rouge_l_follows_from_the_common_subsequence_of_rouge_score() -> None:
    class Split:
        def tokenize(self, text: str) -> list[str]:
            return text.split()

    scorer = RougeScorer(["rougeL"], tokenizer=Split())
    values = []
    for reference, text in zip(tokenize(REFERENCES), tokenize(GENERATED), strict=True):
        score = scorer.score(reference, text)["rougeL"]
        beta = 1.2**2
        both = score.recall + beta * score.precision
        values.append((1 + beta) * score.precision * score.recall / both)
    found, _ = _without_meteor(REFERENCES, GENERATED, Resamples.of(["a", "b", "c"], 0))
    assert found["rouge_l"].value == pytest.approx(np.mean(values))


def test_the_same_text_is_perfect() -> None:
    found, _ = _without_meteor(REFERENCES, REFERENCES, Resamples.of(["a", "b", "c"], 0))
    assert found["bleu_4"].value == pytest.approx(1)
    assert found["rouge_l"].value == pytest.approx(1)
    assert found["cider"].value == pytest.approx(10)


def test_a_resample_is_the_metric_of_the_drawn_reports() -> None:
    resamples = Resamples.of(["a", "b", "b"], 20, seed=3)
    found, _ = _without_meteor(REFERENCES, GENERATED, resamples)
    for row in (0, 7, 19):
        taken = np.repeat(np.arange(3), resamples.weights[row])
        again, _ = _without_meteor(
            [REFERENCES[i] for i in taken],
            [GENERATED[i] for i in taken],
            Resamples.of([str(i) for i in range(len(taken))], 0),
        )
        for name in ("bleu_1", "bleu_4", "rouge_l"):
            assert found[name].draws[row] == pytest.approx(again[name].value, abs=1e-6)


def test_an_empty_report_scores_next_to_nothing() -> None:
    found, _ = _without_meteor(REFERENCES, ["", "", ""], Resamples.of(["a", "b", "c"], 0))
    assert found["bleu_1"].value < 1e-5
    assert found["rouge_l"].value < 0.2


def test_one_report_has_no_cider() -> None:
    found, missing = _without_meteor(REFERENCES[:1], GENERATED[:1], Resamples.of(["a"], 100))
    assert "cider" not in found
    assert "one report" in missing["cider"]
    assert found["bleu_1"].to_dict()["low"] is None


def test_without_java_meteor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    _, missing = text_metrics(REFERENCES, GENERATED, Resamples.of(["a", "b", "c"], 0))
    assert "Java" in missing["meteor"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR needs Java")
def test_meteor_is_one_for_the_same_text_and_less_for_another() -> None:
    same, _ = text_metrics(REFERENCES, REFERENCES, Resamples.of(["a", "b", "c"], 50))
    other, _ = text_metrics(REFERENCES, GENERATED, Resamples.of(["a", "b", "c"], 50))
    assert same["meteor"].value == pytest.approx(1)
    assert 0 < other["meteor"].value < 1
    low, high = (other["meteor"].to_dict()[side] for side in ("low", "high"))
    assert low <= other["meteor"].value <= high
