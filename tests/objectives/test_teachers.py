"""Teachers, M's features and D: what they see and follow, and that nothing depends on cuts."""

import pytest
import torch
import torch.nn.functional as F

from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.prototype_head import PrototypeHead, spread_loss
from colipri.common.errors import ColipriError
from colipri.objectives.base import FinishedStep, HeadSizes
from colipri.objectives.batch import Batch, CasePart, ImageInput
from colipri.objectives.masked_image_modelling import MaskedImageModelling
from colipri.objectives.self_distillation import SelfDistillation, draw_crops
from colipri.objectives.teacher import Teacher, momentum_at, normalized_features
from colipri.plans.architecture import EncoderSettings

SIZE, GRID = (32, 24, 40), (4, 3, 5)
STEMS = {"light": {"features": [4, 8, 8], "context": 8}, "v2": {"base_features": 4}, "linear": {}}


def sizes(stem="light"):
    settings = EncoderSettings.from_dict(
        {
            "input_channels": 1,
            "embed_dim": 24,
            "depth": 2,
            "num_heads": 2,
            "stem": stem,
            "stem_kwargs": STEMS[stem],
            "drop_path_rate": 0.5,
        }
    )
    return HeadSizes(24, 2, 24, 2, 1, (8, 8, 8), 100, 16, 24, settings)


class Model(torch.nn.Module):
    def __init__(self, given):
        super().__init__()
        self.image_encoder = PrimusEncoder(**given.encoder.to_dict())


def made(objective, stem="light", count=3):
    """A model, heads that follow it, and inputs of some cases with body in most of the grid."""
    torch.manual_seed(0)
    given = sizes(stem)
    model, heads = Model(given), objective.heads(given)
    objective.before_first_step(model, heads)
    body = torch.ones(count, *GRID, dtype=torch.bool)
    body[:, 0, 0] = body[0, :, :, 4] = False
    images = torch.randn(count, 1, *SIZE).cumsum(dim=3) / 3
    return model, heads, images, body.flatten(1)


def inputs_of(objective, model, heads, images, body, rows):
    batch = Batch(
        [""] * 9, [""] * 9, [""] * 9, [""] * 9, torch.zeros(9).bool(), [False] * 9, images, body
    )
    return ImageInput(
        CasePart(batch, tuple(rows), (), 1, 5),
        model.image_encoder,
        heads,
        images[rows],
        body[rows],
        -2.0,
        None,
        objective.observed(heads),
    )


# ---------------------------------------------------------------------------- what is seen


@pytest.mark.parametrize("stem", sorted(STEMS))
def test_visible_tokens_are_those_of_the_whole_image(stem):
    """What M teaches the stem is what every other objective and user gets from it."""
    objective = MaskedImageModelling(target="auto")
    model, heads, images, body = made(objective, stem)
    given = []
    encoder = model.image_encoder
    encoder.down_projection.register_forward_hook(lambda *passed: given.append(passed[2]))
    with torch.no_grad():
        whole = encoder.tokenize(images)[0]
        objective.image_losses(inputs_of(objective, model, heads, images, body, [0, 1, 2]))
        masks = objective.draw_masks(encoder, images, body, [1, 2, 3])
        air = None if "masked_teacher" in heads else -2.0
        seen = []
        encoder.encode_packed = lambda tokens, *_: seen.append(tokens) or tokens
        objective.predict(encoder, heads["masked_decoder"], images, masks, air)
    mask = masks.visible_mask
    kept = [masks.visible[row][slice(None) if mask is None else mask[row]] for row in range(3)]
    expected = torch.cat([whole[row, places] for row, places in enumerate(kept)])
    assert F.cosine_similarity(seen[0], expected, dim=1).min() > 0.999
    assert ("masked_teacher" in heads) == (stem != "linear")


