"""A store written by hand: what loading needs, without raw data and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_write_bytes, atomic_write_json
from colipri.plans.augmentation import AugmentationSettings
from colipri.preprocessing.files import compress, write_reports
from colipri.preprocessing.store import CaseStore
from colipri.text.prompts.captions import CaptionSettings
from colipri.text.reports.report import Report
from colipri.text.structured_report import structure_report


def write_store(folder: Path, cases: Mapping[str, Mapping[str, Any]]) -> CaseStore:
    """Write a store.

    Args:
        folder: .../DatasetXXX/<data_identifier>.
        cases: case -> any of "array" ((C, S0, S1, S2) int16), "report" (text), "subject", "study",
            "split", "findings", "label" ((S0, S1, S2) int16).
    """
    entries, reports = {}, {}
    for name, case in cases.items():
        array = case.get("array")
        if array is not None:
            body_grid = np.ones([-(-n // 4) for n in array.shape[1:]], dtype=np.uint8)
            atomic_write_bytes(folder / f"{name}.b2nd", compress(array, (16, 16, 16)))
            atomic_write_bytes(folder / f"{name}_tokens.b2nd", compress(body_grid, None))
        text = case.get("report")
        if text is not None:
            reports[name] = structure_report(Report({"findings": text})).to_dict()
        entries[name] = {
            "subject": case.get("subject", name),
            "study": case.get("study", name),
            "split": case.get("split", ""),
            "dataset": "Dataset001_Test",
            "findings": case.get("findings", {}),
            "has_report": text is not None,
            "shape": list(array.shape) if array is not None else [1, 16, 16, 16],
            "files": {},
        }
        label = case.get("label")
        if label is not None:
            atomic_write_bytes(folder / f"{name}_seg.b2nd", compress(label[None], (16, 16, 16)))
            values, counts = np.unique(label[label > 0], return_counts=True)
            found = dict(zip(map(str, values), counts.tolist(), strict=True))
            entries[name]["label_voxels"] = found
    write_reports(folder / "reports.jsonl", reports)
    atomic_write_json(
        folder / "manifest.json",
        {
            "store_version": 1,
            "token_patch_size": [8, 8, 8],
            "cell_size": [4, 4, 4],
            "pad_value": -1024.0,
            "cases": entries,
            "failed": {},
        },
    )
    return CaseStore(folder)


class PatchOnly:
    """Of a configuration what a data set reads."""

    def __init__(self, patch_size: list[int], **more: Any) -> None:
        self.patch_size = patch_size
        self.captions = CaptionSettings.from_dict(more.get("captions", {}), "captions")
        self.augmentation = AugmentationSettings.from_dict(more.get("augmentation", {}))
