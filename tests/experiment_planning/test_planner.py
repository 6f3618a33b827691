"""Plans: golden ones, determinism, and sensible numbers for data sets of many kinds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_planning.fingerprints import ct_rate_like, make_fingerprint
from experiment_planning.golden_plans import GOLDEN, golden_path, make_plan

from colipri.common.errors import ColipriError
from colipri.cost.memory import GIB
from colipri.experiment_planning.geometry import tokens_for
from colipri.experiment_planning.gpu_measurement import read_gpu_measurement
from colipri.experiment_planning.memory_planning import (
    Machine,
    pairs_that_fit,
    planned_memory,
    planned_tokens,
)
from colipri.experiment_planning.planner import CONFIGURATIONS, ColipriPlanner
from colipri.experiment_planning.training_cost import expected_tokens

Fingerprint = dict[str, Any]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_plans(name: str) -> None:
    """A rule was changed? Then: python tests/experiment_planning/golden_plans.py --write."""
    text = json.dumps(make_plan(name).to_json(), indent=2, ensure_ascii=False) + "\n"
    assert text == golden_path(name).read_text(encoding="utf-8")


def test_ct_rate_comes_out_as_the_released_model() -> None:
    """2 mm, 192^3, Primus-M on 80 GB was chosen by hand; here nothing says so."""
    configuration = make_plan("ct_rate_80gb").configurations["3d_lowres"]
    assert max(abs(step - 2.0) for step in configuration.spacing) <= 0.15
    assert max(abs(size - 192) for size in configuration.patch_size) <= 8
    arch = configuration.encoder
    assert (arch.embed_dim, arch.depth, arch.num_heads) == (864, 16, 12)
    assert arch.stem == "linear"


def test_less_memory_changes_the_micro_batch_and_not_the_method() -> None:
    large, small = (make_plan(f"ct_rate_{gb}gb").configurations["3d_lowres"] for gb in (80, 24))
    assert small.micro_batch_size < large.micro_batch_size
    for entry in ("spacing", "patch_size", "batch_size", "text_encoder", "training"):
        assert getattr(small, entry) == getattr(large, entry)


def test_plans_are_the_same_byte_for_byte() -> None:
    first, second = (json.dumps(make_plan("lidc_24gb").to_json()) for _ in range(2))
    assert first == second


def _around(
    spacing: tuple[float, float, float],
    extent: tuple[float, float, float],
    count: int,
    **options: Any,
) -> Fingerprint:
    rng = np.random.default_rng(count)
    extents = np.array(extent) * rng.uniform(0.9, 1.1, (count, 3))
    return make_fingerprint([spacing] * count, extents.tolist(), **options)


def _scenarios() -> dict[str, Fingerprint]:
    chest = ((1.5, 0.75, 0.75), (330.0, 240.0, 350.0))
    return {
        "chest CT": _around(*chest, 600),
        "six cases": _around(*chest, 6, words_per_report=60, repeated_words=80),
        "hippocampus MR": _around((1, 1, 1), (50, 35, 35), 80, channel_names={"0": "MRI"}),
        "thick slices": _around((6, 0.5, 0.5), (180, 220, 200), 500, channel_names={"0": "T1"}),
        "one slab": _around((5, 1, 1), (20, 300, 300), 50),
        "PET and CT": _around(*chest, 4000, channel_names={"0": "CT", "1": "PET"}),
        "no reports": _around(*chest, 200, num_paired_studies=0),
        "few reports": _around(*chest, 2000, num_paired_studies=3),
        "tiny body": _around((1, 1, 1), (8, 8, 6), 50),
        "micro CT": _around((0.02, 0.02, 0.02), (12, 12, 12), 50),
        "whole bodies": _around((1.5, 1.0, 1.0), (1900, 400, 600), 800),
        "absurd extents": _around((3.0, 3.0, 3.0), (50_000, 20_000, 20_000), 100),
        "two cases": _around(*chest, 2),
    }


SCENARIOS = _scenarios()


@pytest.mark.parametrize("memory", [2.0, 24.0])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_kind_of_data_gets_a_sensible_plan(name: str, memory: float) -> None:
    fingerprint = SCENARIOS[name]
    plans = ColipriPlanner(fingerprint, memory).plan()  # checks what hand editing checks
    assert set(plans.configurations) == set(CONFIGURATIONS)
    extents = np.array(fingerprint["body_extents_mm"])
    finest = float(np.median(fingerprint["spacings"], axis=0).min())
    for raw in plans.configurations.values():
        tokens = math.prod(raw.patch_size) // 512
        arch = raw.encoder
        assert 8 <= tokens <= 16 * arch.embed_dim
        assert all(size % 8 == 0 for size in raw.patch_size)
        assert min(raw.spacing) >= 0.5 * finest
        assert max(raw.spacing) <= 3.0 * min(raw.spacing) + 0.05
        assert raw.memory_estimate.total_in_gb <= memory
        one = replace(raw, micro_batch_size=1)
        assert planned_memory(one).total <= memory * GIB  # a patient who fills the patch
        assert 1 <= raw.micro_batch_size <= raw.batch_size <= 256
        assert raw.batch_size <= max(2, fingerprint["num_paired_studies"] or 10**9)
        assert raw.compute_estimate.tflop_per_step > 0
    lowres, fullres = (plans.configurations[name] for name in CONFIGURATIONS)
    field_of_view = np.array(lowres.patch_size) * lowres.spacing
    assert (extents <= field_of_view + 0.1).all(axis=1).mean() >= 0.95
    assert math.prod(fullres.spacing) <= math.prod(lowres.spacing) + 1e-9


def test_equal_geometries_share_their_cases() -> None:
    small = ColipriPlanner(SCENARIOS["hippocampus MR"], 24).plan().configurations
    assert small["3d_fullres"].spacing == small["3d_lowres"].spacing == [1.0, 1.0, 1.0]
    assert small["3d_fullres"].data_identifier == small["3d_lowres"].data_identifier
    large = ColipriPlanner(SCENARIOS["chest CT"], 24).plan().configurations
    assert large["3d_fullres"].data_identifier != large["3d_lowres"].data_identifier


def test_fullres_needs_at_most_eight_windows() -> None:
    raw = ColipriPlanner(SCENARIOS["chest CT"], 24).plan().configurations["3d_fullres"]
    extent = np.percentile(SCENARIOS["chest CT"]["body_extents_mm"], 95, axis=0)
    budget = 16 * raw.encoder.embed_dim
    assert math.prod(tokens_for(extent.tolist(), raw.spacing)) <= 8 * budget


def test_intensities_follow_the_channel_names() -> None:
    plan = ColipriPlanner(SCENARIOS["PET and CT"], 24).plan()
    raw = plan.configurations["3d_lowres"]
    assert raw.normalization_schemes == ["CTNormalization", "ZScoreNormalization"]
    assert raw.storage_dtype == "float16"
    intensities = plan.foreground_intensity_properties_per_channel
    assert intensities["0"].mean == -1000.0 and intensities["1"].mean == -280.0
    assert raw.encoder.input_channels == 2
    ct = ColipriPlanner(SCENARIOS["chest CT"], 24).plan().configurations["3d_lowres"]
    assert ct.storage_dtype == "int16"


def test_more_data_carries_a_larger_model() -> None:
    widths = []
    for studies in (100, 5_000, 20_000, 200_000):
        fingerprint = ct_rate_like() | {"num_paired_studies": studies, "num_studies": studies}
        raw = ColipriPlanner(fingerprint, 80).plan().configurations["3d_lowres"]
        arch = raw.encoder
        widths.append((arch.embed_dim, arch.stem))
    assert widths == [(396, "v2"), (792, "linear"), (864, "linear"), (1056, "linear")]


def test_without_reports_the_plan_says_so() -> None:
    because = _because("no reports")
    assert "no case has a report" in because["objectives"]
    assert "no reports" in because["max_text_tokens"]
    assert "with reports" not in because["architecture"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_planned_number_has_a_reason(name: str) -> None:
    because = _because(name)
    expected = {
        "spacing",
        "patch_size",
        "normalization_schemes",
        "architecture",
        "text_encoder",
        "vocabulary_size",
        "max_text_tokens",
        "embed_dim",
        "batch_size",
        "micro_batch_size",
        "activation_checkpointing",
        "num_epochs",
        "learning_rate",
        "weight_decay",
        "objectives",
    }
    assert set(because) >= expected
    assert all(len(reason) > 10 and "\n" not in reason for reason in because.values())


def _because(name: str) -> dict[str, str]:
    plan = ColipriPlanner(SCENARIOS[name], 24).plan()
    reasons: dict[str, str] = plan.configurations["3d_lowres"].rationale
    return reasons


@pytest.mark.parametrize("memory", [0.5, 0, -3, math.inf, math.nan])
def test_impossible_memory_targets(memory: float) -> None:
    with pytest.raises(ColipriError, match="gpu_memory_target must be at least 1 GB"):
        ColipriPlanner(SCENARIOS["chest CT"], memory)


def test_too_little_memory_names_what_would_do() -> None:
    with pytest.raises(
        ColipriError, match=r"does not fit into 7 GB; plan with -gpu_memory_target"
    ) as e:
        ColipriPlanner(ct_rate_like() | {"num_paired_studies": 200_000}, 7).plan()
    enough = float(str(e.value).split("-gpu_memory_target ")[1].split()[0])
    plan = ColipriPlanner(ct_rate_like() | {"num_paired_studies": 200_000}, enough).plan()
    assert plan.configurations["3d_lowres"].activation_checkpointing == "full"


def test_spacings_that_cannot_be() -> None:
    with pytest.raises(ColipriError, match="not positive"):
        ColipriPlanner(SCENARIOS["two cases"] | {"spacings": [[0.0, 1, 1]]}).plan()


def test_the_ladder_of_checkpointing() -> None:
    """As memory shrinks: the whole batch, then recomputed MLP halves, then whole blocks."""
    fingerprint = ct_rate_like() | {"num_paired_studies": 200_000}
    levels = {
        gb: ColipriPlanner(fingerprint, gb).plan().configurations["3d_lowres"] for gb in (80, 24)
    }
    assert levels[80].activation_checkpointing == "none"
    assert levels[24].activation_checkpointing != "none"
    arch = levels[24].encoder
    assert arch.activation_checkpointing == levels[24].activation_checkpointing


def test_one_pair_is_counted_whole_and_many_near_their_mean() -> None:
    tokens = [planned_tokens(13_824, 8_986, pairs) for pairs in (1, 2, 4, 9, 36, 10_000)]
    assert tokens[:2] == [13_824, 13_824]
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[3] == pytest.approx(8_986 + 0.5 * (13_824 - 8_986))
    assert tokens[-1] < 1.01 * 8_986


def test_three_deviations_hold_for_scans_that_differ_as_much_as_is_assumed() -> None:
    random = np.random.default_rng(0)
    for pairs in (4, 9, 36):
        kept = np.clip(random.normal(8_986, (13_824 - 8_986) / 2, (20_000, pairs)), 0, 13_824)
        limit = pairs * planned_tokens(13_824, 8_986, pairs)
        assert (kept.sum(axis=1) > limit).mean() < 0.002


def test_expected_tokens_let_more_pairs_fit() -> None:
    configuration = make_plan("ct_rate_80gb").configurations["3d_lowres"]
    expected = expected_tokens(configuration, 0.55)
    whole, mean = (
        pairs_that_fit(configuration, "none", Machine(80, 1, tokens)) for tokens in (None, expected)
    )
    assert 1 < whole < mean
    limit = 80 * GIB * 0.9
    for pairs, does_fit in ((mean, True), (mean + 1, False)):
        many = replace(configuration.with_checkpointing("none"), micro_batch_size=pairs)
        tokens = Machine(80, 1, expected).tokens_of(many)
        assert (planned_memory(many, num_tokens=tokens).total <= limit) == does_fit


def test_averaged_weights_take_memory() -> None:
    plain = make_plan("ct_rate_80gb").configurations["3d_lowres"]
    averaged = replace(plain, training=replace(plain.training, ema_decay=0.999))
    parameters = planned_memory(plain).parameters / 18
    assert planned_memory(averaged).total - planned_memory(plain).total == 4 * parameters


def _ct_rate_planner(memory: float, num_gpus: int) -> ColipriPlanner:
    planner = ColipriPlanner(ct_rate_like(), memory)
    planner.num_gpus = num_gpus
    return planner


def test_eight_gpus_encode_a_smaller_batch_once() -> None:
    one, eight = (_ct_rate_planner(80, gpus).plan().configurations["3d_lowres"] for gpus in (1, 8))
    assert one.batch_size == 256 and one.micro_batch_size < 256
    assert 64 <= eight.batch_size < 256
    assert 8 * eight.micro_batch_size >= eight.batch_size
    assert "8 GPUs" in eight.rationale["batch_size"]
    assert "% more arithmetic" in eight.rationale["batch_size"]
    per_pair = [c.compute_estimate.tflop_per_step / c.batch_size for c in (one, eight)]
    assert per_pair[1] < 0.9 * per_pair[0]  # decoders are not encoded twice
    passes = [c.batch_size * c.training.num_epochs * c.training.num_iterations_per_epoch
              for c in (one, eight)]  # fmt: skip
    assert passes[1] == pytest.approx(passes[0], rel=0.02)  # as often over the data
    assert eight.compute_estimate.hours["8 x A100"] < one.compute_estimate.hours["A100"] / 8
    assert _ct_rate_planner(80, 8).plan().num_gpus == 8


def test_many_gpus_that_hold_the_whole_batch_keep_it() -> None:
    plan = _ct_rate_planner(80, 64).plan().configurations["3d_lowres"]
    assert plan.batch_size == 256 and plan.micro_batch_size == 4


def _gpu_json(folder: Path, **changes: Any) -> Path:
    content = {
        "version": 1,
        "device": "Test GPU",
        "peaks": {"matrix_product_tflops": 800.0},
        "steps": [
            {"embed_dim": 864, "tflops": 200.0},
            {"embed_dim": 864, "tflops": 240.0},
            {"embed_dim": 396, "tflops": 80.0},
            {"embed_dim": 1056, "tflops": None},
        ],
        **changes,
    }
    (folder / "gpu.json").write_text(json.dumps(content))
    return folder / "gpu.json"


def test_hours_follow_a_measurement(tmp_path: Path) -> None:
    planner = _ct_rate_planner(80, 1)
    plain = planner.plan().configurations["3d_lowres"].compute_estimate
    planner.measured = read_gpu_measurement(_gpu_json(tmp_path))
    estimate = planner.plan().configurations["3d_lowres"].compute_estimate
    expected = plain.tflop_per_step * plain.steps / 240 / 3600
    assert estimate.hours["Test GPU (measured)"] == pytest.approx(expected, rel=1e-3)
    assert estimate.utilisation == 0.3
    assert estimate.hours["A100"] == plain.hours["A100"]
    assert planner.measured.tflops_of(500) == 80 and planner.measured.tflops_of(1056) == 240


@pytest.mark.parametrize(
    "changes",
    [{"version": 7}, {"steps": []}, {"peaks": {}}, {"steps": [{"embed_dim": 864, "tflops": -1}]}],
)
def test_other_files_are_no_measurement(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ColipriError, match=r"gpu\.json is not a file of benchmarks/gpu\.py"):
        read_gpu_measurement(_gpu_json(tmp_path, **changes))
    with pytest.raises(ColipriError, match="there is no"):
        read_gpu_measurement(tmp_path / "other.json")
