"""BLEU 1-4, ROUGE-L, CIDEr and METEOR, by pycocoevalcap, with intervals over patients.

The library computes every value; intervals come from its own counts of every report. Texts are
tokenized as sacrebleu does (13a, lower case). Of a score that the library averages over reports
(ROUGE-L, CIDEr) the average is resampled; CIDEr's document frequencies stay those of all
references. Corpus BLEU: Papineni et al., 2002; ROUGE-L with beta 1.2: Lin, 2004; CIDEr-D:
Vedantam et al., 2015; METEOR 1.5 (needs Java): Denkowski and Lavie, 2014.

These measures reward a fixed template: read them beside the findings.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial

import numpy as np

from colipri.common.errors import ColipriError
from colipri.common.optional import optional_module
from colipri.report_metrics.resampling import Measured, Resamples, mean, measure

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
TEXT_METRICS = (*BLEU, "rouge_l", "cider", "meteor")
_INSTALL = "pycocoevalcap sacrebleu"
_PURPOSE = "BLEU, ROUGE-L, CIDEr and METEOR"
_TINY, _SMALL = 1e-15, 1e-9  # pycocoevalcap's own: no division by zero
_NO_WORDS = "."  # an empty text has no token, which METEOR cannot read


def text_metrics(
    references: Sequence[str],
    generated: Sequence[str],
    resamples: Resamples,
    with_meteor: bool = True,
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure how similar the words are.

    Args:
        references: n texts.
        generated: n texts.
        resamples: Of the patients.
        with_meteor: False for no METEOR, which starts a Java program.

    Returns:
        Metric -> measured, and metric -> why it could not be computed.

    Raises:
        ColipriError: pycocoevalcap or sacrebleu is not installed.
    """
    references, generated = tokenize(references), tokenize(generated)
    result = dict(zip(BLEU, _bleu(references, generated, resamples), strict=True))
    result["rouge_l"] = mean(_rouge(references, generated), resamples)
    missing: dict[str, str] = {}
    if len(references) > 1:
        result["cider"] = mean(_cider(references, generated), resamples)
    else:
        missing["cider"] = "one report: document frequencies need several"
    if not with_meteor:
        missing["meteor"] = "not asked for"
    elif shutil.which("java") is None:
        missing["meteor"] = "Java is not installed (METEOR 1.5 is a Java program)"
    else:
        result["meteor"] = _meteor(references, generated, resamples)
    return result, missing


def tokenize(texts: Sequence[str]) -> list[str]:
    """Separate words and punctuation by spaces, in lower case; an empty text becomes "."."""
    tokenizer = optional_module("sacrebleu.tokenizers.tokenizer_13a", _INSTALL, _PURPOSE)
    split = tokenizer.Tokenizer13a()
    return [" ".join(split(text.lower()).split()) or _NO_WORDS for text in texts]


def _bleu(
    references: Sequence[str], generated: Sequence[str], resamples: Resamples
) -> list[Measured]:
    module = optional_module("pycocoevalcap.bleu.bleu_scorer", _INSTALL, _PURPOSE)
    scorer = module.BleuScorer(n=4)
    for reference, text in zip(references, generated, strict=True):
        scorer += (text, [reference])
    values, _ = scorer.compute_score(option="closest")
    rows = np.array(
        [
            [*c["correct"], *c["guess"], c["testlen"], c["reflen"][0]]
            for c in scorer.ctest  # counts of every report
        ],
        dtype=float,
    )
    measured = [measure(rows, partial(_bleu_of_sums, order), resamples) for order in range(1, 5)]
    for own, value in zip(measured, values, strict=True):
        if abs(own.value - value) > 1e-9:
            raise ColipriError("this version of pycocoevalcap counts BLEU in another way than 1.2")
    return measured


def _bleu_of_sums(order: int, sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU of (R, 10) sums: matches and n-grams of order 1-4, both lengths."""
    precisions = (sums[:, :4] + _TINY) / (sums[:, 4:8] + _SMALL)
    lengths = (sums[:, 8] + _TINY) / (sums[:, 9] + _SMALL)
    penalty = np.where(lengths < 1, np.exp(np.minimum(0.0, 1 - 1 / lengths)), 1.0)
    product: np.ndarray = precisions[:, :order].prod(axis=1) ** (1 / order) * penalty
    return product


def _rouge(references: Sequence[str], generated: Sequence[str]) -> np.ndarray:
    module = optional_module("pycocoevalcap.rouge.rouge", _INSTALL, _PURPOSE)
    scorer = module.Rouge()
    pairs = zip(references, generated, strict=True)
    return np.array([scorer.calc_score([text], [reference]) for reference, text in pairs])


def _cider(references: Sequence[str], generated: Sequence[str]) -> np.ndarray:
    module = optional_module("pycocoevalcap.cider.cider_scorer", _INSTALL, _PURPOSE)
    scorer = module.CiderScorer()
    for reference, text in zip(references, generated, strict=True):
        scorer += (text, [reference])
    _, scores = scorer.compute_score()
    return np.asarray(scores, dtype=float)


def _meteor(references: Sequence[str], generated: Sequence[str], resamples: Resamples) -> Measured:
    """The library's corpus value; the interval is that of the mean over reports, moved onto it.

    METEOR's corpus value comes from statistics that the library keeps to itself.
    """
    module = optional_module("pycocoevalcap.meteor.meteor", _INSTALL, _PURPOSE)
    scorer = module.Meteor()
    clean = [text.replace("|||", " ") for text in references]
    texts = {str(row): [text] for row, text in enumerate(generated)}
    value, scores = scorer.compute_score({str(r): [text] for r, text in enumerate(clean)}, texts)
    means = mean(np.asarray(scores, dtype=float), resamples)
    return Measured(float(value), means.draws + (float(value) - means.value))
