"""Who is learned from, who chooses, who is judged: three sides that share no patient."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.inference.labelled_cases import CaseCollection, LabelledCase, cases_of_split
from colipri.inference.predictor import ColipriPredictor
from colipri.text.report_findings import finding_states

logger = logging.getLogger(__name__)

LABEL_SOURCES = ("cases", "reports")
FEW_PATIENTS = 10  # with or without a finding: learned, with a warning
FEWEST_PATIENTS = 2  # with and without a finding, to learn it from
HELD_OUT = 0.2  # of the training patients, where a data set names no validation cases
_SEED = 12345
_STATES = {"present": 1.0, "absent": 0.0}


@dataclass(frozen=True)
class Side:
    """Cases of one side and their labels.

    Attributes:
        name: train, val or test.
        cases: Sorted.
        labels: (n, F) of 0, 1 and NaN (unknown).
    """

    name: str
    cases: tuple[LabelledCase, ...]
    labels: np.ndarray

    @property
    def identifiers(self) -> list[str]:
        """Of the cases."""
        return [case.identifier for case in self.cases]

    @property
    def patients(self) -> list[str]:
        """Of every case."""
        return [case.subject for case in self.cases]

    def take(self, rows: Sequence[int] | np.ndarray) -> Side:
        """Return some of the cases."""
        return Side(self.name, tuple(self.cases[row] for row in rows), self.labels[list(rows)])


@dataclass(frozen=True)
class Sides:
    """Training, validation and evaluated cases, and what they are labelled with.

    Attributes:
        train, val, test: Without a common patient.
        findings: Names of the label columns.
        label_source: cases or reports.
        left_out: Finding -> why it is not learned.
        validation_is: Where the validation cases come from, in words.
    """

    train: Side
    val: Side
    test: Side
    findings: tuple[str, ...]
    label_source: str
    left_out: Mapping[str, str]
    validation_is: str


def make_sides(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    *,
    split: str = "test",
    label_source: str = "cases",
    findings: Sequence[str] | None = None,
    usable: Sequence[str] | None = None,
) -> Sides:
    """Divide a data set and read its labels.

    Args:
        predictor: Its fold decides what train and val are on its own data set.
        collection: The cases.
        split: That is evaluated: test or val.
        label_source: "cases" (columns of cases.csv) or "reports" (what the structured reports
            assert and deny; what they doubt or do not mention is unknown).
        findings: Names; default: those of the data set.
        usable: Cases that have features; the others are left out, counted and named.

    Raises:
        ColipriError: a side is empty, a patient is on two of them, no finding can be learned.
    """
    if label_source not in LABEL_SOURCES:
        raise ColipriError(f"--labels must be {' or '.join(LABEL_SOURCES)}, not {label_source}")
    names = _finding_names(collection, findings, label_source)
    train, val, validation_is = _train_and_val(predictor, collection, split)
    sides = {"train": train, "val": val, split: cases_of_split(collection, split, predictor)}
    if split == "val":
        sides["test"] = sides.pop("val")
        train, sides["val"] = _hold_out(train)
        sides["train"] = train
        validation_is = _HELD_OUT_WORDS
    _require_disjoint(sides)
    made = {}
    for name, cases in sides.items():
        kept = _with_features(name, cases, usable)
        made[name] = Side(name, tuple(kept), _labels(kept, names, label_source))
    learned, left_out = _learnable(made["train"], names)
    columns = [names.index(name) for name in learned]
    final = {
        k: Side(split if k == "test" else k, s.cases, s.labels[:, columns]) for k, s in made.items()
    }
    if not np.isfinite(final["test"].labels).any():
        raise ColipriError(
            f"no case of the split '{split}' of {collection.dataset} has a label for "
            f"{', '.join(learned)}"
        )
    return Sides(
        final["train"],
        final["val"],
        final["test"],
        tuple(learned),
        label_source,
        left_out,
        validation_is,
    )


_HELD_OUT_WORDS = f"{HELD_OUT:.0%} of the training patients, held out"


def _train_and_val(
    predictor: ColipriPredictor, collection: CaseCollection, split: str
) -> tuple[list[LabelledCase], list[LabelledCase], str]:
    try:
        train = cases_of_split(collection, "train", predictor)
    except ColipriError:  # another data set whose split column leaves training cases empty
        train = [case for case in collection.cases.values() if case.split == ""]
        if not train:
            raise
    train = sorted(train, key=lambda case: case.identifier)
    if split == "val":
        return train, [], ""
    try:
        return train, cases_of_split(collection, "val", predictor), "the validation split"
    except ColipriError as error:
        logger.info("%s: %s are held out instead", error, f"{HELD_OUT:.0%} of the patients")
        kept, held_out = _hold_out(train)
        return kept, held_out, _HELD_OUT_WORDS


def _hold_out(train: Sequence[LabelledCase]) -> tuple[list[LabelledCase], list[LabelledCase]]:
    """A fixed fifth of the patients, the same on every machine."""
    patients = sorted({case.subject for case in train})
    order = np.random.default_rng(derive_seed(_SEED, "held out")).permutation(len(patients))
    chosen = {patients[i] for i in order[: max(1, round(HELD_OUT * len(patients)))]}
    if len(patients) < 2:
        raise ColipriError("one training patient is too few to hold any out for validation")
    kept = [case for case in train if case.subject not in chosen]
    return kept, [case for case in train if case.subject in chosen]


def _require_disjoint(sides: Mapping[str, Sequence[LabelledCase]]) -> None:
    seen: dict[str, str] = {}
    for name, cases in sides.items():
        for case in cases:
            if seen.setdefault(case.subject, name) != name:
                raise ColipriError(
                    f"patient {case.subject} is in {seen[case.subject]} and, with case "
                    f"{case.identifier}, in {name}; give all scans of a patient one split in "
                    "cases.csv"
                )


def _with_features(
    name: str, cases: Sequence[LabelledCase], usable: Sequence[str] | None
) -> list[LabelledCase]:
    known = None if usable is None else set(usable)
    kept = [case for case in cases if known is None or case.identifier in known]
    missing = [
        case.identifier for case in cases if known is not None and case.identifier not in known
    ]
    if missing:
        logger.warning(
            "%d of %d %s cases have no features and are left out: %s%s",
            len(missing),
            len(cases),
            name,
            ", ".join(missing[:5]),
            ", ..." if len(missing) > 5 else "",
        )
    if not kept:
        raise ColipriError(f"there is no {name} case with features; run colipri_encode again")
    return kept


def _finding_names(
    collection: CaseCollection, wanted: Sequence[str] | None, label_source: str
) -> list[str]:
    known = collection.finding_names
    if wanted is None:
        if not known:
            raise ColipriError(
                f"{collection.dataset} names no findings: add a column per finding to cases.csv "
                "and their names to dataset.json, or name them with -f and take --labels reports"
            )
        return known
    if label_source == "reports":  # any words
        return list(dict.fromkeys(wanted))
    by_lower = {name.lower(): name for name in known}
    unknown = [name for name in wanted if name.lower() not in by_lower]
    if unknown:
        raise ColipriError(
            f"{collection.dataset} has no labels for {', '.join(unknown)}; it has "
            f"{', '.join(known) or 'none'}"
        )
    return list(dict.fromkeys(by_lower[name.lower()] for name in wanted))


def _labels(cases: Sequence[LabelledCase], names: Sequence[str], label_source: str) -> np.ndarray:
    rows = [_row_of(case, names, label_source) for case in cases]
    return np.array(rows, dtype=float).reshape(len(cases), len(names))


def _row_of(case: LabelledCase, names: Sequence[str], label_source: str) -> list[float]:
    if label_source == "cases":
        values = [case.findings.get(name) for name in names]
        return [np.nan if value is None else float(value) for value in values]
    report = case.report() if case.has_report else None
    if report is None:
        return [np.nan] * len(names)
    states = finding_states(report, names)
    return [_STATES.get(states[name], np.nan) for name in names]


def _learnable(train: Side, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Findings that training cases show and lack, and why the others are left out."""
    patients = np.array(train.patients)
    learned, left_out = [], {}
    for index, name in enumerate(names):
        column = train.labels[:, index]
        with_it, without = (len(set(patients[column == value])) for value in (1, 0))
        if min(with_it, without) < FEWEST_PATIENTS:
            left_out[name] = (
                f"{with_it} training patients have it and {without} do not; each must be at least "
                f"{FEWEST_PATIENTS}"
            )
            continue
        learned.append(name)
        if min(with_it, without) < FEW_PATIENTS:
            logger.warning(
                "%s is learned from few: %d training patients have it, %d do not",
                name,
                with_it,
                without,
            )
    if not learned:
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise ColipriError(f"no finding can be learned ({shown})")
    for name, reason in left_out.items():
        logger.warning("%s is not learned: %s", name, reason)
    return learned, left_out
