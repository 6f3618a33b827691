"""Metrics, intervals, table and curves of the transfer experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from segmentation_transfer_data import Source

from colipri.common.atomic import atomic_write_json, atomic_write_text
from colipri.evaluation.bootstrap import estimate, paired_difference, patient_weights
from colipri.run.tables import format_interval

METRICS = {"dice": "Dice", "surface_distance": "mean surface distance (mm)"}
DECIMALS = {"dice": 3, "surface_distance": 2}
TITLES = {
    "scratch": "from scratch",
    "images": "pre-trained on its images",
    "checkpoint": "given encoder (-m)",
}
Results = dict[str, dict[float, list[Path]]]


def write_results(
    out: Path, experiments: list[tuple[Source, Results]], options: dict[str, Any]
) -> None:
    """results.json, table.md and curves.png of what is finished so far."""
    content: dict[str, Any] = {"options": options, "datasets": {}}
    lines: list[str] = []
    for source, results in experiments:
        rows = [row for fraction in results["scratch"] if (row := _row(results, fraction))]
        if rows:
            content["datasets"][source.name] = rows
            lines += _table(source, rows)
            _plot(source, rows, out / f"curves_{source.name.split('_', 1)[1].lower()}.png")
    atomic_write_json(out / "results.json", content)
    atomic_write_text(out / "table.md", "\n".join(lines))


def _row(results: Results, fraction: float) -> dict[str, Any] | None:
    """Metrics at one fraction, over the cases that all starts have been validated on."""
    values = {start: _values(summaries[fraction]) for start, summaries in results.items()}
    cases = sorted(set.intersection(*(set(entries) for entries in values.values())))
    if not cases:
        return None
    weights = patient_weights(cases).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    row: dict[str, Any] = {"fraction": fraction, "cases": len(cases)}
    for start, entries in values.items():
        row[start] = {"missed": sum(entries[case]["missed"] for case in cases)}
        for metric in METRICS:
            base, own = (
                np.array([values[name][case][metric] for case in cases])
                for name in ("scratch", start)
            )
            row[start][metric] = estimate(own_mean := float(own.mean()), weights @ own)
            if start != "scratch":
                row[start][metric]["difference"] = paired_difference(
                    float(base.mean()), own_mean, weights @ base, weights @ own
                )
    return row


def _values(summaries: list[Path]) -> dict[str, dict[str, Any]]:
    """Case -> metrics of several validations; measured once and kept beside the predictions."""
    values: dict[str, dict[str, Any]] = {}
    for summary in summaries:
        measured = summary.with_name("transfer_metrics.json")
        if not measured.is_file():
            atomic_write_json(measured, _measure(summary))
        values |= json.loads(measured.read_text())
    return values


def _measure(summary: Path) -> dict[str, dict[str, Any]]:
    """Means over the labels of each case."""
    values = {}
    for case in json.loads(summary.read_text())["metric_per_case"]:
        name = Path(case["prediction_file"]).name
        reference = Path(case["reference_file"])
        distances, missed = _surface_distances(summary.with_name(name), reference)
        dices = [entry["Dice"] for entry in case["metrics"].values()]
        values[name] = {
            "dice": float(np.nanmean(dices)),
            "surface_distance": float(np.mean(distances)),
            "missed": missed,
        }
    return values


def _surface_distances(prediction_file: Path, reference_file: Path) -> tuple[list[float], int]:
    """Mean symmetric distance of surfaces in mm per label, and how many labels were missed.

    A label that was missed altogether counts with the diagonal of the image: leaving it out would
    reward empty predictions.
    """
    import SimpleITK as sitk

    reference_image = sitk.ReadImage(str(reference_file))
    spacing = reference_image.GetSpacing()[::-1]
    reference = sitk.GetArrayFromImage(reference_image)
    prediction = sitk.GetArrayFromImage(sitk.ReadImage(str(prediction_file)))
    diagonal = float(np.linalg.norm(np.multiply(reference.shape, spacing)))
    distances, missed = [], 0
    for label in np.unique(reference[reference > 0]):
        if (prediction == label).any():
            distances.append(_mean_distance(prediction == label, reference == label, spacing))
        else:
            distances.append(diagonal)
            missed += 1
    return distances or [0.0 if not prediction.any() else diagonal], missed


def _mean_distance(one: np.ndarray, other: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Mean of the distances from each surface to the other; nothing outside both masks matters."""
    from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

    (box,) = find_objects((one | other).astype(np.uint8))
    one, other = one[box], other[box]
    surfaces = [mask & ~binary_erosion(mask) for mask in (one, other)]
    distances = [
        distance_transform_edt(~there, sampling=spacing)[here]
        for here, there in (surfaces, surfaces[::-1])
    ]
    return float(np.concatenate(distances).mean())


def _table(source: Source, rows: list[dict[str, Any]]) -> list[str]:
    """A table in Markdown."""
    titles = [title for metric in METRICS.values() for title in (metric, "difference")]
    lines = [f"### {source.title}", "", f"| labels | start | {' | '.join(titles)} | missed |"]
    lines += ["| --- " * (len(titles) + 3) + "|"]
    for row in rows:
        share = f"{row['fraction']:.0%} ({row['cases']} cases validated)"
        for start in [name for name in TITLES if name in row]:
            cells = [share, TITLES[start]]
            for metric in METRICS:
                cells += _cells(row[start][metric], DECIMALS[metric])
            lines.append(f"| {' | '.join(cells)} | {row[start]['missed']} |")
            share = ""
    return [*lines, ""]


def _cells(entry: dict[str, Any], decimals: int) -> list[str]:
    difference = ""
    if "difference" in entry:
        p_value = f"{entry['difference']['p_value']:.3g}"
        difference = f"{format_interval(entry['difference'], decimals)}, p {p_value}"
    return [format_interval(entry, decimals), difference]


def _plot(source: Source, rows: list[dict[str, Any]], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    shares = [100 * row["fraction"] for row in rows]
    for axis, (metric, title) in zip(axes, METRICS.items(), strict=True):
        for start in [name for name in TITLES if name in rows[0]]:
            entries = [row[start][metric] for row in rows]
            known = [e["value"] if e["low"] is None else e["low"] for e in entries]
            high = [e["value"] if e["high"] is None else e["high"] for e in entries]
            axis.plot(shares, [e["value"] for e in entries], "o-", label=TITLES[start])
            axis.fill_between(shares, known, high, alpha=0.2)
        axis.set(xlabel="labels (%)", ylabel=title, xscale="log")
        axis.set_xticks(shares, [f"{share:g}" for share in shares])
        axis.minorticks_off()
    axes[0].legend()
    figure.suptitle(f"{source.title}, mean with 95 % interval")
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
