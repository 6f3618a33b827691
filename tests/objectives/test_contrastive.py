import math

import pytest
import torch
import torch.nn.functional as F

from colipri.common.errors import ColipriError
from colipri.objectives.batch import ContrastiveBatch
from colipri.objectives.contrastive import info_nce, positive_pairs, siglip
from colipri.objectives.registry import build_objectives


def batch(size=6, width=5, positives=None, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(size, width, generator=generator, dtype=dtype), dim=1)
    text = F.normalize(torch.randn(size, width, generator=generator, dtype=dtype), dim=1)
    if positives is None:
        positives = torch.eye(size, dtype=torch.bool)
    scale = torch.tensor(7.0, dtype=dtype)
    return ContrastiveBatch(image, text, scale, torch.tensor(-3.0, dtype=dtype), positives)


def test_with_one_positive_a_row_it_is_the_loss_of_clip():
    data = batch()
    logits = 7.0 * data.image @ data.text.T
    target = torch.arange(6)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    loss, terms = info_nce(data)
    assert torch.allclose(loss, expected)
    assert terms["image_to_text"] == pytest.approx(F.cross_entropy(logits, target).item())


@pytest.mark.parametrize("loss_function", [info_nce, siglip])
def test_equal_reports_do_not_push_each_other_apart(loss_function):
    """Two cases with the same report in two wordings, and images halfway between the texts."""
    text = torch.eye(2, dtype=torch.float64)

    def pull(positives):
        """How strongly each image is drawn to the other case's text; below 0: pushed away."""
        image = F.normalize(torch.ones(2, 2, dtype=torch.float64), dim=1).requires_grad_()
        scale, bias = torch.tensor(10.0), torch.tensor(0.0)
        loss_function(ContrastiveBatch(image, text, scale, bias, positives))[0].backward()
        return -(image.grad @ text.T)

    equal = pull(torch.ones(2, 2, dtype=torch.bool))
    assert torch.allclose(equal, equal.T) and equal.min() > -1e-12
    assert torch.allclose(equal.diag(), equal[[0, 1], [1, 0]])  # the other text counts as its own
    ignored = pull(torch.eye(2, dtype=torch.bool))
    assert ignored[0, 1] < -0.1 and ignored[1, 0] < -0.1  # what would happen without positives


def test_siglip_is_the_mean_over_images_of_its_pairwise_questions():
    data = batch()
    logits = 7.0 * data.image @ data.text.T - 3.0
    expected = 0.0
    for i in range(6):
        for j in range(6):
            sign = 1 if i == j else -1
            expected += math.log1p(math.exp(-sign * logits[i, j].item()))
    assert siglip(data)[0].item() == pytest.approx(expected / 6)


def test_perfect_alignment_is_recognised():
    data = batch(size=5, width=5)
    basis = torch.eye(5, dtype=torch.float64)
    aligned = ContrastiveBatch(basis, basis, torch.tensor(50.0), torch.tensor(-25.0), data.collated)
    for loss_function in (info_nce, siglip):
        loss, terms = loss_function(aligned)
        assert loss.item() < 1e-6
        assert terms["accuracy"].item() == 1.0


def test_positive_pairs_know_studies_equal_reports_and_captions_that_are_also_true():
    reports = [
        frozenset({"no effusion", "normal heart"}),
        frozenset({"no effusion", "large heart"}),
        frozenset({"no effusion", "normal heart"}),
        frozenset({"left effusion"}),
    ]
    captions = [reports[0], frozenset({"no effusion"}), reports[2], frozenset({"left effusion"})]
    pairs = positive_pairs(["s0", "s1", "s2", "s0"], captions, reports)
    expected = torch.tensor(
        [
            [1, 1, 1, 1],  # image 0: its text, the short caption of 1, the equal report 2, study s0
            [0, 1, 0, 0],
            [1, 1, 1, 0],
            [1, 0, 0, 1],
        ],
        dtype=torch.bool,
    )
    assert torch.equal(pairs, expected)


def test_an_empty_caption_is_a_positive_of_its_own_image_only():
    pairs = positive_pairs(["a", "b"], [frozenset(), frozenset()], [frozenset(), frozenset({"x"})])
    assert torch.equal(pairs, torch.eye(2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"contrastiv": {}}, "contrastiv"),
        ({"contrastive": {"kind": "triplet"}}, "triplet"),
        ({"contrastive": {"weight": 0}}, "above 0"),
        ({}, "no objective"),
    ],
)
def test_bad_objectives_in_a_plan_are_named(settings, part):
    with pytest.raises(ColipriError, match=part):
        build_objectives(settings)
