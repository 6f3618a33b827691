import pytest
import torch
import torch.nn.functional as F

from colipri.objectives.batch import ContrastiveBatch
from colipri.objectives.opposite_sentence import OppositeSentence, OppositeSentences


def batch(image, sentences, image_index, present, absent, shown, scale=5.0):
    image = F.normalize(torch.as_tensor(image, dtype=torch.float64), dim=1)
    opposites = OppositeSentences(
        (),
        torch.tensor(image_index, dtype=torch.long),
        torch.tensor(present, dtype=torch.long),
        torch.tensor(absent, dtype=torch.long),
        torch.tensor(shown, dtype=torch.bool),
        torch.ones(len(shown)),
    )
    return ContrastiveBatch(
        image,
        image,
        torch.tensor(scale, dtype=torch.float64),
        torch.tensor(0.0),
        opposites,
        F.normalize(torch.as_tensor(sentences, dtype=torch.float64), dim=1),
    )


def test_it_is_the_mean_two_class_cross_entropy_of_scaled_cosines():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    text = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    index, present, absent = [0, 0, 2, 1], [0, 2, 4, 1], [1, 3, 0, 0]
    shown = [True, False, False, True]
    data = batch(image, text, index, present, absent, shown)
    loss, terms = OppositeSentence().batch_loss(data)
    expected, right = 0.0, 0
    for i, p, a, true in zip(index, present, absent, shown, strict=True):
        yes = 5.0 * F.cosine_similarity(image[i], text[p], dim=0)
        no = 5.0 * F.cosine_similarity(image[i], text[a], dim=0)
        chosen, other = (yes, no) if true else (no, yes)
        expected += -torch.log(chosen.exp() / (chosen.exp() + other.exp())) / 4
        right += int(chosen > other)
    assert loss.item() == pytest.approx(expected.item())
    assert terms["accuracy"].item() == pytest.approx(right / 4)


def test_images_without_pairs_get_no_gradient_and_a_batch_without_pairs_no_loss():
    data = batch(torch.eye(2), torch.eye(2), [0], [0], [1], [True])
    data.image.requires_grad_()
    OppositeSentence().batch_loss(data)[0].backward()
    assert data.image.grad[0].abs().sum() > 0
    assert data.image.grad[1].abs().sum() == 0
    empty = batch(torch.eye(2), torch.eye(2), [], [], [], [])
    empty.image.requires_grad_()
    loss, terms = OppositeSentence().batch_loss(empty)
    loss.backward()
    assert loss.item() == 0.0
    assert terms == {}
    assert not empty.image.grad.any()


def test_the_smaller_the_loss_the_more_the_image_agrees_with_the_true_sentence():
    agrees = batch([[1.0, 0.0]], torch.eye(2), [0], [0], [1], [True])
    disagrees = batch([[1.0, 0.0]], torch.eye(2), [0], [0], [1], [False])
    objective = OppositeSentence()
    assert objective.batch_loss(agrees)[0] < 0.01
    assert objective.batch_loss(disagrees)[0] > 4.9
    assert objective.batch_loss(agrees)[1]["accuracy"] == 1.0
