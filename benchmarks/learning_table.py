"""Which objectives help: one table on the semi-synthetic chest set, unseen anatomy, equal compute.

    python benchmarks/learning_table.py -o learning
    python benchmarks/learning_table.py -o learning --seeds 5 --teraflop 2000 -device cuda
    python benchmarks/learning_table.py -o learning --runs C "CO, 25 % of the reports" --seeds 1

Every row is trained for the same number of floating point operations (forward and backward of
every objective in use, as planned: colipri.experiment_planning.training_cost), with the same
plan, batch and seeds, then measured on the test split, whose anatomy nobody trained
on: zero-shot macro AUROC, recall@5 from image to report, and a linear probe on the mean token of
the encoder, with 95 % intervals over studies, for each seed. Controls: an untrained model, and
reports given to other people's scans.

Each step is a command that users type, in a process of its own, with its output in OUT/logs. Killed
and started again, it continues where it stopped. OUT/table.md and OUT/results.json are rewritten
after every run. The defaults are sized for 100 minutes on two cores: the rows of one seed took 71
minutes on one of two busy cores, and two seeds run beside each other.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from command_line import call, run_side_by_side, trainings_at_once
from learning_table_results import measure, write_table

from colipri.common.atomic import atomic_write_json, read_json
from colipri.experiment_planning.recipes import FINDINGS, QUESTIONS

BATCH = 32
STEPS_AN_EPOCH = 25
# The text encoder learns from the reports first and is then left alone, as the plan says.
FROZEN = [*FINDINGS.frozen]
# A decoder as small as the encoder; nine of ten reports are shorter than 160 tokens.
SMALL_R = {"R.decoder_depth": 1, "R.max_tokens": 160}
# As plans of small machines have them, without label columns (O) and with them (L).
WITH_O, WITH_L = (
    {f"{letter}.{name}": value for letter, one in options.items() for name, value in one.items()}
    for options in (QUESTIONS.options, FINDINGS.options)
)
# Other rows have the default weights: with C at its full weight the plan's rate is too high, and
# the model stays at chance.
RATE_WITHOUT_QUESTIONS = 1e-3


@dataclass(frozen=True)
class Run:
    """One row: objectives by their letters, options of colipri_train, and the data set."""

    name: str
    letters: str
    options: dict[str, Any] = field(default_factory=dict)  # of objectives
    data: str = "all"

    @property
    def folder_name(self) -> str:
        """For files: letters and digits of the name."""
        return "".join(c if c.isalnum() else "_" for c in self.name)


RUNS = (
    Run("untrained", ""),
    Run("C", "C"),
    Run("CR", "CR", SMALL_R),
    Run("CM", "CM"),
    Run("CRM", "CRM", SMALL_R),
    Run("CRMO", "CRMO", {**SMALL_R, **WITH_O}),
    Run("CO", "CO", WITH_O),
    Run("L", "L", {name: value for name, value in WITH_L.items() if name.startswith("L.")}),
    Run("CL", "CL", WITH_L),
    Run("CLS (quick start)", "CLS", WITH_L),
    Run("M", "M"),
    Run("C, 25 % of the reports", "C", data="quarter"),
    Run("CO, 25 % of the reports", "CO", WITH_O, data="quarter"),
    Run("CMO, 25 % of the reports", "CMO", WITH_O, data="quarter"),
    Run("CO, reports shuffled", "CO", WITH_O, data="shuffled"),
)
DATASETS = {"all": 901, "quarter": 902, "shuffled": 903}


def main() -> None:
    """Data, every run that is missing, and the table after each."""
    options = _options()
    out = Path(options.o).absolute()
    settings = {k: getattr(options, k) for k in ("studies", "teraflop", "data_seed")}
    marker = out / "settings.json"
    if marker.is_file() and read_json(marker) != settings:
        sys.exit(f"{out} was begun with {read_json(marker)}; choose another -o or these settings")
    os.environ.update({f"colipri_{n}": str(out / n) for n in ("raw", "preprocessed", "results")})
    for name in ("raw", "preprocessed", "results"):
        (out / name).mkdir(parents=True, exist_ok=True)
    atomic_write_json(marker, settings)
    chosen = [run for run in RUNS if not options.runs or run.name in options.runs]
    for data in dict.fromkeys(run.data for run in chosen):
        prepare(out, data, options)
    at_once = trainings_at_once(options.np, options.device)
    run_side_by_side(
        [
            functools.partial(finish, out, run, seed, options)
            for seed in range(options.seeds)
            for run in chosen
        ],
        at_once,
        "runs",
        lambda: write_table(out, [r.name for r in chosen], [r.folder_name for r in chosen]),
    )
    sys.stdout.write((out / "table.md").read_text(encoding="utf-8"))


def finish(out: Path, run: Run, seed: int, options: argparse.Namespace) -> None:
    """Train and measure one run, unless that is done."""
    target = out / "measured" / f"{run.folder_name}_{seed}.json"
    if not target.is_file():
        checkpoint, steps = train(out, run, seed, options)
        measure(out, checkpoint, target, steps, seed, DATASETS["all"])


def prepare(out: Path, data: str, options: argparse.Namespace) -> None:
    """Raw and preprocessed data set; variants share the scans and differ in the reports."""
    number = DATASETS[data]
    done = out / f"prepared_{data}"
    if done.is_file():
        return
    if data == "all":
        arguments = f"semi_synthetic_chest -d {number} -n SemiSyntheticChest --num_studies"
        arguments += f" {options.studies} --seed {options.data_seed} -np {options.np}"
        call(_log(out, f"build_{data}"), "colipri_convert_dataset", *arguments.split())
    else:
        prepare(out, "all", options)
        _variant(out, data, options.data_seed)
    arguments = f"-d {number} -c 3d_lowres -gpu_memory_target 4 -text_encoder scratch"
    arguments += f" -np {options.np}"
    call(_log(out, f"prepare_{data}"), "colipri_plan_and_preprocess", *arguments.split())
    done.touch()


def _variant(out: Path, data: str, seed: int) -> None:
    """Hard links to the scans; a quarter of the training reports, or all with other scans."""
    source = out / "raw" / f"Dataset{DATASETS['all']}_SemiSyntheticChest"
    target = out / "raw" / f"Dataset{DATASETS[data]}_SemiSyntheticChest"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)
    rows = (source / "cases.csv").read_text(encoding="utf-8").splitlines()[1:]
    train = {row.split(",")[0] for row in rows if row.split(",")[3] == "train"}
    files = sorted(f for f in (target / "reportsTr").iterdir() if f.stem in train)
    studies = sorted({f.stem.rsplit("_", 1)[0] for f in files})  # reconstructions stay together
    rng = np.random.default_rng(seed)
    if data == "quarter":
        kept = set(rng.permutation(studies)[: len(studies) // 4])
        for file in files:
            if file.stem.rsplit("_", 1)[0] not in kept:
                file.unlink()
        return
    given = dict(zip(studies, np.roll(rng.permutation(studies), 1), strict=True))
    by_study = {f.stem.rsplit("_", 1)[0]: f for f in sorted(source.glob("reportsTr/*"))}
    for file in files:
        report = by_study[given[file.stem.rsplit("_", 1)[0]]]
        file.unlink()  # a link: its content belongs to the source as well
        shutil.copyfile(report, file.with_suffix(report.suffix))


def train(out: Path, run: Run, seed: int, options: argparse.Namespace) -> tuple[Path, int]:
    """Checkpoint and steps of a run; the untrained row's has weights that are not used, 0 steps."""
    from colipri.experiment_planning.training_cost import training_flops
    from colipri.plans.plans import load_plans
    from colipri.training.options import RunOptions

    letters = run.letters or "C"
    name = f"Dataset{DATASETS[run.data]}_SemiSyntheticChest"
    plan = load_plans(name, "colipriPlans").configuration("3d_lowres")
    chosen = RunOptions(
        {f"objectives.{name}": value for name, value in run.options.items()}, objectives=letters
    ).objective_settings({})
    training = replace(plan.training, objectives=chosen, frozen=FROZEN)
    flops = sum(training_flops(replace(plan, training=training), None, list(chosen)).values())
    steps = 1 if not run.letters else options.teraflop * 1e12 / (flops * BATCH)
    epochs = max(1, round(steps / STEPS_AN_EPOCH))
    results = out / "results" / f"{run.folder_name}_{seed}"
    folder = results / name / f"ColipriTrainer_{letters}__colipriPlans__3d_lowres" / "fold_0"
    base = f"{DATASETS[run.data]} 3d_lowres 0 --batch_size {BATCH} --seed {12345 + seed}"
    base += f" --epochs {epochs} --iterations_per_epoch {STEPS_AN_EPOCH} -device {options.device}"
    base += f" --validate_every {epochs}"
    arguments = base.split()
    if letters != "M":
        arguments += ["--set", f"training.frozen={json.dumps(FROZEN)}"]
    if letters == "CMO":  # no trainer of this name: the letters are an option
        folder = folder.parents[1] / "ColipriTrainer__colipriPlans__3d_lowres" / "fold_0"
        arguments += ["-tr", "ColipriTrainer", "--objectives", letters]
    else:
        arguments += ["-tr", f"ColipriTrainer_{letters}"]
    if run.options:
        arguments += [
            "--set",
            *(f"objectives.{name}={json.dumps(value)}" for name, value in run.options.items()),
        ]
    if not set(letters) & set("LO"):
        arguments += ["--learning_rate", str(RATE_WITHOUT_QUESTIONS)]
    if (folder / "checkpoint_latest.pth").is_file():
        arguments.append("--c")
    if not (folder / "checkpoint_final.pth").is_file():
        environment = {"colipri_results": str(results)}
        call(_log(out, results.name), "colipri_train", *arguments, environment=environment)
    return folder / "checkpoint_final.pth", epochs * STEPS_AN_EPOCH if run.letters else 0


def _log(out: Path, name: str) -> Path:
    return out / "logs" / f"{name}.txt"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", required=True, metavar="OUT")
    parser.add_argument("--runs", nargs="+", choices=[run.name for run in RUNS], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--studies", type=int, default=1200, metavar="N")
    parser.add_argument("--teraflop", type=float, default=20.0, help="of a run (%(default)s)")
    parser.add_argument("--data_seed", type=int, default=12345, metavar="N")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-np", type=int, default=2, metavar="N")
    return parser.parse_args()


if __name__ == "__main__":
    main()
