"""The code on the released model's card runs here, as it is printed, on imported weights."""

from __future__ import annotations

import doctest
import json
import re
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
import torch
from released_files import HEADS, WIDTH, write_released

import colipri.released.settings as settings_module
from colipri.common.atomic import read_json
from colipri.run import import_model

pytestmark = pytest.mark.slow
SIZE = 16  # voxels per axis instead of 192, so that the test takes seconds


def _card(python: Path) -> str:
    """The description that the released package was published with."""
    (file,) = (python.parents[1] / "lib").glob("*/site-packages/colipri-0.1.3.dist-info/METADATA")
    return str(message_from_string(file.read_text(encoding="utf-8")).get_payload())


def test_every_example_of_the_card_runs(
    released_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only sizes are others (in the defaults, not in the code), and .cuda() without a GPU."""
    weights = write_released(tmp_path)
    target = tmp_path / "model"
    words = ["-i", str(weights), "--text_encoder", str(tmp_path / "text"), "-o", str(target)]
    assert import_model.main(words) == 0
    defaults = read_json(settings_module._FILE)
    defaults |= {"input_size": SIZE, "image_embed_dim": WIDTH, "projection_dim": 24}
    defaults["model"]["image_encoder"]["backbone"] |= {"eva_depth": 1, "eva_numheads": HEADS}
    (tmp_path / "settings.json").write_text(json.dumps(defaults))
    monkeypatch.setattr(settings_module, "_FILE", tmp_path / "settings.json")
    monkeypatch.setenv("colipri_released", str(target))
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)

    blocks = re.findall(r"^```python\n(.*?)^```", _card(released_python), re.M | re.S)
    assert len(blocks) >= 4
    names: dict[str, Any] = {}
    found: dict[str, str] = {}
    for block in blocks:
        for example in doctest.DocTestParser().get_examples(_with_prompts(block)):
            try:
                value = eval(example.source, names)
            except SyntaxError:  # a statement
                exec(example.source, names)  # the card's own code
            else:
                found[example.source.strip()] = repr(value)
    assert found["patch_embeddings.shape"] == f"torch.Size([1, {WIDTH}, 2, 2, 2])"
    assert found["pooled_embeddings.shape"] == "torch.Size([1, 24])"
    assert found["preprocessed_images[0]"].startswith(f"ScalarImage(shape: (1, {SIZE}, ")
    scores = next(value for source, value in found.items() if source.startswith("pipeline("))
    labels = ["No lung nodules present", "Lung nodules present"]
    assert [entry["label"] for entry in eval(scores)] == labels


def _with_prompts(block: str) -> str:
    """The card forgets the prompt of one line; results may not look like code."""
    return re.sub(r"^(?=images_batch\.shape$)", ">>> ", block, flags=re.MULTILINE)
