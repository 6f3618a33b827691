"""What a plan trains follows from labels, reports and the machine."""

import pytest
from experiment_planning.fingerprints import make_fingerprint

from colipri.experiment_planning.planner import ColipriPlanner
from colipri.experiment_planning.recipes import FEWEST_CASES, learnable_findings
from colipri.objectives.registry import build_objectives

LABELLED = {"Nodule": {"known": 900, "positive": 200, "prevalence": 0.2222}}


PLACED = {"label_maps": {"num_cases": 60, "findings": {"Nodule": FEWEST_CASES}}}
TOO_FEW = {"label_maps": {"num_cases": 60, "findings": {"Nodule": FEWEST_CASES - 1}}}


def planned(findings=None, gigabytes=4.0, paired=1000, text_encoder="scratch", maps=None):
    spacings, extents = [[5.0, 5.0, 5.0]] * 20, [[300.0, 250.0, 350.0]] * 20
    fingerprint = make_fingerprint(spacings, extents, 1000, paired)
    fingerprint["findings"] = findings or {}
    fingerprint |= maps or {}
    plan = ColipriPlanner(fingerprint, gigabytes, text_encoder).plan()
    return plan.configuration("3d_lowres")


@pytest.mark.parametrize(
    ("findings", "gigabytes", "paired", "letters", "frozen"),
    [
        (LABELLED, 4, 1000, "CL", ["text_encoder"]),
        (None, 4, 1000, "CO", ["text_encoder"]),
        (LABELLED, 24, 1000, "CRML", []),
        (None, 24, 1000, "CRM", []),
        (LABELLED, 4, 0, "M", []),
        (None, 80, 0, "M", []),
    ],
)
def test_data_and_machine_decide(findings, gigabytes, paired, letters, frozen):
    one = planned(findings, gigabytes, paired)
    built = build_objectives(one.training.objectives)
    assert [objective.letter for objective in built.values()] == [*letters]
    assert one.training.frozen == frozen
    assert one.rationale["objectives"].startswith(f"{letters}: ")
    assert ("training.frozen" in one.rationale) == bool(frozen)
    if gigabytes < 6 and paired:
        assert one.batch_size == 32 and built["contrastive"].weight == 0.03


def test_a_finding_counts_with_enough_cases_on_either_side():
    def known(positive, total):
        return {"known": total, "positive": positive, "prevalence": positive / total}

    findings = {
        "enough": known(FEWEST_CASES, 2 * FEWEST_CASES),
        "rare": known(FEWEST_CASES - 1, 500),
        "in nearly all": known(480, 500),
    }
    assert learnable_findings({"findings": findings}) == ["enough"]


def test_what_is_planned_can_be_estimated_and_read_again():
    one = planned(LABELLED, 24)
    assert set(one.memory_estimate.parts_of_a_sample_in_gb) >= {"report_generation"}
    assert "report_generation" not in planned(LABELLED, 4).memory_estimate.parts_of_a_sample_in_gb


@pytest.mark.parametrize(
    ("findings", "gigabytes", "maps", "letters"),
    [
        (LABELLED, 4, PLACED, "CLS"),
        (LABELLED, 4, TOO_FEW, "CL"),
        (None, 4, PLACED, "CO"),
        (LABELLED, 24, PLACED, "CRML"),
    ],
)
def test_label_maps_teach_small_machines_places(findings, gigabytes, maps, letters):
    one = planned(findings, gigabytes, maps=maps)
    built = build_objectives(one.training.objectives)
    assert [objective.letter for objective in built.values()] == [*letters]
    told = "1 findings are shown by at least 30 label maps"
    assert (told in one.rationale["objectives"]) == ("S" in letters)
    if "S" in letters:
        assert built["finding_segmentation"].weight == 2.0
        assert "finding_segmentation" in one.memory_estimate.parts_of_a_sample_in_gb
