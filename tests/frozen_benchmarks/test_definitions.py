"""The shipped definitions: they parse, agree with the converters, and do not change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.ct_rate.source import FINDINGS
from colipri.dataset_conversion.registry import find_converter
from colipri.evaluation.prompts import make_prompts
from colipri.frozen_benchmarks.definition import FOLDER, benchmark_names, load_benchmark

# Another digest is another benchmark: raise its version, and say in the changelog what changed.
DIGESTS = {
    "ct_rate_colipri": (1, "7f9dd2612834d9c0"),
    "ct_rate_scans": (1, "2f53b180734d57e7"),
    "ct_rate_volumes": (1, "4248065cb16833a1"),
    "inspect": (1, "ca3d0e23bdcaf729"),
    "lidc": (1, "0ffa6ea97a6407d5"),
    "merlin": (1, "83d023d5f33345ae"),
    "rad_chestct_hlip": (1, "9d5f161c375b4eb0"),
    "rad_chestct_radfinder": (1, "17ba8b739cc32e20"),
    "semi_synthetic_chest": (1, "67f6686b64bc06ce"),
}
MAPPINGS = Path(__file__).parents[2] / "dataset_conversion" / "rad_chestct_mappings.json"


@pytest.mark.parametrize("name", benchmark_names())
def test_a_released_definition_does_not_change(name: str) -> None:
    found = load_benchmark(name)
    assert found.name == name
    assert (found.version, found.digest) == DIGESTS[name]


@pytest.mark.parametrize("name", benchmark_names())
def test_everything_that_a_run_needs_is_there(name: str) -> None:
    found = load_benchmark(name)
    assert find_converter(found.raw["data"]["converter"]) is not None
    assert found.raw["data"]["licence"]
    for style in found.prompts:
        assert len(make_prompts(found.scored_findings(), style)) == len(found.scored_findings())
    assert all(entry.source and entry.protocol for entry in found.published)


def test_counts_that_others_state() -> None:
    counts = {name: load_benchmark(name).population for name in benchmark_names()}
    assert counts["ct_rate_volumes"].cases == 3039
    assert counts["ct_rate_volumes"].studies == counts["ct_rate_scans"].cases == 1564
    assert counts["ct_rate_colipri"].cases == 1493
    assert counts["rad_chestct_radfinder"].cases == 3630
    assert len(load_benchmark("merlin").findings) == 30


def test_findings_are_those_of_the_data_sets() -> None:
    for name in ("ct_rate_volumes", "ct_rate_scans", "ct_rate_colipri"):
        assert load_benchmark(name).findings == tuple(FINDINGS)
    mappings = json.loads(MAPPINGS.read_text())
    for group in ("radfinder", "hlip"):
        found = load_benchmark(f"rad_chestct_{group}")
        assert set(found.findings) == set(mappings[group]["findings"])
        assert set(found.scored_findings()) <= set(FINDINGS)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d.pop("published"), "lacks published"),
        (lambda d: d["tasks"].append("magic"), "tasks must be of"),
        (lambda d: d["population"].update(filters=["luck"]), "no filter luck"),
        (lambda d: d["population"].update(cases=-1), "positive whole numbers"),
        (lambda d: d["population"].update(split="exam"), "train, val, test or all"),
        (lambda d: d["findings"].append(d["findings"][0]), "each once"),
        (lambda d: d["published"].append({"value": 84.1}), "from 0 to 1"),
        (lambda d: d["published"].append({"value": 0.8, "who": "x"}), "lacks 'metric'"),
    ],
)
def test_faulty_definitions(
    change: Callable[[dict[str, Any]], None], what: str, tmp_path: Path
) -> None:
    content = json.loads((FOLDER / "ct_rate_scans.json").read_text())
    change(content)
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ColipriError, match=what):
        load_benchmark(str(path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ColipriError, match=r"no benchmark 'mimic'.*ct_rate_colipri"):
        load_benchmark("mimic")
