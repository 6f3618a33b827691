"""Every command of these pages runs as it is printed, from the first to the last, on real scans."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk
from conversion import real_scans
from dicom_writing import write_series
from documentation.pages import Reader, code_blocks, commands_of

pytestmark = pytest.mark.slow

HAND = "how_to_use_your_own_data.md"
REPORTS = {
    "1": "FINDINGS: There is a left pleural effusion. Scan {}.\nIMPRESSION: Pleural effusion.\n",
    "0": "FINDINGS: No pleural effusion. Scan {}. The heart is of normal size.\n",
}
# "To see the whole way in minutes, or without a GPU": how_to_use_your_own_data.md
SHORT = [
    (r"-gpu_memory_target 24", "-gpu_memory_target 2"),
    (r"^(colipri_train .*?)(\s#.*)?$", r"\1 --epochs 2 --iterations_per_epoch 2 -device cpu"),
    (
        r"^(colipri_(zero_shot|retrieve|encode|generate_reports|report) .*?)(\s#.*)?$",
        r"\1 -device cpu",
    ),
]
# paths that stand for the reader's own
PLACES = ("/data/", "/fast/", "/archive/", "/path/to/")


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Someone with an empty disk, and the places that the pages name below it."""
    for place in PLACES:
        (tmp_path / place.strip("/")).mkdir(parents=True, exist_ok=True)
    names = {
        f"{before}{place}": f"{before}{tmp_path}{place}" for place in PLACES for before in "= "
    }
    return Reader(tmp_path, names=names, shorter=list(SHORT))


