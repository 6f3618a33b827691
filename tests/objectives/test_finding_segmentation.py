"""S: what label maps tell tokens, what stays unknown, and the loss by hand."""

import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from colipri.common.errors import ColipriError
from colipri.objectives.batch import Batch, CasePart, PairInput, Sample, TextTools
from colipri.objectives.finding_segmentation import FindingSegmentation, TokenAnswers, token_loss
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report
from colipri.text.tokenizer import train_wordpiece

REPORT = structure_report(report_from_text("FINDINGS: There is a nodule."))
LABELS = {"background": (0,), "Lung_nodule": (1,), "Effusion": (2, 3), "liver": (4,)}
PATCH = (2, 2, 2)


class Maps:
    """Label columns and voxels of label maps, as a trainer hands them to the objective."""

    def __init__(self, maps, labels=None):
        self.labels = {k: v for k, v in (labels or LABELS).items() if v != (0,)}
        self.maps = maps

    def label_maps(self):
        return iter(self.maps)


SHOWN = ({"Lung nodule": 1, "Effusion": 1}, {1: 5, 3: 9, 4: 100})


def prepared(maps=None, **options):
    objective = FindingSegmentation(**options)
    objective.prepare(Maps(maps or [SHOWN] * 10))
    return objective


@pytest.fixture(scope="module")
def text():
    return TextTools(train_wordpiece(["No lung nodule, no effusion. Liver."] * 3, 200), 64, 1000)


def sample(findings, report=REPORT):
    return Sample("a", "a", "", "", report, None, None, {}, findings)


def test_labels_that_enough_maps_show_are_asked_under_their_names(text):
    objective = prepared()
    assert objective.findings == ["Lung_nodule", "Effusion", "liver"]
    assert objective.has_column.tolist() == [True, True, False]
    samples = [
        sample({"Lung nodule": 1, "Effusion": None}),
        sample({}, None),
        sample({"Effusion": 0}),
    ]
    places = objective.collate(samples, text)
    known = [[1.0, None, None], [None, 0.0, None]]  # the second has no report
    assert [[None if math.isnan(v) else v for v in row] for row in places.column.tolist()] == known
    said = [
        text.tokenizer.decode(ids, skip_special_tokens=True)
        for part in objective.further_texts(places)
        for ids in part["input_ids"]
    ]
    for number, name in enumerate(("lung nodule", "effusion", "liver")):
        assert said[places.present[number]].strip(".") == name
        assert said[places.absent[number]].strip(".") == f"no {name}"


def test_what_cannot_be_learned_is_said_in_one_line(caplog):
    few = [SHOWN] * 9 + [({"Lung nodule": 0, "Effusion": None}, {1: 2})]
    with caplog.at_level(logging.WARNING):
        objective = prepared(few)
    assert objective.findings == ["Lung_nodule"]
    assert "Effusion is left out, 9 maps show it" in caplog.text
    assert "1 label maps show Lung_nodule and their label column says no" in caplog.text
    with pytest.raises(ColipriError, match="no training case has a preprocessed label map"):
        FindingSegmentation().prepare(Maps([]))
    with pytest.raises(ColipriError, match="of 9 at most 9"):
        prepared([SHOWN] * 9)
    with pytest.raises(ColipriError, match="no label is shown by any"):
        prepared([({}, {})] * 9)
    with pytest.raises(ColipriError, match=r"dataset\.json names no labels"):
        FindingSegmentation().prepare(Maps([SHOWN] * 10, {"background": (0,)}))
    with pytest.raises(ColipriError, match=r"no label 'Mass'; known: Lung_nodule, Effusion, liver"):
        prepared(findings=["Mass"])


def label_of(*tokens):
    """(1, 2, 2, 4) map of 2 tokens of 8 voxels, given as lists of values."""
    label = torch.zeros(1, 2, 2, 4)
    for number, values in enumerate(tokens):
        filled = torch.tensor(values + [0.0] * (8 - len(values)))
        label[0, :, :, 2 * number : 2 * number + 2] = filled.view(2, 2, 2)
    return label


def test_shares_of_tokens_by_value_and_region():
    objective = prepared()
    shares = objective.shares(label_of([1, 1, 2, 3, 9], [4, 4, 4, 4, 4, 4, 4, 4]), PATCH)
    assert shares[0].tolist() == [[0.25, 0.25, 0.0], [0.0, 0.0, 1.0]]
    unknown = objective.shares(torch.full((1, 2, 2, 4), -1.0), PATCH)
    assert unknown.sum() == 0


def test_shares_are_those_of_blocks_of_any_shape():
    rng = np.random.default_rng(0)
    label = torch.tensor(rng.integers(0, 6, (3, 4, 6, 8)), dtype=torch.float32)
    patch = (2, 3, 4)
    shares = prepared().shares(label, patch)
    for number, values in enumerate(((1,), (2, 3), (4,))):
        present = torch.isin(label, torch.tensor(values, dtype=torch.float32)).float()
        expected = F.avg_pool3d(present.unsqueeze(1), patch).flatten(1)
        assert torch.allclose(shares[..., number], expected)


