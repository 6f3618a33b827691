"""The command to type next, ready to paste whatever its paths contain."""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path

# What colipri_report reads from the folder of a run: command -> beginning of its result files.
_EVALUATIONS = {"colipri_zero_shot": "zero_shot", "colipri_retrieve": "retrieval"}


def command_line(*words: object) -> str:
    """Join words into a shell command, quoted where needed."""
    return shlex.join(str(word) for word in words)


def say_next(*words: object) -> None:
    """Log the next command."""
    logging.getLogger("colipri").info("Next: %s", command_line(*words))


def evaluation_command(command: str, checkpoint: Path, dataset: object, split: str) -> list[str]:
    """Return the words of an evaluation that writes its result where colipri_report looks for it.

    Args:
        command: colipri_zero_shot or colipri_retrieve.
        checkpoint: In the folder of its run.
        dataset: Number or name.
        split: To evaluate.
    """
    output = checkpoint.parent / f"{_EVALUATIONS[command]}_{split}.json"
    words = (command, "-m", checkpoint, "-d", dataset, "--split", split, "-o", output)
    return [str(word) for word in words]


def say_next_after_evaluation(command: str, options: argparse.Namespace, findings: bool) -> None:
    """Log the evaluation that the run's folder lacks, or colipri_report.

    Args:
        command: The one that was just done.
        options: Its arguments.
        findings: True if the data set has labels, which colipri_zero_shot needs.
    """
    checkpoint = Path(options.m).absolute()
    if not checkpoint.exists():  # a name on a hub has no folder of a run
        return
    if checkpoint.is_dir():  # the fold folder of a run, or an exported model
        checkpoint = checkpoint / "checkpoint_best.pth"
    folder = checkpoint.parent
    if options.o is None or Path(options.o).absolute().parent != folder:
        shown = evaluation_command(command, checkpoint, options.d, options.split)[-2:]
        logging.getLogger("colipri").info(
            "(With %s, colipri_report shows this result.)", command_line(*shown)
        )
    for other, stem in _EVALUATIONS.items():
        missing = not any(folder.glob(f"{stem[:7]}*.json"))
        if other != command and missing and (findings or other != "colipri_zero_shot"):
            say_next(*evaluation_command(other, checkpoint, options.d, options.split))
            return
    say_next("colipri_report", folder, "--pictures")
