"""colipri_quickstart: the whole pipeline on embedded data, with the commands that do it."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.tables import format_interval

DATASET_ID = 901
DATASET = f"Dataset{DATASET_ID}_SemiSyntheticChest"
CONFIGURATION = "3d_lowres"
TRAINER = "ColipriTrainer"  # the objectives of the plan, and all its numbers
EPOCHS, LONG_EPOCHS = 11, 30  # a quarter of an hour on two cores, and three quarters
FOLD = "0"  # fold 0 is the split of cases.csv: validation scans' anatomy is not trained on

DESCRIPTION = """\
Run the whole pipeline of colipri, from raw data to a result, on data that come with the package:

    build a semi-synthetic chest CT set (real scans, inserted findings, written reports)
    verify it, plan, preprocess, pre-train image and text encoder
    evaluate zero-shot classification and retrieval on anatomy that was never seen in training

It prints every command as you would type it for your own data, and ends with one HTML page. Two CPU
cores need about 20 minutes. After an interruption the same command continues where it stopped.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_quickstart", DESCRIPTION)
    parser.add_argument(
        "-o",
        default="colipri_quickstart",
        metavar="FOLDER",
        help="where everything goes (default: ./%(default)s)",
    )
    parser.add_argument("-device", default="cpu", choices=("cuda", "cpu", "mps"))
    parser.add_argument(
        "-np", type=int, default=2, metavar="N", help="processes for data (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=12345, metavar="N")
    size = parser.add_argument_group("size of the run (defaults fit two CPU cores)")
    size.add_argument("--train_studies", type=int, default=1200, metavar="N")
    size.add_argument("--long", action="store_true", help="train for three quarters of an hour")
    size.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help=f"default: {EPOCHS}, or with --long {LONG_EPOCHS}",
    )
    size.add_argument(
        "--iterations_per_epoch", type=int, default=75, metavar="N", help="default: %(default)s"
    )
    size.add_argument(
        "--batch_size", type=int, metavar="N", help="pairs per step (default: that of the plan)"
    )
    return parser