def scan_as(target: Path, number: int) -> None:
    """A real scan in the format of the target's name: a file, or a folder of DICOM slices."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix:
        scans = real_scans()
        sitk.WriteImage(sitk.ReadImage(str(scans[number % len(scans)])), str(target))
    else:
        write_series(target, range(5, 85))


def by_hand(raw: Path) -> Path:
    """The data set of how_to_use_your_own_data.md, with the two files that the page prints."""
    folder = raw / "Dataset101_ChestCT"
    (folder / "reportsTr").mkdir(parents=True)
    description = code_blocks(HAND, "`dataset.json`:")[0]
    (folder / "dataset.json").write_text(description)
    table = code_blocks(HAND, "`cases.csv`: paths")[0]
    (folder / "cases.csv").write_text(table + "\n")
    assert json.loads(description)["numTraining"] == len(table.splitlines()) - 1
    for number, row in enumerate(table.splitlines()[1:]):
        case, _, _, _, image, _, label = row.split(",")
        scan_as(folder / image, number)
        if label and case == "c":
            report = {"findings": REPORTS[label].format(number), "impression": "See above."}
            (folder / f"reportsTr/{case}.json").write_text(json.dumps(report))
        elif label:
            (folder / f"reportsTr/{case}.txt").write_text(REPORTS[label].format(number))
    return folder


def folder_of_scans(folder: Path) -> None:
    """Two NIfTI files with reports beside them, as the converter `folder` expects."""
    for number, split in enumerate(("train", "val")):
        scan_as(folder / split / f"person{number}" / "scan.nii.gz", number)
        report = REPORTS[str(number)].format(number)
        (folder / split / f"person{number}" / "scan.txt").write_text(report)


def planned(reader: Reader) -> None:
    """A data set that is planned and preprocessed."""
    by_hand(reader.folder("colipri_raw"))
    (line,) = (line for line in commands_of(HAND) if line.startswith("colipri_plan"))
    reader.run(line)


def trained(reader: Reader, trainer: str) -> Path:
    """The same, and a finished training; its best checkpoint."""
    planned(reader)
    (line,) = (line for line in commands_of(HAND) if line.startswith("colipri_train"))
    reader.run(f"{line} -tr {trainer}")
    (checkpoint,) = reader.folder("colipri_results").rglob("checkpoint_best.pth")
    return checkpoint


def test_your_own_data(reader: Reader) -> None:
    (reader.root / "archive" / "ct").mkdir()
    write_series(reader.root / "archive" / "ct" / "series", range(5, 85))
    folder_of_scans(reader.root / "data" / "scans")
    printed = commands_of(HAND)
    converters = [line for line in printed if line.startswith("colipri_convert_dataset")]
    for line in converters:
        reader.run(line)
        shutil.rmtree(reader.folder("colipri_raw"))
        reader.folder("colipri_raw").mkdir()
    by_hand(reader.folder("colipri_raw"))
    rest = [line for line in printed if line not in converters]
    assert [line.split()[0] for line in rest] == [
        "colipri_plan_and_preprocess",
        "colipri_train",
        "fold=$colipri_results/Dataset101_ChestCT/ColipriTrainer__colipriPlans__3d_lowres/fold_0",
        "colipri_zero_shot",
        "colipri_report",
    ]
    for line in rest:
        reader.run(line)
    fold = Path(reader.environment["fold"])
    result = json.loads((fold / "zero_shot_test.json").read_text())
    assert (fold / "report.html").is_file()
    assert 0.0 <= result["macro_auroc"]["value"] <= 1.0


def test_getting_started(reader: Reader) -> None:
    page = "getting_started.md"
    exports = [line for line in commands_of(page) if line.startswith("export ")]
    for line in exports:
        reader.run(line)
    assert reader.folder("colipri_preprocessed") == reader.root / "fast/colipri_preprocessed"
    by_hand(reader.folder("colipri_raw"))
    scan_as(reader.here / "scan.nii.gz", 0)
    scan_as(reader.here / "FOLDER" / "scan.nii.gz", 1)
    for line in commands_of(page):
        if line not in exports:
            reader.run(line)
    written = {path.name for path in Path(reader.environment["fold"]).iterdir()}
    assert {"zero_shot_test.json", "retrieval_test.json", "report.html"} <= written
    assert (reader.here / "embeddings.npz").is_file()


def test_training(reader: Reader) -> None:
    planned(reader)
    python = ("class", "import", "from")
    code = "\n".join(block for block in code_blocks("training.md") if block.startswith(python))
    (reader.root / "path/to/folder").mkdir()
    (reader.root / "path/to/folder/my_trainers.py").write_text(code)
    reader.follow("training.md")


def test_objectives(reader: Reader) -> None:
    checkpoint = trained(reader, "ColipriTrainer_CRM")  # R writes
    (reader.here / "checkpoint_best.pth").symlink_to(checkpoint)
    scan_as(reader.here / "SCANS" / "scan.nii.gz", 0)
    reader.follow("objectives.md")
    (line,) = (reader.here / "reports.jsonl").read_text().splitlines()
    assert json.loads(line)


def test_plans_explained(reader: Reader) -> None:
    planned(reader)
    code = next(b for b in code_blocks("plans_explained.md") if "class LongTextPlanner" in b)
    (reader.root / "path/to/folder").mkdir()
    (reader.root / "path/to/folder/my_planners.py").write_text(code)
    # two runs of one folder, and a plan for the same small machine as before
    reader.shorter += [
        (r"^(colipri_train .*)$", r"\1 --restart"),
        (r" batch_size=8", " batch_size=2"),
    ]
    reader.shorter += [(r"(plan_experiment -d 101) (--set|-pl)", r"\1 -gpu_memory_target 2 \2")]
    reader.follow("plans_explained.md")


def test_converters(reader: Reader) -> None:
    here, data = reader.here, reader.root / "data"
    scan_as(here / "a.nii.gz", 0)
    columns = "path,report,patient,accession,split,Pleural effusion,Cardiomegaly"
    (here / "scans.csv").write_text(f"{columns}\na.nii.gz,No effusion.,p1,s1,train,0,\n")
    folder_of_scans(data / "scans")
    liver = reader.folder("nnUNet_raw") / "Dataset003_Liver"
    lung = data / "Task06_Lung"
    for folder, ending in ((liver, "_0000.nii.gz"), (lung, ".nii.gz")):
        scan_as(folder / "imagesTr" / f"case{ending}", 1)
        scan_as(folder / "labelsTr" / "case.nii.gz", 1)
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1}}
    description |= {"numTraining": 1, "file_ending": ".nii.gz"}
    (liver / "dataset.json").write_text(json.dumps(description))
    pair = {"image": "./imagesTr/case.nii.gz", "label": "./labelsTr/case.nii.gz"}
    description = {"name": "Lung", "modality": {"0": "CT"}, "labels": {"0": "background"}}
    description |= {"numTraining": 1, "training": [pair], "test": []}
    (lung / "dataset.json").write_text(json.dumps(description))
    nnssl = reader.root / "nnssl_raw"
    (nnssl / "Dataset745_OpenMind").mkdir(parents=True)
    (nnssl / "Dataset101_ChestCT").mkdir()
    reader.environment["nnssl_raw"] = str(nnssl)
    printed = commands_of("converters.md")
    again = next(line for line in printed if "folder -i" in line)
    to_nnssl = next(line for line in printed if "to_nnssl -i" in line)
    raw = reader.folder("colipri_raw") / "Dataset101_ChestCT"
    for line in printed:
        if "openmind -i $nnssl_raw" in line:  # it reads what to_nnssl writes
            shutil.rmtree(raw)
            reader.run(again)
            reader.run(to_nnssl)
            written = nnssl / "Dataset101_ChestCT" / "pretrain_data.json"
            shutil.copy(written, nnssl / "Dataset745_OpenMind")
            shutil.copy(written, data)
        if "-d 101 -n ChestCT" in line:  # one number for several sources
            shutil.rmtree(raw, ignore_errors=True)
        reader.run(line)
    stores = reader.folder("colipri_preprocessed").glob("Dataset101_ChestCT/*/*.b2nd")
    assert [path for path in stores if not path.stem.endswith("_tokens")]
