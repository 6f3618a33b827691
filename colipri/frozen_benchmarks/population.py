"""The cases that a benchmark counts, and the proof that they are the ones it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from colipri.common.errors import ColipriError
from colipri.frozen_benchmarks.definition import Benchmark, benchmark_names, load_benchmark
from colipri.inference.labelled_cases import CaseCollection, LabelledCase, cases_of_split
from colipri.inference.predictor import ColipriPredictor


def select_population(
    benchmark: Benchmark, collection: CaseCollection, predictor: ColipriPredictor
) -> list[LabelledCase]:
    """Return the cases of a benchmark, sorted by name.

    Args:
        benchmark: The definition.
        collection: The converted data set.
        predictor: The model; all scans of a data set are a test set only for a model that was not
            trained on it.

    Raises:
        ColipriError: there are none, or the model was trained on them.
    """
    population = benchmark.population
    if population.split != "all":
        cases = cases_of_split(collection, population.split, predictor)
    elif collection.dataset == predictor.plans.dataset_name:
        raise ColipriError(
            f"{benchmark.name} evaluates all scans of {collection.dataset}, which this model was "
            "trained on"
        )
    else:
        cases = [collection.cases[name] for name in sorted(collection.cases)]
    for name in population.filters:
        assert name == "first_of_study"
        cases = first_of_study(cases)
    return cases


def first_of_study(cases: Sequence[LabelledCase]) -> list[LabelledCase]:
    """Return the first case by name of every study, that is its first reconstruction."""
    kept: dict[str, LabelledCase] = {}
    for case in sorted(cases, key=lambda case: case.identifier):
        kept.setdefault(case.study, case)
    return list(kept.values())


def count(cases: Sequence[LabelledCase]) -> dict[str, int]:
    """Return how many cases, studies and patients there are."""
    return {
        "cases": len(cases),
        "studies": len({case.study for case in cases}),
        "patients": len({case.subject for case in cases}),
    }


def check_counts(
    benchmark: Benchmark, cases: Sequence[LabelledCase], allow_other_counts: bool = False
) -> dict[str, Any]:
    """Compare the cases with the numbers that the benchmark states.

    Args:
        benchmark: The definition.
        cases: Found in the data set.
        allow_other_counts: Go on with others; the result then says that it is not the benchmark's.

    Returns:
        ``found``, ``expected``, ``is_complete``: True if all stated numbers hold.

    Raises:
        ColipriError: a number is another one.
    """
    found, population = count(cases), benchmark.population
    expected = {key: getattr(population, key) for key in ("cases", "studies", "patients")}
    wrong = [
        f"{found[key]:,} {key} instead of {number:,}"
        for key, number in expected.items()
        if number is not None and number != found[key]
    ]
    if wrong and not allow_other_counts:
        raise ColipriError(
            f"{benchmark.name} counts another population: {', '.join(wrong)}. Was it converted "
            f"with '{benchmark.conversion}', and completely? --allow_other_counts evaluates what "
            "is there and says so"
        )
    return {"found": found, "expected": expected, "is_complete": not wrong}


def check_findings(benchmark: Benchmark, collection: CaseCollection) -> None:
    """Check that the data set has the labels of the benchmark.

    Raises:
        ColipriError: a finding has no column.
    """
    known = set(collection.finding_names)
    missing = [name for name in benchmark.findings if name not in known]
    if missing:
        raise ColipriError(
            f"{collection.dataset} has no labels for {len(missing)} of the "
            f"{len(benchmark.findings)} findings of {benchmark.name} ({', '.join(missing[:3])}); "
            f"convert it with '{benchmark.conversion}'"
        )


def fitting_benchmarks(collection: CaseCollection, predictor: ColipriPredictor) -> tuple[str, ...]:
    """Name the shipped benchmarks whose population this data set is.

    The labels are there and the counts are those that the benchmark states; where it states none,
    the columns are exactly its findings.
    """
    return tuple(
        name for name in benchmark_names() if _fits(load_benchmark(name), collection, predictor)
    )


def _fits(benchmark: Benchmark, collection: CaseCollection, predictor: ColipriPredictor) -> bool:
    population = benchmark.population
    counted = (population.cases, population.studies, population.patients) != (None, None, None)
    if not counted and set(benchmark.findings) != set(collection.finding_names):
        return False
    try:
        check_findings(benchmark, collection)
        check_counts(benchmark, select_population(benchmark, collection, predictor))
    except ColipriError:  # the answer: another data set
        return False
    return True
