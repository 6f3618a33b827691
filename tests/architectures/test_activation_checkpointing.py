import pytest
import torch
from architectures.saved_tensors import count_saved_bytes
from architectures.tiny_encoder import striped_volume, tiny_encoder
from torch import Tensor

from colipri.architectures.primus import CHECKPOINTING, PrimusEncoder
from colipri.architectures.tokens import select_tokens


def _encoder(level: str) -> PrimusEncoder:
    encoder = tiny_encoder(
        activation_checkpointing=level, drop_path_rate=0.5, num_register_tokens=1, depth=4
    )
    return encoder.train()


def _step(encoder: PrimusEncoder, ragged: bool) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(11)
    ids_keep, attention_mask = None, None
    if ragged:
        counts = torch.tensor([[30], [17], [8], [25]])
        ids_keep, attention_mask = select_tokens(torch.arange(30).expand(4, 30) < counts)
    out = encoder(striped_volume(batch=4), ids_keep, attention_mask)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(12))
    (out * weights).sum().backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    return out.detach(), gradients


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("level", ["mlp", "full"])
def test_outputs_and_gradients_are_those_without_checkpointing(level: str, ragged: bool):
    """Drop path draws the same numbers when a part is computed again, or gradients would differ."""
    out, gradients = _step(_encoder("none"), ragged)
    again, replayed = _step(_encoder(level), ragged)
    assert torch.equal(out, again)
    assert gradients.keys() == replayed.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(replayed[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_drop_path_did_drop_in_that_test():
    active, _ = _step(_encoder("none"), ragged=False)
    encoder = _encoder("none").eval()
    assert (active - encoder(striped_volume(batch=4))).abs().max() > 0.1


def test_levels_keep_less_and_less():
    kept = {}
    for level in CHECKPOINTING:
        encoder = tiny_encoder(activation_checkpointing=level, embed_dim=96, depth=6).train()
        image = striped_volume((40, 40, 40), batch=2)
        fixed = [image, *encoder.parameters()]
        kept[level] = count_saved_bytes(lambda e=encoder, x=image: e(x), fixed)
    # the ladder of the planner: about 46, 21 and 3.5 kB per token and block at Primus-M
    assert kept["mlp"] < 0.6 * kept["none"]
    assert kept["full"] < 0.2 * kept["none"]


def test_nothing_is_checkpointed_without_gradients():
    encoder = tiny_encoder(activation_checkpointing="full")
    with torch.no_grad():
        out = encoder(striped_volume())
    assert not out.requires_grad
    torch.testing.assert_close(out, tiny_encoder()(striped_volume()))