def test_voxel_targets_change_what_visible_tokens_are():
    """The reason for features: with air in hidden places a token is another one."""
    objective = MaskedImageModelling(target="plain")
    model, heads, images, body = made(objective)
    encoder = model.image_encoder
    masks = objective.draw_masks(encoder, images, body, [1, 2, 3])
    with torch.no_grad():
        whole = encoder.tokenize(images)[0]
        seen = []
        encoder.encode_packed = lambda tokens, *_: seen.append(tokens) or tokens
        objective.predict(encoder, heads["masked_decoder"], images, masks, -2.0)
    mask = masks.visible_mask
    kept = [masks.visible[row][slice(None) if mask is None else mask[row]] for row in range(3)]
    expected = torch.cat([whole[row, places] for row, places in enumerate(kept)])
    assert F.cosine_similarity(seen[0], expected, dim=1).mean() < 0.9


# ---------------------------------------------------------------------------- teachers


def test_a_teacher_is_a_copy_that_follows_and_never_drops_anything():
    objective = MaskedImageModelling(target="auto")
    model, heads, images, _ = made(objective)
    teacher = heads["masked_teacher"].train()
    assert isinstance(teacher, Teacher)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    model.image_encoder.eval()
    assert torch.equal(teacher(images), model.image_encoder(images).detach())
    before = {name: p.clone() for name, p in teacher.image_encoder.named_parameters()}
    with torch.no_grad():
        for p in model.image_encoder.parameters():
            p.add_(1.0)
    objective.after_step(FinishedStep(model, heads, 0, 100, {}))
    for name, p in teacher.image_encoder.named_parameters():
        assert torch.allclose(p, before[name] + 0.9, atol=1e-5), name  # (1 + 0) / (10 + 0) stays


def test_momentum_rises_to_one_and_forgets_the_random_start():
    assert momentum_at(0.996, 0, 1000) == pytest.approx(0.1)
    assert momentum_at(0.9, 500, 1000) == pytest.approx(0.95)
    assert momentum_at(0.9, 1000, 1000) == pytest.approx(1001 / 1010)
    assert momentum_at(0.9, 10**6, 10**6) == pytest.approx(1.0, abs=1e-4)


def test_features_are_predicted_better_with_training():
    objective = MaskedImageModelling(mask_ratio=0.5, target="auto")
    model, heads, images, body = made(objective)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *heads["masked_decoder"].parameters()], lr=3e-3
    )
    model.image_encoder.eval()
    losses = []
    for number in range(30):
        inputs = inputs_of(objective, model, heads, images, body, [0, 1, 2])
        loss = objective.image_losses(inputs).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(FinishedStep(model, heads, number, 30, {}))
        losses.append(loss.item())
    features = normalized_features(heads["masked_teacher"](images))
    assert losses[-1] < 0.7 * losses[0]
    assert features.std(dim=1).mean() > 0.1  # tokens are not all alike


def test_pictures_show_features_where_features_are_predicted():
    objective = MaskedImageModelling(target="auto")
    model, heads, images, body = made(objective)
    model.image_encoder.eval()
    inputs = inputs_of(objective, model, heads, images, body, [0])
    (found,) = objective.reconstruct(inputs, ["scan"])
    assert not (found.hidden & found.air).any()
    assert found.hidden.sum() / (~found.air).sum() == pytest.approx(0.75, abs=0.05)
    seen = ~found.hidden
    assert (found.predicted[0][seen] == found.target[0][seen]).all()
    assert (found.predicted[0][found.hidden] != found.target[0][found.hidden]).any()
    assert found.error > 0 and found.control_error > 0
    (part,) = objective.page_parts(inputs, ["scan"])
    assert [volume.caption for volume in part.volumes] == [
        *("Scan", "Visible", "Features", "Predicted features")
    ]
    assert "smooth L1 error of the features" in part.note
    assert "no unit" in objective.page_text()


# ---------------------------------------------------------------------------- D


