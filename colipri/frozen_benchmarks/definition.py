"""Frozen benchmarks as data: population, prompts, mapping, rules, and what others published.

A definition is a JSON file in ``definitions/``. Once released it does not change: what would change
a figure is a new version. A file of your own works the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError

FOLDER = Path(__file__).with_name("definitions")
TASKS = ("zero_shot", "retrieval", "pools")
FILTERS = ("first_of_study",)
_KEYS = (
    "name",
    "version",
    "title",
    "data",
    "population",
    "findings",
    "combine",
    "prompts",
    "score_rule",
    "threshold_rule",
    "tasks",
    "metrics",
    "published",
    "notes",
)


@dataclass(frozen=True)
class Population:
    """Which cases are evaluated.

    Attributes:
        split: train, val, test or all.
        filters: Of :data:`FILTERS`, in order.
        cases, studies, patients: How many there must be; None where no source states it.
    """

    split: str
    filters: tuple[str, ...]
    cases: int | None
    studies: int | None
    patients: int | None


@dataclass(frozen=True)
class Published:
    """A value that others published.

    Attributes:
        who: The model.
        metric: Name of the figure in our result.
        value: As published.
        source: Where it was read.
        protocol: How it was measured.
        differs: Why it cannot be compared like for like; empty if nothing is known against it.
    """

    who: str
    metric: str
    value: float
    source: str
    protocol: str
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """A frozen benchmark; ``raw`` is the content of its file, ``digest`` changes with it."""

    name: str
    version: int
    title: str
    population: Population
    findings: tuple[str, ...]
    combine: Mapping[str, tuple[str, ...]]
    prompts: tuple[str, ...]
    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    published: tuple[Published, ...]
    raw: Mapping[str, Any]
    digest: str

    @property
    def conversion(self) -> str:
        """The command that prepares the data."""
        data = self.raw["data"]
        return f"colipri_convert_dataset {data['converter']} {data['options']}".strip()

    def scored_findings(self) -> tuple[str, ...]:
        """Names that prompts are made of: parts of combined findings in place of them."""
        names = [part for name in self.findings for part in self.combine.get(name, (name,))]
        return tuple(dict.fromkeys(names))


def benchmark_names() -> list[str]:
    """Return the names of the shipped benchmarks."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_benchmark(name_or_file: str) -> Benchmark:
    """Read a shipped benchmark by name, or a definition by file.

    Raises:
        ColipriError: no such benchmark, or a faulty definition.
    """
    path = FOLDER / f"{name_or_file}.json"
    if not path.is_file():
        path = Path(name_or_file)
        if path.suffix != ".json" or not path.is_file():
            raise ColipriError(
                f"no benchmark '{name_or_file}'; there are {', '.join(benchmark_names())}, or "
                "give a .json file"
            )
    content = read_json(path)
    if not isinstance(content, dict):
        raise ColipriError(f"{path}: a benchmark must be a JSON object")
    return _parse(content, path)


def _parse(content: dict[str, Any], path: Path) -> Benchmark:
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise ColipriError(f"{path} lacks {', '.join(missing)}")
    tasks = tuple(content["tasks"])
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise ColipriError(f"{path}: tasks must be of {', '.join(TASKS)}, not {unknown}")
    if "pools" in tasks and not content.get("pools"):
        raise ColipriError(f"{path}: the task pools needs 'pools' (sizes, recall_at, repeats)")
    findings = tuple(content["findings"])
    if not findings or len(set(findings)) != len(findings):
        raise ColipriError(f"{path}: findings must be named, each once")
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()[:16]
    return Benchmark(
        name=str(content["name"]),
        version=int(content["version"]),
        title=str(content["title"]),
        population=_population(content["population"], path),
        findings=findings,
        combine={name: tuple(parts) for name, parts in content["combine"].items()},
        prompts=tuple(content["prompts"]),
        tasks=tasks,
        metrics=tuple(content["metrics"]),
        published=tuple(_published(entry, path) for entry in content["published"]),
        raw=content,
        digest=digest,
    )


def _population(content: Mapping[str, Any], path: Path) -> Population:
    filters = tuple(content.get("filters", ()))
    unknown = [name for name in filters if name not in FILTERS]
    if unknown:
        raise ColipriError(f"{path}: no filter {unknown[0]}; there are {', '.join(FILTERS)}")
    if content.get("split") not in ("train", "val", "test", "all"):
        raise ColipriError(f"{path}: population.split must be train, val, test or all")
    counts = [content.get(key) for key in ("cases", "studies", "patients")]
    if any(not (n is None or (isinstance(n, int) and n > 0)) for n in counts):
        raise ColipriError(f"{path}: counts of the population must be positive whole numbers")
    return Population(content["split"], filters, counts[0], counts[1], counts[2])


def _published(entry: Mapping[str, Any], path: Path) -> Published:
    value = entry.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ColipriError(f"{path}: a published value must be from 0 to 1, not {value}")
    try:
        texts = [str(entry[key]) for key in ("who", "metric", "source", "protocol")]
    except KeyError as error:
        raise ColipriError(f"{path}: a published value lacks {error}") from None
    if not all(texts):
        raise ColipriError(f"{path}: a published value needs who, metric, source and protocol")
    who, metric, source, protocol = texts
    return Published(who, metric, float(value), source, protocol, tuple(entry.get("differs", ())))