@pytest.mark.parametrize(
    ("column", "shown", "known"),
    [
        (0.0, False, True),  # absent, by column and map
        (0.0, True, False),  # they contradict each other
        (1.0, True, True),
        (1.0, False, False),  # somewhere else, or not drawn
        (math.nan, True, True),
        (math.nan, False, False),
    ],
)
def test_what_is_known_follows_from_column_and_map(column, shown, known):
    share = torch.zeros(1, 2, 3)
    share[0, 1] = 0.5 * shown
    found = prepared().known(share, torch.full((1, 3), column))
    assert found[0, :2].tolist() == [known] * 2
    assert found[0, 2]  # an organ has no column: its map is complete


def test_the_loss_by_hand():
    logits = torch.tensor([[[0.3], [-0.2], [1.0], [0.7]]], dtype=torch.float64)
    share = torch.tensor([[[0.5], [0.001], [0.0], [0.0]]], dtype=torch.float64)
    asked = torch.tensor([[[True], [True], [True], [False]]])
    known = torch.tensor([[True]])
    loss = token_loss(logits, share, asked, known, 0.01)
    positive, negative = math.log(1 + math.exp(-0.3)), math.log(1 + math.exp(1.0))
    # the second token holds too little to be asked, the fourth is padding
    assert loss.item() == pytest.approx(0.5 * (positive + negative), rel=1e-9)
    alone = token_loss(
        logits, share * torch.tensor([0.0, 1, 1, 1])[None, :, None], asked, known, 0.01
    )
    others = [math.log(1 + math.exp(v)) for v in (0.3, 1.0)]
    expected = 0.5 * (math.log(1 + math.exp(0.2)) + sum(others) / 2)
    assert alone.item() == pytest.approx(expected, rel=1e-9)  # the fullest token counts anyway
    none = token_loss(logits, torch.zeros_like(share), asked, known, 0.01)
    everywhere = [math.log(1 + math.exp(v)) for v in (0.3, -0.2, 1.0)]
    assert none.item() == pytest.approx(sum(everywhere) / 3, rel=1e-9)
    assert token_loss(logits, share, asked, ~known, 0.01).item() == 0


def inputs_of(text, objective, label, kept=None, mask=None, rows=(0,)):
    generator = torch.Generator().manual_seed(0)
    cases = len(label)
    samples = [sample({"Lung nodule": 1, "Effusion": 0})] * cases
    places = objective.collate(samples, text)
    tokens = torch.randn(cases, 2, 4, generator=generator)
    texts = F.normalize(torch.randn(6, 4, generator=generator), dim=1)
    names = [""] * cases
    batch = Batch(names, names, names, names, torch.ones(cases) > 0, [False] * cases, label, label)
    index = list(rows)
    chosen = tokens[index]
    if kept is not None:
        chosen = chosen.gather(1, kept.unsqueeze(-1).expand(-1, -1, 4))
    return PairInput(
        CasePart(batch, tuple(rows), tuple(rows), 0, 0),
        {"token_answers": TokenAnswers()},
        chosen,
        mask,
        places,
        texts,
        kept,
        label[index],
        PATCH,
        lambda: F.normalize(chosen, dim=-1),
    )


def test_a_case_is_scored_by_the_directions_of_its_findings(text):
    objective = prepared(findings=["Lung_nodule"])
    label = label_of([1, 1, 1], [])
    inputs = inputs_of(text, objective, label)
    direction = inputs.texts[inputs.collated.present[0]] - inputs.texts[inputs.collated.absent[0]]
    logits = 5 * F.normalize(inputs.tokens[0], dim=-1) @ direction - 1
    expected = 0.5 * (F.softplus(-logits[0]) + F.softplus(logits[1]))
    loss = objective.pair_losses(inputs)
    assert loss.shape == (1,) and loss.item() == pytest.approx(expected.item(), rel=1e-5)
    unknown = inputs_of(text, objective, torch.full_like(label, -1.0))
    assert objective.pair_losses(unknown).item() == 0


def test_parts_and_the_order_of_tokens_change_nothing(text):
    objective = prepared()
    label = torch.cat([label_of([1, 1], [4] * 8), label_of([2], [1] * 3)])
    whole = objective.pair_losses(inputs_of(text, objective, label, rows=(0, 1)))
    for row in (0, 1):
        one = inputs_of(text, objective, label, rows=(row,))
        assert objective.pair_losses(one).item() == pytest.approx(whole[row].item(), rel=1e-6)
    kept = torch.tensor([[1, 0, 0], [1, 0, 0]])  # the last is padding
    mask = torch.tensor([[True, True, False]] * 2)
    again = objective.pair_losses(inputs_of(text, objective, label, kept, mask, (0, 1)))
    assert torch.allclose(again, whole)
