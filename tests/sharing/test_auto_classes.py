"""transformers' Auto classes load an export after ``import colipri``, with our numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_model import TEXTS
from transformers import AutoModel, AutoProcessor, AutoTokenizer

import colipri
from colipri.architectures.model import ColipriModel
from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.checkpoints.model_source import load_model
from colipri.common.errors import ColipriError
from colipri.sharing.auto_model import ColipriDualEncoder
from colipri.text.tokenizer_files import stored_tokenizer

SCAN = Path(colipri.__file__).parent / (
    "dataset_conversion/semi_synthetic_chest/scans/lidc_0314.nii.gz"
)
AUTO = "from transformers import AutoConfig, AutoModel, AutoProcessor"
LOAD = """
import sys
config = AutoConfig.from_pretrained(sys.argv[1])
model = AutoModel.from_pretrained(sys.argv[1])
processor = AutoProcessor.from_pretrained(sys.argv[1])
print(type(config).__name__, type(model).__name__, type(processor).__name__)
"""


@pytest.mark.parametrize(
    "program",
    [
        f"import colipri\n{AUTO}\n{LOAD}",
        f"{AUTO}\nimport colipri\n{LOAD}",
    ],
    ids=["colipri first", "Auto classes first"],
)
def test_the_order_of_the_imports_does_not_matter(exported: Path, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, str(exported)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ColipriConfig", "ColipriDualEncoder", "ColipriProcessor"]


def test_the_hook_leaves_other_imports_as_they_are() -> None:
    """Loaders, sources and the list of finders are those that Python would have without colipri."""
    program = (
        "import sys, colipri, inspect\n"
        "from transformers.models.auto import modeling_auto\n"
        "import json.tool\n"
        "loaders = modeling_auto.__loader__, modeling_auto.__spec__.loader, json.tool.__loader__\n"
        "print('AutoModel' in inspect.getsource(modeling_auto))\n"
        "print(*(type(loader).__name__ for loader in loaders))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", *["SourceFileLoader"] * 3]


@pytest.fixture(scope="module")
def pair(exported: Path) -> tuple[ColipriDualEncoder, object]:
    return AutoModel.from_pretrained(exported).eval(), AutoProcessor.from_pretrained(exported)


def test_images_and_texts_are_encoded_as_by_the_commands(checkpoint: Path, pair: tuple) -> None:
    model, processor = pair
    given = processor(images=SCAN, text=list(TEXTS))
    with torch.no_grad():
        output = model(**given, return_loss=False)
        alone = model.get_image_features(given["pixel_values"], given["body_mask"])
    ours = colipri.load(checkpoint, "cpu")
    (embedding,) = ours.encode(SCAN).values()
    assert torch.equal(output.image_embeds[0], torch.from_numpy(embedding))
    assert torch.equal(output.text_embeds, torch.from_numpy(ours.encode_texts(TEXTS)))
    assert torch.equal(alone, output.image_embeds)
    expected = output.image_embeds @ output.text_embeds.T / ours.predictor.temperature
    torch.testing.assert_close(output.logits_per_image, expected)
    assert output.last_hidden_state.shape == (1, int(given["body_mask"].sum()), 36)


def test_the_loss_is_that_of_pairs(pair: tuple) -> None:
    model, processor = pair
    given = processor(images=[SCAN, SCAN], text=list(TEXTS[:2]))
    output = model(**given, return_loss=True)
    rows = output.logits_per_image.log_softmax(1).diagonal().mean()
    columns = output.logits_per_image.log_softmax(0).diagonal().mean()
    torch.testing.assert_close(output.loss, -(rows + columns) / 2)
    output.loss.backward()
    assert model.logit_scale.grad is not None
    model.zero_grad()


def test_what_transformers_saves_is_still_a_model_of_ours(
    checkpoint: Path, pair: tuple, tmp_path: Path
) -> None:
    for part in pair:
        part.save_pretrained(tmp_path)
    expected, found = load_checkpoint(checkpoint), load_model(tmp_path)
    for key in ("plans", "configuration", "tokenizer", "dataset_json", "orientation"):
        assert found[key] == expected[key], key
    for name, tensor in expected["network_weights"].items():
        assert torch.equal(found["network_weights"][name], tensor)
    again = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(again.logit_scale, pair[0].logit_scale)


def test_the_tokenizer_is_one_that_transformers_knows(checkpoint: Path, exported: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(exported)
    ids = theirs(list(TEXTS), padding=True)["input_ids"]
    ours = colipri.load(checkpoint, "cpu").predictor.tokenizer
    assert ids == ours(list(TEXTS), padding=True)["input_ids"]
    assert theirs.model_max_length == 64


def test_an_export_of_version_0_2_0_still_has_its_tokenizer(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    stored = load_checkpoint(checkpoint)["tokenizer"]
    assert stored_tokenizer(exported) == stored
    (tmp_path / "tokenizer.json").write_text(stored)
    assert stored_tokenizer(tmp_path) == stored


def test_what_is_wrong_is_one_line(exported: Path, pair: tuple, tmp_path: Path) -> None:
    model, processor = pair
    for call, message in (
        (lambda: processor(), "give images, text, or both"),
        (lambda: processor(text=["effusion", " "]), "an empty text"),
        (lambda: processor(images=tmp_path), "holds no image"),
        (lambda: model(), "give pixel_values, input_ids, or both"),
    ):
        with pytest.raises(ColipriError, match=message):
            call()
    folder = tmp_path / "other"
    shutil.copytree(exported, folder)
    config = json.loads((folder / "config.json").read_text())
    architecture = config["plans"]["configurations"]["3d_lowres"]["architecture"]
    architecture["network_class_name"] = "os.system"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ColipriError, match=r"names the class os\.system"):
        AutoModel.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "colipri"}))
    with pytest.raises(ColipriError, match="is not of a model of colipri_export"):
        AutoModel.from_pretrained(folder)


def test_it_has_every_part_of_the_model(pair: tuple) -> None:
    """Parts that the plan leaves out are None, as there, so that borrowed methods find them."""
    model, _ = pair
    plans = model.config.read_plans()
    configuration = plans.configuration(model.config.configuration)
    core = ColipriModel.from_plans(configuration, model.config.vocabulary_size)
    assert all(
        hasattr(model, name)
        for name in [*vars(core), *core._modules]
        if name[0] != "_" and name != "frozen_parts"
    )
    assert model.state_dict().keys() == core.state_dict().keys()
    for name in ("encode_image", "encode_text", "pool_image", "project_tokens"):
        assert getattr(type(model), name) is getattr(ColipriModel, name)