class Quickstart:
    """The steps of the quick start; each is a command of the framework, run in this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = Path(options.o).absolute()
        self.seconds: dict[str, float] = {}
        self.model_folder = (
            self.folder
            / "results"
            / DATASET
            / f"{TRAINER}__colipriPlans__{CONFIGURATION}"
            / f"fold_{FOLD}"
        )

    def run(self) -> int:
        """Do all steps in order and return the exit code."""
        self._set_environment()
        options = self.options
        workers = f"-np {options.np}"
        self.command(
            "build the semi-synthetic chest set",
            "colipri_convert_dataset",
            f"semi_synthetic_chest -d {DATASET_ID} -n SemiSyntheticChest "
            f"--num_studies {options.train_studies} --seed {options.seed} {workers}",
        )
        self.command(
            "verify, plan and preprocess",
            "colipri_plan_and_preprocess",
            f"-d {DATASET_ID} --verify_dataset_integrity -c {CONFIGURATION} -gpu_memory_target 4 "
            f"-text_encoder scratch {workers}",
        )
        self.train()
        best = self.model_folder / "checkpoint_best.pth"
        for name, checkpoint in (("trained", best), ("untrained", self.untrained_checkpoint())):
            self.evaluate(
                f"zero-shot classification on unseen anatomy ({name} encoder)",
                "colipri_zero_shot",
                checkpoint,
                f"zero_shot_{name}",
            )
            self.evaluate(
                f"retrieval on unseen anatomy ({name} encoder)",
                "colipri_retrieve",
                checkpoint,
                f"retrieval_{name}",
            )
        self.evaluate(
            "where the findings are seen, against their label maps",
            "colipri_grounding",
            best,
            "grounding_test",
            "--control_untrained",
        )
        self.step("report", self.write_page)
        self.say_result(self.write_metrics())
        return EXIT_OK

    def train(self) -> None:
        """Pre-train, or continue a training that was interrupted."""
        if (self.model_folder / "checkpoint_final.pth").is_file():
            self.say("\n# pre-train: done in an earlier run")
            return
        options = self.options
        arguments = f"{DATASET_ID} {CONFIGURATION} {FOLD} -tr {TRAINER} -device {options.device}"
        arguments += f" --seed {options.seed}"
        usual = LONG_EPOCHS if options.long else EPOCHS
        arguments += f" --epochs {usual if options.epochs is None else options.epochs}"
        for name in ("iterations_per_epoch", "batch_size"):
            if getattr(options, name) is not None:
                arguments += f" --{name} {getattr(options, name)}"
        if (self.model_folder / "checkpoint_latest.pth").is_file():
            arguments += " --c"
        self.command("pre-train image and text encoder", "colipri_train", arguments)

    def evaluate(
        self, title: str, command: str, checkpoint: Path, result: str, more: str = ""
    ) -> None:
        """Evaluate a checkpoint on the held-out split, unless its result is there already.

        Args:
            title: Of the step.
            command: colipri_zero_shot, colipri_retrieve or colipri_grounding.
            checkpoint: To evaluate.
            result: Name of the result file.
            more: Further arguments.
        """
        target = self.result(result)
        if target.is_file() and target.stat().st_mtime >= checkpoint.stat().st_mtime:
            self.say(f"\n# {title}: done in an earlier run")
            return
        arguments = (
            f"-m {shlex.quote(str(checkpoint))} -d {DATASET_ID} --split test "
            f"-device {self.options.device} -o {shlex.quote(str(target))} {more}".rstrip()
        )
        self.command(title, command, arguments)

    def untrained_checkpoint(self) -> Path:
        """Make the control: the same model before the first step, evaluated in the same way."""
        from colipri.checkpoints.baselines import save_untrained

        target = self.model_folder / "control_untrained.pth"
        if not target.is_file():
            save_untrained(self.model_folder / "checkpoint_best.pth", target)
        return target

    def write_page(self) -> None:
        """Write one self-contained HTML page; no patient wrote these reports, so they are shown."""
        from colipri.reporting.report import picture_sections, write_report

        pictures = picture_sections(self.model_folder, self.options.device, show_reports=True)
        write_report(
            self.model_folder,
            self.folder / "report.html",
            pictures,
            title="colipri quick start: semi-synthetic chest CT",
        )

    def write_metrics(self) -> dict[str, Any]:
        """Write metrics.json: the numbers of the page, for scripts."""
        from colipri.common.atomic import atomic_write_json, read_json

        trained = read_json(self.result("zero_shot_trained"))
        untrained = read_json(self.result("zero_shot_untrained"))
        metrics = {
            "data": "semi-synthetic (real scans, inserted findings, written reports)",
            "zero_shot": trained,
            "retrieval": read_json(self.result("retrieval_trained")),
            "grounding": read_json(self.result("grounding_test")),
            "controls": {
                "untrained": {
                    **untrained,
                    "retrieval": read_json(self.result("retrieval_untrained")),
                }
            },
            "seconds": round(sum(self.seconds.values()), 1),
            "seconds_per_step": {name: round(value, 1) for name, value in self.seconds.items()},
        }
        atomic_write_json(self.folder / "metrics.json", metrics)
        return metrics

    def result(self, name: str) -> Path:
        """Return the path of a result file: beside the model, where colipri_report looks for it."""
        return self.model_folder / f"{name}.json"

    def command(self, title: str, command: str, arguments: str) -> None:
        """Print a command as a user would type it, run it, stop if it fails.

        Args:
            title: Of the step.
            command: Its name.
            arguments: As typed in a shell.
        """
        from colipri.run.cli import configure_logging

        self.say(f"\n# {title}\n$ {command} {arguments}")
        module = import_module(f"colipri.run.{command.removeprefix('colipri_')}")

        def action() -> None:
            code = module.main(shlex.split(arguments))
            configure_logging(self.options.verbose)
            if code == 130:
                raise KeyboardInterrupt
            if code != EXIT_OK:
                raise ColipriError(f"the step '{title}' failed with exit code {code}; see above")

        self.step(title, action)

    def step(self, title: str, action: Callable[[], None]) -> None:
        """Run and time one step."""
        start = time.perf_counter()
        action()
        self.seconds[title] = time.perf_counter() - start
        self.say(f"# {title}: {self.seconds[title]:.0f} s")

    def say_result(self, metrics: dict[str, Any]) -> None:
        """Print the result in a few lines, with the control beside it."""
        lines = [
            "",
            "Zero-shot macro AUROC on unseen anatomy (semi-synthetic data, 95 % interval):",
        ]
        for name, source in (
            ("trained", metrics["zero_shot"]),
            ("untrained", metrics["controls"]["untrained"]),
        ):
            lines.append(f"  {name:<10} {format_interval(source['macro_auroc'])}")
        lines.append(f"The steps of this run took {sum(self.seconds.values()) / 60:.1f} minutes.")
        lines.append(f"Open {self.folder / 'report.html'}")
        self.say("\n".join(lines))

    def say(self, text: str) -> None:
        print(text, flush=True)

    def _set_environment(self) -> None:
        """Point the framework's three folders into this run's folder and show how."""
        for name in ("raw", "preprocessed", "results"):
            path = self.folder / name
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ColipriError(f"cannot create {path}: {error.strerror}") from error
            os.environ[f"colipri_{name}"] = str(path)
            self.say(f"$ export colipri_{name}={shlex.quote(str(path))}")
        sys.stdout.flush()


def quickstart(options: argparse.Namespace) -> int:
    """Run everything."""
    return Quickstart(options).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_quickstart."""
    return run_command(build_parser(), quickstart, arguments)
