"""Objective L: only known entries count, in words of prompts; the head needs no report."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from colipri.common.errors import ColipriError
from colipri.objectives.batch import (
    Batch,
    CasePart,
    ContrastiveBatch,
    ImageInput,
    Sample,
    TextTools,
)
from colipri.objectives.finding_supervision import FindingSupervision
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report
from colipri.text.tokenizer import train_wordpiece

REPORT = structure_report(report_from_text("Bones are normal."))
TABLE = [
    ({"Nodule": 1, "Effusion": 0}, REPORT),
    ({"Nodule": 0, "Effusion": 0}, REPORT),
    ({"Nodule": 0, "Effusion": 1}, REPORT),
    ({"Nodule": 0, "Effusion": None}, None),
]


class Studies:
    def __init__(self, table):
        self.table = table

    def labelled_studies(self):
        return iter(self.table)


def prepared(**options):
    objective = FindingSupervision(**{"fewest_studies": 1, "labels": "columns", **options})
    objective.prepare(Studies(TABLE))
    return objective


def sample(findings, report, number=0):
    one = Sample(f"case_{number}", f"study_{number}", "", "", report, None, None)
    one.findings = findings
    one.drawn = {"finding_supervision": 17}
    return one


SAMPLES = [sample(findings, report, i) for i, (findings, report) in enumerate(TABLE)]


@pytest.fixture(scope="module")
def text():
    words = ["There is no nodule. Effusion is not present. Nodule is present."] * 3
    return TextTools(train_wordpiece(words, 200), 64, 1000)


def test_the_loss_is_bce_of_the_scaled_difference_over_known_entries_with_their_weights(text):
    objective = prepared(paraphrases=["short"])
    collated = objective.collate(SAMPLES, text)
    assert collated.image_index.tolist() == [0, 0, 1, 1, 2, 2]  # the fourth has no report
    image = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    texts = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    scale = torch.tensor(5.0)
    batch = ContrastiveBatch(image, image, scale, torch.tensor(0.0), collated, texts)
    loss, terms = objective.batch_loss(batch)
    rows = {
        text.tokenizer.decode(ids, skip_special_tokens=True): number
        for number, ids in enumerate(i for p in collated.parts for i in p["input_ids"])
    }
    expected, total = 0.0, 0.0
    for number, (findings, _) in enumerate(TABLE[:3]):
        for name, label in findings.items():
            # Nodule: 1 with, 3 without; effusion: 1 with, 2 without
            weight = {"Nodule": 3.0, "Effusion": 2.0}[name] if label else 1.0
            yes, no = texts[rows[f"{name.lower()}."]], texts[rows[f"no {name.lower()}."]]
            logit = scale * image[number] @ (yes - no)
            target = torch.tensor(float(label))
            expected += weight * F.binary_cross_entropy_with_logits(logit, target).item()
            total += weight
    assert loss.item() == pytest.approx(expected / total, rel=1e-5)
    assert 0 <= terms["accuracy"].item() <= 1


def test_every_step_words_a_finding_in_one_of_the_styles_and_encodes_each_prompt_once(text):
    objective = prepared()
    seen = set()
    for drawn in range(40):
        for one in SAMPLES:
            one.drawn = {"finding_supervision": drawn}
        collated = objective.collate(SAMPLES, text)
        assert sum(len(part["input_ids"]) for part in collated.parts) == 4
        seen |= {
            text.tokenizer.decode(ids, skip_special_tokens=True)
            for part in objective.further_texts(collated)
            for ids in part["input_ids"]
        }
    assert {"nodule.", "there is no nodule.", "nodule is present."} <= seen


def test_more_findings_than_a_step_asks_take_turns(text):
    objective = prepared(findings_per_step=1)
    asked = set()
    for drawn in range(20):
        for one in SAMPLES:
            one.drawn = {"finding_supervision": drawn}
        collated = objective.collate(SAMPLES, text)
        assert collated.image_index.tolist() in ([0, 1, 2],)
        asked.add(len(set(collated.present_index.tolist())))
    assert asked == {1}


def test_rare_findings_count_at_most_the_limit():
    assert prepared(pos_weight_limit=2.5)._entry_weight(0, 1) == 2.5
    assert prepared()._entry_weight(0, 1) == 3.0
    assert prepared()._entry_weight(0, 0) == 1.0


class Encoder(nn.Module):
    def forward(self, image, kept, mask):
        tokens = image.flatten(2).transpose(1, 2)  # (b, N, 1)
        return tokens.gather(1, kept[..., None])


def test_the_head_learns_from_scans_without_a_report_and_ignores_unknown_entries(text):
    objective = prepared(form="head")
    assert objective.reads_images and not objective.compares and not objective.needs_reports
    assert objective.head_names == ("finding_head",)
    labels = objective.collate(SAMPLES, text)
    assert labels.shape == (4, 2) and math.isnan(labels[3, 1].item())
    head = nn.Linear(2, 2)
    image = torch.tensor(np.arange(32, dtype=np.float32).reshape(4, 1, 2, 2, 2)) / 10
    body = torch.ones(4, 8, dtype=torch.bool)
    body[:, 5:] = False
    batch = Batch([], [], [], [], torch.tensor([]), [], image, body)
    part = CasePart(batch, (1, 3), (), 0, 0)
    inputs = ImageInput(
        part, Encoder(), {"finding_head": head}, image[[1, 3]], body[[1, 3]], 0.0, labels
    )
    losses = objective.image_losses(inputs)
    for row, case in enumerate((1, 3)):
        tokens = image[case].flatten()[:5]
        logits = head(torch.stack([tokens.mean(), tokens.max()]))
        known = [0] if case == 3 else [0, 1]
        expected = F.binary_cross_entropy_with_logits(logits[known], torch.zeros(len(known)))
        assert losses[row].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_table_with_one_side_only_is_refused_in_one_line():
    objective = FindingSupervision()
    with pytest.raises(ColipriError, match="no finding is known to be present in at least 10"):
        objective.prepare(Studies([({"Nodule": 1, "Mass": None}, None)] * 30))


def test_one_list_of_paraphrases_is_not_shared_by_two_objectives():
    first, second = FindingSupervision(), FindingSupervision()
    first.paraphrases.append("ensemble")
    assert second.paraphrases == ["short", "sentence", "present"]


def test_every_prompt_of_a_style_is_used(tmp_path):
    style = tmp_path / "unequal.json"
    positive = ["{finding} is seen.", "There is {finding}.", "Signs of {finding}."]
    negative = ["No {finding}.", "{finding} is absent."]
    style.write_text(json.dumps({"positive": positive, "negative": negative}))
    objective = prepared(paraphrases=[str(style)])
    for wordings in objective._wordings:
        assert len({present for present, _ in wordings}) == 3
        assert len({absent for _, absent in wordings}) == 2
