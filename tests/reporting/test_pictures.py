"""Whose heat maps the page shows: test cases if there are any, and it says whose they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
from tiny_model import DATASET, write_checkpoint

from colipri.common.page_parts import Gallery, Paragraph
from colipri.inference.label_maps import LabelMaps
from colipri.inference.labelled_cases import collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.reporting.pictures import PictureContext, unseen_scans_section


@pytest.mark.parametrize(
    ("fold", "test_cases", "whose"),
    [
        (0, True, "test scans, which played no part"),
        (0, False, "validation scans, which were not trained on"),
        ("all", False, "scans that were trained on"),
    ],
)
def test_data_sets_with_and_without_a_test_split(
    tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fold: int | str,
    test_cases: bool,
    whose: str,
) -> None:
    preprocessed = tmp_path / "preprocessed"
    shutil.copytree(tiny.preprocessed, preprocessed)
    (preprocessed / DATASET / "splits_final.json").unlink(missing_ok=True)
    manifest = preprocessed / DATASET / "colipriPlans_3d_lowres" / "manifest.json"
    content = json.loads(manifest.read_text())
    if not test_cases:
        for record in content["cases"].values():
            record["split"] = ""
    manifest.write_text(json.dumps(content))
    monkeypatch.setenv("colipri_preprocessed", str(preprocessed))
    init = {"configuration": "3d_lowres", "fold": fold, "options": {}}
    predictor = ColipriPredictor.from_checkpoint(
        write_checkpoint(tmp_path / "c.pth", init_args=init)
    )
    section = unseen_scans_section(PictureContext.of_dataset(predictor, DATASET))
    assert section is not None
    assert section.title == ("Scans and texts" if fold == "all" else "Unseen scans")
    assert whose in section.summary


def test_outline_is_where_the_label_map_says(tiny: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The label is drawn in the image's own grid, stored in another order of axes."""
    raw = tmp_path / "raw"
    shutil.copytree(tiny.raw, raw)
    monkeypatch.setenv("colipri_raw", str(raw))
    folder = raw / DATASET
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] = {"background": 0, "pleural_effusion": 3}
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "labelsTr").mkdir()
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    source = predictor.untrained()
    collection = collect_cases(source, DATASET)
    for name in collection.cases:
        image = sitk.ReadImage(str(folder / "imagesTr" / f"{name}_0000.nii.gz"))
        label = sitk.Cast(image > -100, sitk.sitkUInt8) * 3
        sitk.WriteImage(sitk.DICOMOrient(label, "RAS"), str(folder / "labelsTr" / f"{name}.nii.gz"))
    context = PictureContext.of_dataset(predictor, DATASET)
    case = next(iter(collection.cases.values()))
    volume = case.volume()
    mask = context.labels.mask(volume, "Pleural effusion", (0, 0, 0), volume.shape)
    assert mask is not None and mask.any() and not mask.all()
    values = volume.crop((0, 0, 0), [-(-n // 8) * 8 for n in volume.shape])[0][0]
    values = values[tuple(map(slice, volume.shape))]
    assert (mask == (values > -100)).mean() > 0.98

    section = unseen_scans_section(context)
    assert section is not None
    text = " ".join(part.text for part in section.parts if isinstance(part, Paragraph))
    assert "of 1 scans" in text and "blue outline" in text
    (gallery,) = (part for part in section.parts if isinstance(part, Gallery))
    (card,) = gallery.cards
    assert len(card.pictures) == 4 and all(p.outline is not None for p in card.pictures)
    assert card.pictures[0].outline.shape == card.pictures[0].pixels.shape[:2]


def test_what_is_absent_has_no_heat_map(tiny: Any) -> None:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    context = PictureContext.of_dataset(predictor, DATASET)
    cases = {
        name: replace(case, findings={**case.findings, "No Finding": 1})
        for name, case in context.collection.cases.items()
    }
    context = replace(context, collection=replace(context.collection, cases=cases))
    section = unseen_scans_section(context)
    assert section is not None and "No map of No Finding" in str(section.parts[0].text)
    (gallery,) = (part for part in section.parts if isinstance(part, Gallery))
    assert len(gallery.cards) == 1


def test_data_sets_without_label_maps_have_no_outlines(tiny: Any, monkeypatch: Any) -> None:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    context = PictureContext.of_dataset(predictor, DATASET)
    section = unseen_scans_section(context)
    assert section is not None and "outline" not in str(section.parts[0].text)
    monkeypatch.setenv("colipri_raw", "/nowhere")
    assert LabelMaps.of_dataset(DATASET, "SAR") == LabelMaps()
