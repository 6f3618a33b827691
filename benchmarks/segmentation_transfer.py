"""Pretrained against from scratch in nnU-Net: equal plans, folds, seeds and epochs, few labels.

    python benchmarks/segmentation_transfer.py -d 604 -m checkpoint_final.pth -o transfer_604

Runs colipri_transfer_to_nnunet, then nnUNetv2_train for every fold, share of the labels and start
(pretrained, scratch), each in a process of its own. Killed and started again, it goes on with the
run that was interrupted. Prints and writes Dice and mean surface distance with 95 % intervals over
cases, and the paired difference. The data set lies in $nnUNet_raw, as for nnU-Net.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np

STARTS = {"pretrained": "nnUNetTrainer_colipri", "scratch": "nnUNetTrainer_colipri_scratch"}
SEED = 12345
RESAMPLES = 2000


def main() -> None:
    """Everything that is missing, then the table."""
    options = _options()
    folder = _transfer(options)
    splits = _write_splits(folder, options)
    runs = [
        (start, share, fold)
        for fold in options.folds
        for share in options.shares
        for start in STARTS
    ]
    started = time.monotonic()
    for number, (start, share, fold) in enumerate(runs, start=1):
        done = _train(options, folder, start, splits.index((share, fold)))
        elapsed = (time.monotonic() - started) / 60
        state = "trained" if done else "was there"
        print(
            f"{number}/{len(runs)} {start}, {share:g} % of the labels, fold {fold}: {state}", end=""
        )
        print(f" ({elapsed:.1f} min)", flush=True)
    table = [_row(options, folder, share, splits) for share in options.shares]
    result = {"dataset": folder.name, "options": vars(options), "table": table}
    target = Path(options.o)
    target.mkdir(parents=True, exist_ok=True)
    (target / "results.json").write_text(json.dumps(result, indent=2))
    _print_table(table)
    _plot(table, target / "curves.png")
    print(f"\n{target / 'results.json'}, {target / 'curves.png'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", required=True, help="number of the data set in $nnUNet_raw")
    parser.add_argument("-m", required=True, help="pretrained encoder")
    parser.add_argument("-o", required=True, help="folder for results")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-gpu_memory_target", default="8")
    parser.add_argument("--spacing", nargs="+", default=["pretrained"])
    parser.add_argument("--decoder", default="dense")
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--shares", nargs="+", type=float, default=[10, 25, 100], help="percent")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--iterations", type=int, default=20, help="per epoch")
    parser.add_argument("--plans_name", default="colipriTransferBenchmark")
    return parser.parse_args()


def _transfer(options: argparse.Namespace) -> Path:
    """The preprocessed data set, its plan shortened for a short schedule."""
    command = ["colipri_transfer_to_nnunet", "-d", options.d, "-m", options.m]
    command += ["-overwrite_plans_name", options.plans_name, "--decoder", options.decoder]
    command += ["-gpu_memory_target", options.gpu_memory_target, "--spacing", *options.spacing]
    _run(command)
    base = Path(os.environ["nnUNet_preprocessed"])
    (folder,) = base.glob(f"Dataset{int(options.d):03d}_*")
    file = folder / f"{options.plans_name}.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"]["colipri_training"].update(
        num_epochs=options.epochs,
        num_iterations_per_epoch=options.iterations,
        num_val_iterations_per_epoch=2,
        decoder_only_epochs=max(0, options.epochs // 10),
        warmup_epochs=max(1, options.epochs // 10),
        seed=SEED,
    )
    file.write_text(json.dumps(plans, indent=2))
    return folder


def _write_splits(folder: Path, options: argparse.Namespace) -> list[tuple[float, int]]:
    """splits_final.json: five folds, and nested random subsets of each fold's training cases.

    Returns:
        (share, fold) of each entry: its index is the fold number that nnU-Net takes.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    suffix = json.loads((folder / "dataset.json").read_text())["file_ending"]
    cases = sorted(f.name.removesuffix(suffix) for f in (folder / "gt_segmentations").iterdir())
    folds = generate_crossval_split(cases, seed=SEED, n_splits=5)
    order, splits = [], []
    for share in options.shares:
        for number, fold in enumerate(folds):
            rng = np.random.default_rng([SEED, number])
            shuffled = [str(case) for case in rng.permutation(fold["train"])]
            count = max(1, round(len(shuffled) * share / 100))
            splits.append({"train": shuffled[:count], "val": [str(c) for c in fold["val"]]})
            order.append((share, number))
    target = folder / "splits_final.json"
    if target.is_file() and json.loads(target.read_text()) != splits:
        sys.exit(f"{target} is of another experiment; move it away")
    target.write_text(json.dumps(splits, indent=2))
    return order