def test_losses_and_means_do_not_depend_on_the_cut():
    objective = SelfDistillation(prototypes=16)
    model, heads, images, body = made(objective)
    model.image_encoder.eval()
    together = inputs_of(objective, model, heads, images, body, [0, 1, 2])
    losses = objective.image_losses(together)
    single, observed = [], objective.observed(heads)
    for row in range(3):
        inputs = inputs_of(objective, model, heads, images, body, [row])
        single.append(objective.image_losses(inputs))
        observed = {name: value + inputs.observed[name] for name, value in observed.items()}
    assert torch.allclose(losses, torch.cat(single), rtol=1e-4)
    for name, value in observed.items():
        assert torch.allclose(value, together.observed[name], rtol=1e-4, atol=1e-5), name
    assert observed["cases"].item() == 3


def test_no_gradient_reaches_the_teacher_and_all_of_the_student_gets_one():
    objective = SelfDistillation(prototypes=16)
    model, heads, images, body = made(objective)
    model.image_encoder.eval()
    objective.image_losses(
        inputs_of(objective, model, heads, images, body, [0, 1])
    ).sum().backward()
    for name, head in heads.items():
        for key, p in head.named_parameters():
            assert (p.grad is not None) == p.requires_grad, f"{name}.{key}"
            assert p.requires_grad == (name != "distillation_teacher")
    assert all(p.grad is not None for p in model.image_encoder.parameters())


def test_centres_are_the_running_mean_of_all_cases():
    objective = SelfDistillation(prototypes=16, centre_momentum=0.5)
    model, heads, images, body = made(objective)
    inputs = inputs_of(objective, model, heads, images, body, [0, 1, 2])
    objective.image_losses(inputs)
    objective.after_step(FinishedStep(model, heads, 0, 10, inputs.observed))
    centres = heads["distillation_centres"]
    assert torch.allclose(centres.scans, inputs.observed["scans"] / 6)
    assert torch.allclose(centres.tokens, inputs.observed["tokens"] / 6)
    assert centres.scans.abs().max() > 0
    assert set(centres.state_dict()) == {"scans", "tokens"}  # saved with a checkpoint


def test_koleo_counts_real_tokens_of_one_case():
    head = PrototypeHead(6, 4)
    tokens = torch.randn(2, 5, 6)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    head.requires_grad_(False)
    together = spread_loss(head, tokens, mask)
    assert together[0] == pytest.approx(spread_loss(head, tokens[:1], None).item(), rel=1e-4)
    assert together[1] == pytest.approx(spread_loss(head, tokens[1:, :3], None).item(), rel=1e-4)
    many = torch.randn(2, 600, 6)  # more than are compared: which ones depends on the case alone
    mask = torch.arange(600) < torch.tensor([[600], [300]])
    alone = spread_loss(head, many[1:, :300], None)
    assert spread_loss(head, many, mask)[1] == pytest.approx(alone.item(), rel=1e-4)
    assert spread_loss(head, tokens[:, :1], None).tolist() == [0.0, 0.0]
    alike = tokens[:, :1].expand(-1, 5, -1) + 1e-3 * torch.randn(2, 5, 6)
    assert (spread_loss(head, alike, None) > together + 2).all()


def test_crops_hold_body_and_are_cut_from_their_own_image():
    body = torch.zeros(2, *GRID, dtype=torch.bool)
    body[0, 3, 2, 4] = body[1, 0, 0, 0] = True
    images = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(-1, 1, *SIZE)
    for seed in range(20):
        crops, inside = draw_crops(images, body.flatten(1), GRID, 0.5, [seed, seed])
        assert crops.shape == (2, 1, 16, 16, 16)
        assert inside.sum(dim=1).tolist() == [1, 1]
        assert crops.amax(dim=(1, 2, 3, 4)).tolist() == [0.0, 1.0]


def test_bad_settings_are_one_line():
    with pytest.raises(ColipriError, match=r"teacher_temperature is 0\.2 and the student's 0\.1"):
        SelfDistillation(teacher_temperature=0.2)
    with pytest.raises(ColipriError, match="crop_size must be"):
        SelfDistillation(crop_size=1.0)
    with pytest.raises(ColipriError, match="single token, which has no smaller crop"):
        draw_crops(torch.zeros(1, 1, 8, 8, 8), torch.ones(1, 1).bool(), (1, 1, 1), 0.5, [0])
