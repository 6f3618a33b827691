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
    """Metrics at one fraction, over the cases that both starts have been validated on."""
    values = {start: _values(summaries[fraction]) for start, summaries in results.items()}
    cases = sorted(set(values["scratch"]) & set(values["pretrained"]))
    if not cases:
        return None
    weights = patient_weights(cases).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    row: dict[str, Any] = {"fraction": fraction, "cases": len(cases)}
    for metric in METRICS:
        one, two = (
            np.array([values[start][case][metric] for case in cases])
            for start in ("scratch", "pretrained")
        )
        resampled = [weights @ array for array in (one, two)]
        means = [float(array.mean()) for array in (one, two)]
        row[metric] = {
            "scratch": estimate(means[0], resampled[0]),
            "pretrained": estimate(means[1], resampled[1]),
            "difference": paired_difference(*means, *resampled),
        }
    row["missed"] = {start: _missed(values[start], cases) for start in values}
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


def _missed(values: dict[str, dict[str, Any]], cases: list[str]) -> int:
    return sum(values[case]["missed"] for case in cases)


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
    lines = [f"### {source.title}", ""]
    lines += ["| labels | metric | from scratch | pretrained | difference | p |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        for metric, title in METRICS.items():
            entry = row[metric]
            decimals = 3 if metric == "dice" else 2
            cells = [
                format_interval(entry[name], decimals)
                for name in ("scratch", "pretrained", "difference")
            ]
            p_value = f"{entry['difference']['p_value']:.3g}"
            share = f"{row['fraction']:.0%} ({row['cases']} cases validated)"
            lines.append(f"| {share} | {title} | {' | '.join(cells)} | {p_value} |")
    missed = "; ".join(
        f"{row['fraction']:.0%}: {row['missed']['scratch']} and {row['missed']['pretrained']}"
        for row in rows
    )
    lines += ["", f"Labels missed altogether (from scratch and pretrained): {missed}.", ""]
    return lines


def _plot(source: Source, rows: list[dict[str, Any]], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    shares = [100 * row["fraction"] for row in rows]
    for axis, (metric, title) in zip(axes, METRICS.items(), strict=True):
        for start, name in (("pretrained", "pretrained"), ("scratch", "from scratch")):
            entries = [row[metric][start] for row in rows]
            known = [e["value"] if e["low"] is None else e["low"] for e in entries]
            high = [e["value"] if e["high"] is None else e["high"] for e in entries]
            axis.plot(shares, [e["value"] for e in entries], "o-", label=name)
            axis.fill_between(shares, known, high, alpha=0.2)
        axis.set(xlabel="labels (%)", ylabel=title, xscale="log")
        axis.set_xticks(shares, [f"{share:g}" for share in shares])
        axis.minorticks_off()
    axes[0].legend()
    figure.suptitle(f"{source.title}, mean with 95 % interval")
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