def _train(options: argparse.Namespace, folder: Path, start: str, fold: int) -> bool:
    """One run to its end, unless it is finished."""
    run = _run_folder(options, folder, start, fold)
    if (run / "validation" / "summary.json").is_file():
        return False
    command = ["nnUNetv2_train", options.d, "3d_fullres", str(fold), "-p", options.plans_name]
    command += ["-tr", STARTS[start], "-device", options.device]
    if any((run / f"checkpoint_{kind}.pth").is_file() for kind in ("final", "latest", "best")):
        command.append("--c")
    elif start == "pretrained":
        command += ["-pretrained_weights", str(folder / f"{options.plans_name}_encoder.pth")]
    trainers = subprocess.run(
        [_script("colipri_nnunet_trainer_folder")], capture_output=True, text=True, check=True
    )
    environment = {"nnUNet_extTrainer": trainers.stdout.strip(), "OMP_WAIT_POLICY": "PASSIVE"}
    environment["nnUNet_n_proc_DA"] = "0" if options.device == "cpu" else "8"
    _run(command, run.parent / f"output_{start}_{fold}.txt", **environment)
    return True


def _run(command: list[str], log: Path | None = None, **environment: str) -> None:
    output: Any = None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("a")
    done = subprocess.run(
        [_script(command[0]), *command[1:]],
        env={**os.environ, **environment},
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed{f', see {log}' if log else ''}")


def _script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


def _run_folder(options: argparse.Namespace, folder: Path, start: str, fold: int) -> Path:
    name = f"{STARTS[start]}__{options.plans_name}__3d_fullres"
    return Path(os.environ["nnUNet_results"]) / folder.name / name / f"fold_{fold}"


def _row(
    options: argparse.Namespace, folder: Path, share: float, splits: list[tuple[float, int]]
) -> dict[str, Any]:
    """Metrics per start at one share of the labels, over all validation cases of the folds."""
    values: dict[str, dict[str, list[float]]] = {}
    for start in STARTS:
        values[start] = {"dice": [], "surface_distance_mm": []}
        for fold in options.folds:
            run = _run_folder(options, folder, start, splits.index((share, fold)))
            summary = json.loads((run / "validation" / "summary.json").read_text())
            for case in summary["metric_per_case"]:
                dices = [entry["Dice"] for entry in case["metrics"].values()]
                values[start]["dice"].append(float(np.nanmean(dices)))
                distance = _surface_distance(case["prediction_file"], case["reference_file"])
                values[start]["surface_distance_mm"].append(distance)
    row: dict[str, Any] = {"share": share, "cases": len(values["scratch"]["dice"])}
    for metric in ("dice", "surface_distance_mm"):
        arrays = {start: np.array(values[start][metric]) for start in STARTS}
        for start, array in arrays.items():
            row[f"{metric}_{start}"] = _interval(array)
        row[f"{metric}_difference"] = _interval(arrays["pretrained"] - arrays["scratch"])
    return row


def _surface_distance(prediction_file: str, reference_file: str) -> float:
    """Mean symmetric distance of all foreground surfaces in mm; NaN where one has no foreground."""
    import SimpleITK as sitk
    from scipy.ndimage import binary_erosion, distance_transform_edt

    images = [sitk.ReadImage(name) for name in (prediction_file, reference_file)]
    spacing = images[1].GetSpacing()[::-1]
    masks = [sitk.GetArrayFromImage(image) > 0 for image in images]
    if not all(mask.any() for mask in masks):
        return float("nan")
    surfaces = [mask & ~binary_erosion(mask) for mask in masks]
    distances = [
        distance_transform_edt(~there, sampling=spacing)[here]
        for here, there in (surfaces, surfaces[::-1])
    ]
    return float(np.concatenate(distances).mean())


def _interval(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean with the percentile interval of a bootstrap over cases; undefined cases are left out."""
    known = values[~np.isnan(values)]
    if not len(known):
        return {"value": None, "low": None, "high": None, "cases": 0}
    rng = np.random.default_rng(SEED)
    means = known[rng.integers(0, len(known), (RESAMPLES, len(known)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"value": float(known.mean()), "low": low, "high": high, "cases": len(known)}


def _print_table(table: list[dict[str, Any]]) -> None:
    from colipri.run.tables import format_interval, format_table

    for metric in ("dice", "surface_distance_mm"):
        header = [metric, *STARTS, "difference"]
        rows = [
            [f"{row['share']:g} % of the labels"]
            + [format_interval(row[f"{metric}_{name}"]) for name in (*STARTS, "difference")]
            for row in table
        ]
        print("\n" + format_table(header, rows))


def _plot(table: list[dict[str, Any]], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, metric in zip(axes, ("dice", "surface_distance_mm"), strict=True):
        for start in STARTS:
            entries = [row[f"{metric}_{start}"] for row in table]
            known = [(r["share"], e) for r, e in zip(table, entries, strict=True) if e["cases"]]
            if known:
                x = [share for share, _ in known]
                axis.plot(x, [e["value"] for _, e in known], "o-", label=start)
                axis.fill_between(
                    x, [e["low"] for _, e in known], [e["high"] for _, e in known], alpha=0.2
                )
        axis.set(xlabel="labels (%)", ylabel=metric.replace("_", " "), xscale="log")
        axis.legend()
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    main()
