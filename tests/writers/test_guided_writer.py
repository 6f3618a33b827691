"""--guide from the command to the written report: hints of a head, learned from and given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Workspace
from tiny_dataset import write_tiny_dataset
from tiny_model import Prepared

from colipri.architectures.generation import GenerationSettings
from colipri.inference.labelled_cases import cases_of_split, collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.run.generate_reports import main as generate
from colipri.run.train_writer import main as train
from colipri.writers.hints import named, prompt_text
from colipri.writers.language_model_writer import LanguageModelWriter
from colipri.writers.writer_file import read_writer


@pytest.mark.slow
def test_a_guided_writer_is_told_what_the_head_finds(
    tiny: Prepared,
    workspace: Workspace,
    tiny_llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_tiny_dataset(workspace.raw, "Dataset951_Guided", num_cases=24)
    folder, output = tmp_path / "guided", tmp_path / "guided.jsonl"
    words = f"-m {tiny.checkpoint} -d 951 -lm {tiny_llama} -o {folder} -device cpu --guide"
    more = "--image_tokens 8 --lora_rank 2 --batch_size 4 --epochs 2 2 --learning_rates 1e-2 1e-2"
    assert train([*words.split(), *more.split()]) == 0, capsys.readouterr().err
    saved = read_writer(folder)
    assert saved.settings.findings == ("Pleural effusion",) and saved.head is not None
    assert not saved.head.untrained
    assert generate(f"-m {folder} -d 951 -o {output} -device cpu --max_tokens 20".split()) == 0
    written = {row["case"]: row["report"] for row in map(json.loads, output.open())}
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    cases = cases_of_split(collect_cases(predictor, 951), "test", predictor)
    assert sorted(written) == sorted(case.identifier for case in cases)
    writer = LanguageModelWriter(saved, predictor, GenerationSettings(max_tokens=20))
    for image in (predictor.encode(case.volume()) for case in cases):
        decided = saved.head.decide(image.embedding[None].double().numpy())[0]
        hint = prompt_text(named(np.asarray(decided), saved.settings.findings))
        assert writer._prompt(image) == hint
        assert ("pleural effusion." in hint) == bool(decided[0])
