"""What a trained model of the learning table can do, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from command_line import call

# Before threads measure side by side: two of them must not be the first to import its lazy modules.
from transformers import PreTrainedTokenizerFast  # noqa: F401

from colipri.common.atomic import atomic_write_json, atomic_write_text, read_json
from colipri.evaluation.classification import classification_metrics

PROBE_STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C of the logistic regression; chosen on the val split


def measure(out: Path, checkpoint: Path, target: Path, steps: int, seed: int, data_id: int) -> None:
    """Zero-shot, retrieval and probe on the test split, as one JSON file.

    Args:
        steps: of the training; 0 for the model before the first, which follows from ``seed``.
    """
    if not steps:
        from colipri.checkpoints.baselines import save_untrained

        control = checkpoint.with_name("control_untrained.pth")
        save_untrained(checkpoint, control, seed)
        checkpoint = control
    target.parent.mkdir(exist_ok=True)
    content: dict[str, Any] = {"steps": steps, "probe": _probe(checkpoint, data_id)}
    for name, command in (("zero_shot", "colipri_zero_shot"), ("retrieval", "colipri_retrieve")):
        file = target.with_name(f"{target.stem}_{name}.json")
        arguments = ["-m", str(checkpoint), "-d", str(data_id), "--split", "test", "-o", str(file)]
        call(out / "logs" / f"{target.stem}_{name}.txt", command, *arguments)
        content[name] = read_json(file)
        file.unlink()
    atomic_write_json(target, content)


def _probe(checkpoint: Path, data_id: int) -> dict[str, Any]:
    """Linear probe per finding on the mean token; trained on train, strength chosen on val."""
    import torch

    from colipri.inference.predictor import ColipriPredictor
    from colipri.preprocessing.manifest import check_preprocessed

    predictor = ColipriPredictor.from_checkpoint(checkpoint, torch.device("cpu"))
    dataset = f"Dataset{data_id}_SemiSyntheticChest"
    store = check_preprocessed(dataset, predictor.plans, predictor.configuration.name)
    names = list(predictor.plans.findings)
    features: dict[str, list[np.ndarray]] = {split: [] for split in ("train", "val", "test")}
    labels: dict[str, list[list[float]]] = {split: [] for split in features}
    patients = []
    for case, record in store.manifest["cases"].items():
        tokens = predictor.encode_case(store, case).tokens
        features[record["split"]].append(tokens.mean(dim=0).numpy())
        known = record["findings"]
        labels[record["split"]].append([np.nan if known[n] is None else known[n] for n in names])
        if record["split"] == "test":
            patients.append(record["subject"])
    x = {split: np.stack(rows) for split, rows in features.items()}
    y = {split: np.asarray(rows, dtype=float) for split, rows in labels.items()}
    scores = np.stack([_fitted(x, y, finding) for finding in range(len(names))], axis=1)
    return classification_metrics(scores, y["test"], names, patients=patients)


def _fitted(x: dict[str, np.ndarray], y: dict[str, np.ndarray], finding: int) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = {split: ~np.isnan(y[split][:, finding]) for split in x}
    best, chosen = -1.0, None
    for strength in PROBE_STRENGTHS:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        probe.fit(x["train"][known["train"]], y["train"][known["train"], finding])
        val = y["val"][known["val"], finding]
        score = 0.0
        if len(set(val)) == 2:  # else: the strongest regularisation
            score = float(roc_auc_score(val, probe.decision_function(x["val"][known["val"]])))
        if score > best:
            best, chosen = score, probe
    assert chosen is not None
    result: np.ndarray = chosen.decision_function(x["test"])
    return result


def write_table(out: Path, names: list[str], folders: list[str]) -> None:
    """OUT/table.md and OUT/results.json of what is measured so far."""
    rows, results = [], {}
    for name, folder in zip(names, folders, strict=True):
        files = sorted((out / "measured").glob(f"{folder}_[0-9]*.json"))
        measured = [read_json(file) for file in files if file.stem[len(folder) + 1 :].isdigit()]
        if measured:
            columns = [_column(m) for m in measured]
            results[name] = columns
            cells = [_cell([c[key] for c in columns]) for key in columns[0]]
            rows.append(
                f"| {name} | {measured[0]['steps']} | {len(measured)} | {' | '.join(cells)} |"
            )
    lines = [
        "| run | steps | seeds | zero-shot macro AUROC | recall@5 image to report "
        "| probe macro AUROC |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "Value and 95 % interval over the test studies of the first seed; in parentheses the other "
        "seeds' values. Chance: 0.5, recall@5 5 / number of test studies.",
        "",
    ]
    atomic_write_text(out / "table.md", "\n".join(lines))
    atomic_write_json(out / "results.json", results)


def _column(measured: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        "zero_shot": measured["zero_shot"]["macro_auroc"],
        "recall": measured["retrieval"]["image_to_text"]["recall_at_5"],
        "probe": measured["probe"]["macro_auroc"],
    }


def _cell(values: list[dict[str, float]]) -> str:
    first, others = values[0], values[1:]
    text = f"{first['value']:.3f} [{first['low']:.3f}, {first['high']:.3f}]"
    return text + (f" ({', '.join(format(v['value'], '.3f') for v in others)})" if others else "")
