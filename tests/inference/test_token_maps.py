"""Heat maps from the attention of sentence queries, and models that have none."""

import numpy as np
import pytest
import torch
from tiny_model import write_checkpoint

from colipri.architectures.sentence_attention import SentenceAttention
from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.common.errors import ColipriError
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.inference.token_maps import TokenMaps


@pytest.fixture
def predictor(tmp_path):
    weights = load_checkpoint(write_checkpoint(tmp_path / "a.pth"))["network_weights"]
    width, shared = (weights["image_projector.weight"].shape[i] for i in (1, 0))
    torch.manual_seed(1)
    for name, value in SentenceAttention(width, shared).state_dict().items():
        weights[f"sentence_attention.{name}"] = value
    settings = {"objectives": {"contrastive": {}, "sentence_queries": {}}}
    path = write_checkpoint(tmp_path / "b.pth", network_weights=weights, settings=settings)
    return ColipriPredictor.from_checkpoint(path)


def encoded(predictor):
    width = predictor.configuration.encoder.embed_dim
    tokens = torch.randn(9, width, generator=torch.Generator().manual_seed(2))
    positions = np.array([(0, i, j) for i in range(3) for j in range(3)])
    return EncodedImage("scan", torch.zeros(1), tokens, positions, (1, 3, 3), (0, 0, 0))


def test_attention_is_that_of_the_affirming_text(predictor):
    texts = predictor.encode_texts(["effusion", "nodule", "no effusion"])
    image = encoded(predictor)
    maps = TokenMaps(predictor, "attention").of(image, texts[:2], texts[2:].repeat(2, 1))
    assert [one.shape for one in maps] == [(9,), (9,)]
    assert np.allclose([one.mean() for one in maps], 1.0, atol=1e-5)  # 1: as anywhere
    other = TokenMaps(predictor, "attention").of(image, texts[:2], texts[:2])
    assert np.array_equal(maps[0], other[0])
    cosines = TokenMaps(predictor).of(image, texts[:2], texts[2:].repeat(2, 1))
    assert not np.allclose(cosines[0], maps[0])
    control = TokenMaps(predictor.untrained(), "attention").of(image, texts[:1], texts[2:])
    assert not np.allclose(control[0], maps[0])  # a fresh head, not the trained one


def test_models_without_attention_are_one_line(tmp_path):
    plain = ColipriPredictor.from_checkpoint(write_checkpoint(tmp_path / "c.pth"))
    with pytest.raises(ColipriError, match="has no sentence attention: train with objective A"):
        TokenMaps(plain, "attention")
    with pytest.raises(ColipriError, match="must be similarity or attention, not gradient"):
        TokenMaps(plain, "gradient")
