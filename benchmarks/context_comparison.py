"""The rules of colipri and ConText of medspaCy on the same findings in hard sentences.

    python -m venv CONTEXT && CONTEXT/bin/pip install medspacy==1.3.1
    PYTHONPATH=. CONTEXT/bin/python benchmarks/context_comparison.py [--errors]

medspaCy (Eyre et al. 2021, arXiv 2106.07799) needs older versions of common packages, so it lives
in an environment of its own; the rules of colipri need nothing but Python. ConText runs with its
own rules and sentence splitter, gets every finding as a target, and its answers count as generously
as possible: negated is absent, uncertain is possible, historical or hypothetical is not described,
anything else is present. Sentences as a whole are left out: ConText says nothing about them.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from finding_polarity import PARTS, WHOLE, Finding, predict, read_findings


def load_context() -> Any:
    """A medspaCy pipeline with its default rules of ConText, without targets."""
    warnings.filterwarnings("ignore")
    import medspacy
    from loguru import logger

    logger.disable("PyRuSH")  # logs every token

    return medspacy.load(
        medspacy_enable=["medspacy_pyrush", "medspacy_target_matcher", "medspacy_context"]
    )


def context_predictor() -> Callable[[Finding], str]:
    """Finding -> the polarity that ConText gives its first mention."""
    from medspacy.ner import TargetRule

    pipeline = load_context()
    matcher = pipeline.get_pipe("medspacy_target_matcher")
    known: set[str] = set()

    def of_finding(finding: Finding) -> str:
        name = finding.name.lower()
        if name not in known:
            known.add(name)
            matcher.add([TargetRule(name, "FINDING", pattern=re.escape(name))])
        found = [
            entity
            for entity in pipeline(finding.sentence).ents
            if name in entity.text.lower() or entity.text.lower() in name
        ]
        return _polarity(found[0]._) if found else "missing"

    return of_finding


def _polarity(attributes: Any) -> str:
    if attributes.is_historical or attributes.is_hypothetical or attributes.is_family:
        return "neutral"
    if attributes.is_negated:
        return "negative"
    return "uncertain" if attributes.is_uncertain else "positive"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the share of right findings of both, per part and kind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--errors", action="store_true", help="list what ConText gets wrong")
    options = parser.parse_args(arguments)
    of_context = context_predictor()
    methods = {"colipri": predict, f"medspaCy {version('medspacy')}": of_context}
    findings = [finding for finding in read_findings() if finding.name != WHOLE]
    right = {
        method: Counter(
            key
            for finding in findings
            if of_finding(finding) in finding.expected
            for key in (finding.part, finding.kind)
        )
        for method, of_finding in methods.items()
    }
    total = Counter(key for finding in findings for key in (finding.part, finding.kind))
    print(f"{'':18s} {'findings':>8s}  " + "  ".join(f"{method:>14s}" for method in methods))
    for key in (*PARTS, *dict.fromkeys(finding.kind for finding in findings)):
        shares = "  ".join(f"{right[m][key] / total[key]:14.1%}" for m in methods)
        print(f"{key:18s} {total[key]:8d}  {shares}")
    for finding in findings if options.errors else []:
        if of_context(finding) not in finding.expected:
            wanted = "/".join(finding.expected)
            print(f"  {finding.name}: {of_context(finding)}, not {wanted}: {finding.sentence}")


if __name__ == "__main__":
    main()
