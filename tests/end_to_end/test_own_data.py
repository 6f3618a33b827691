"""The three commands on a data set put together by hand, as the documentation shows it:
a DICOM series, NRRD, MHA and NIfTI, reports as text and JSON, one scan without a report."""

import json
import shutil

import pytest
import SimpleITK as sitk
from commands import run
from conversion import real_scans
from dicom_writing import write_series

NAME = "Dataset101_ByHand"
RUN = "ColipriTrainer_CO__colipriPlans__3d_lowres/fold_0"
REPORTS = {
    "present": "FINDINGS: There is a left pleural effusion.\nIMPRESSION: Left pleural effusion.\n",
    "absent": "FINDINGS: No pleural effusion. The heart is of normal size.\n",
}


def by_hand(raw):
    """Six people: every shipped scan in another format, two of them in the test split."""
    folder = raw / NAME
    (folder / "images").mkdir(parents=True)
    (folder / "reportsTr").mkdir()
    rows = ["case,subject,study,split,image,report,Pleural effusion"]
    endings = (".nii.gz", ".nrrd", ".mha", ".nii.gz", ".nii.gz", ".nrrd")
    splits = ("train", "train", "val", "val", "test", "test")
    for number, (scan, ending, split) in enumerate(
        zip(real_scans()[:6], endings, splits, strict=True)
    ):
        case, positive = f"scan{number}", number % 2 == 0
        image = f"images/{case}{ending}"
        sitk.WriteImage(sitk.ReadImage(str(scan)), str(folder / image))
        text = REPORTS["present" if positive else "absent"] + f"Case number {number}."
        if number == 1:
            report = {"findings": text, "impression": "Normal."}
            (folder / f"reportsTr/{case}.json").write_text(json.dumps(report))
        else:
            (folder / f"reportsTr/{case}.txt").write_text(text)
        rows.append(f"{case},person{number},study{number},{split},{image},,{int(positive)}")
    write_series(folder / "images" / "series", range(5, 85))
    rows.append("series,person7,study7,train,images/series,,")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    description = {"name": "ByHand", "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    description |= {"numTraining": 5, "findings": ["Pleural effusion"]}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.mark.slow
def test_three_commands(workspace, tmp_path):
    folder = by_hand(workspace.raw)
    planned = run(
        *("colipri_plan_and_preprocess", "-d", "101", "--verify_dataset_integrity"),
        *("-c", "3d_lowres", "-gpu_memory_target", "2", "-np", "2"),
    )
    assert planned.returncode == 0, planned.stdout + planned.stderr
    store = workspace.preprocessed / NAME / "colipriPlans_3d_lowres"
    assert {p.stem for p in store.glob("*.b2nd") if not p.stem.endswith("_tokens")} == {
        *(f"scan{n}" for n in range(6)),
        "series",
    }
    assert "colipri_train 101 3d_lowres 0" in planned.stdout

    trained = run(
        *("colipri_train", "101", "3d_lowres", "0", "-tr", "ColipriTrainer_CO", "-device", "cpu"),
        *("--epochs", "2", "--iterations_per_epoch", "2"),
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    checkpoint = workspace.results / NAME / RUN / "checkpoint_final.pth"

    result = tmp_path / "zero_shot.json"
    judged = run(
        *("colipri_zero_shot", "-m", str(checkpoint), "-d", "101", "--split", "test"),
        *("-device", "cpu", "-o", str(result)),
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr
    auroc = json.loads(result.read_text())["macro_auroc"]
    assert 0.0 <= auroc["value"] <= 1.0

    new = run(
        *("colipri_zero_shot", "-m", str(checkpoint), "-i", str(folder / "images" / "series")),
        *("-f", "pleural effusion", "-device", "cpu", "-o", str(tmp_path / "new.json")),
    )
    assert new.returncode == 0, new.stdout + new.stderr
    shutil.rmtree(folder / "images")  # what was preprocessed suffices to train on
    again = run(
        *("colipri_train", "101", "3d_lowres", "0", "-tr", "ColipriTrainer_M", "-device", "cpu"),
        *("--epochs", "1", "--iterations_per_epoch", "1"),
    )
    assert again.returncode == 0, again.stdout + again.stderr
