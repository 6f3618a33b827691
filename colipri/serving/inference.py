"""What a client asks of a scan: a heat map or a label map of findings, and their scores."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

import colipri
from colipri.common.errors import ColipriError
from colipri.inference.heatmap_files import HeatMap, heat_maps, write_nifti
from colipri.inference.inputs import ImageInput
from colipri.inference.predictor import ColipriPredictor

HEAT_MAP, STRONGEST, SCORES = "heat_map", "strongest_places", "scores"
_ENDINGS = (".nii.gz", ".nii", ".nrrd")
_LEVEL = 0.5  # of the largest value of a map
_DESCRIPTIONS = {
    HEAT_MAP: "where a scan is like a finding: cosine present - absent (one finding, float)",
    STRONGEST: "label map of the places above a share of each map's largest value; no segmentation",
    SCORES: "zero-shot probabilities of the whole scan; no file",
}


@dataclass(frozen=True)
class Result:
    """What comes back.

    Attributes:
        file_name: of the result; "" if there is none.
        content: of the file.
        params: scores, and what the file holds.
    """

    file_name: str
    content: bytes
    params: dict[str, Any]


class Inference:
    """Answers requests one after the other.

    Args:
        predictor: the model.
        findings: that are offered; a client may ask for others.
    """

    def __init__(self, predictor: ColipriPredictor, findings: Sequence[str]) -> None:
        self.predictor, self.findings = predictor, list(findings)
        self._lock = threading.Lock()

    def info(self) -> dict[str, Any]:
        """Return the answer to /info/, in MONAI Label's form."""
        labels = {name: number for number, name in enumerate(self.findings, start=1)}
        settings = {"findings": self.findings, "level": _LEVEL}
        models = {
            name: {
                "type": "classification" if name == SCORES else "segmentation",
                "labels": labels,
                "dimension": 3,
                "description": text,
                "config": settings,
            }
            for name, text in _DESCRIPTIONS.items()
        }
        return {
            "name": "colipri",
            "description": f"{self.predictor.plans.dataset_name}; for research only",
            "version": colipri.__version__,
            "labels": self.findings,
            "models": models,
            "trainers": {},
            "strategies": {},
            "scoring": {},
            "train_stats": {},
            "datastore": {},
        }

    def run(self, model: str, image: ImageInput, params: Mapping[str, Any]) -> Result:
        """Encode a scan and answer.

        Args:
            model: one of ``info()["models"]``.
            image: the scan.
            params: ``findings`` (or ``finding``), ``level``, ``result_extension``.

        Raises:
            ColipriError: an unknown model or parameter, or a scan that cannot be used.
        """
        if model not in _DESCRIPTIONS:
            raise ColipriError(f"there is no model {model}; there are {', '.join(_DESCRIPTIONS)}")
        findings = self._findings(params)
        ending = str(params.get("result_extension") or _ENDINGS[0])
        if ending not in _ENDINGS:
            raise ColipriError(f"result_extension must be one of {', '.join(_ENDINGS)}")
        if model == HEAT_MAP and len(findings) != 1:
            raise ColipriError("a heat map is of one finding; name it in params: finding")
        level = _level(params)
        with self._lock:
            maps = heat_maps(self.predictor, image, findings)
        scores = {heat.finding: heat.probability for heat in maps}
        answer: dict[str, Any] = {"scores": scores, "note": "for research only"}
        if model == SCORES:
            return Result("", b"", answer)
        names = {heat.finding: number for number, heat in enumerate(maps, start=1)}
        answer |= {"label_names": names} if model == STRONGEST else {}
        with tempfile.TemporaryDirectory() as folder:
            file = self._file(maps, image, Path(folder), level if model == STRONGEST else None)
            if ending == ".nrrd":
                file = _as_nrrd(file)
            elif ending == ".nii":
                nib.save(nib.load(file), file.with_suffix(""))
                file = file.with_suffix("")
            return Result(f"{model}{ending}", file.read_bytes(), answer)

    def _findings(self, params: Mapping[str, Any]) -> list[str]:
        asked = params.get("findings") or params.get("finding") or self.findings
        names = [asked] if isinstance(asked, str) else list(asked)
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise ColipriError("name findings in params: finding, or findings (a list of texts)")
        return names

    def _file(
        self, maps: Sequence[HeatMap], image: ImageInput, folder: Path, level: float | None
    ) -> Path:
        """The heat map of one finding, or labels 1, 2, ... where a map is above its level."""
        target = folder / "result.nii.gz"
        orientation = self.predictor.plans.orientation
        if level is None:
            write_nifti(maps[0], image, target, orientation)
            return target
        best: np.ndarray | None = None
        labels: np.ndarray | None = None
        for number, heat in enumerate(maps, start=1):
            write_nifti(heat, image, target, orientation)
            stored: Any = nib.load(target)
            values = np.asarray(stored.dataobj, dtype=np.float32)
            if labels is None or best is None:
                labels, best = np.zeros(values.shape, np.uint8), np.zeros_like(values)
            share = values / max(float(values.max()), 1e-6)
            stronger = (share >= level) & (share > best)
            labels[stronger], best[stronger] = number, share[stronger]
        picture = nib.Nifti1Image(labels, stored.affine)
        picture.header.set_xyzt_units("mm")
        nib.save(picture, target)
        return target


def _level(params: Mapping[str, Any]) -> float:
    try:
        level = float(params.get("level", _LEVEL))
    except (TypeError, ValueError):
        level = 0.0
    if not 0 < level <= 1:
        raise ColipriError("level must be above 0 and at most 1")
    return level


def _as_nrrd(file: Path) -> Path:
    target = file.with_name("result.nrrd")
    sitk.WriteImage(sitk.ReadImage(str(file)), str(target))
    return target
