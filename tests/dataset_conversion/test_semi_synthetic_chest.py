"""The semi-synthetic chest set: seeded, resumable, honest about anatomy, labels and words."""

import csv
import hashlib
import itertools
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from commands import run, run_until

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.semi_synthetic_chest.build import build_dataset, plan_studies
from colipri.dataset_conversion.semi_synthetic_chest.findings import FINDING_NAMES
from colipri.dataset_conversion.semi_synthetic_chest.montage import save_montage
from colipri.dataset_conversion.semi_synthetic_chest.people import lung_box, place_in, towards
from colipri.dataset_conversion.semi_synthetic_chest.sources import load_source, source_names
from colipri.text.reports.report import read_report
from colipri.text.structured_report import structure_report

NAME = "Dataset901_SemiSyntheticChest"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / NAME
    build_dataset(folder, "SemiSyntheticChest", 40, 3, 1)
    return folder


def rows_of(folder):
    with open(folder / "cases.csv", newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def volume(folder, kind, row, ending=""):
    suffix = "Ts" if row["split"] == "test" else "Tr"
    image = sitk.ReadImage(str(folder / f"{kind}{suffix}" / f"{row['case']}{ending}.nii.gz"))
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))


def test_no_scan_is_in_two_splits():
    sources = {split: set(source_names(split)) for split in ("train", "val", "test")}
    assert all(sources.values())
    assert sum(len(names) for names in sources.values()) == len(set().union(*sources.values()))
    for plan in plan_studies(50, 0):
        assert plan.source in sources[plan.split]


def test_what_a_patient_may_really_have_is_neither_inserted_nor_labelled(built):
    """Otherwise the anatomy would tell the answer."""
    sources = {plan.identifier: load_source(plan.source) for plan in plan_studies(40, 3)}
    unknown = 0
    for row in rows_of(built):
        for name in sources[row["study"]].unknown:
            assert row[name] == ""
            unknown += 1
        assert all(row[n] for n in FINDING_NAMES if n not in sources[row["study"]].unknown)
    assert unknown


def test_every_validation_study_is_labelled_for_every_finding(built):
    """A threshold needs studies with and without each finding."""
    rows = [row for row in rows_of(built) if row["split"] == "val"]
    assert rows and all(row[name] in ("0", "1") for row in rows for name in FINDING_NAMES)
    assert not any(load_source(name).unknown for name in source_names("val"))


def test_reconstructions_share_a_study_and_its_labels(built):
    rows = rows_of(built)
    studies = {}
    for row in rows:
        studies.setdefault(row["study"], []).append(row)
    several = [group for group in studies.values() if len(group) > 1]
    assert several
    for first, second in several:
        assert [first[name] for name in FINDING_NAMES] == [second[name] for name in FINDING_NAMES]
        assert (
            volume(built, "images", first, "_0000").shape
            != volume(built, "images", second, "_0000").shape
        )


def test_masks_agree_with_labels(built):
    """What is labelled absent or unknown is nowhere in the mask; what is there is nearly always
    visible in it (a later finding may cover an earlier one)."""
    seen, missing = 0, 0
    for row in rows_of(built):
        present = set(np.unique(volume(built, "labels", row))) - {0}
        for value, name in enumerate(FINDING_NAMES, start=1):
            if row[name] == "1":
                seen += 1
                missing += value not in present
            else:
                assert value not in present, (row["case"], name)
    assert seen > 50
    assert missing <= 0.05 * seen


def test_images_are_hounsfield_units_with_air_and_tissue(built):
    for row in rows_of(built)[:6]:
        hu = volume(built, "images", row, "_0000")
        assert -1030 < hu.min() < -900  # some fields of view cut all of the air around away
        assert -60 < np.median(hu[(hu > -200) & (hu < 300)]) < 100  # fat and muscle


def test_reports_say_what_the_labels_say(built):
    """Read by the rules that training uses: no report denies what is present, or names as present
    what is absent or unknown."""
    words = json.loads(
        (Path(build_dataset.__code__.co_filename).parent / "reports.json").read_text()
    )["findings"]
    keys = {name: name.lower().replace(" ", "_") for name in FINDING_NAMES}
    judged = 0
    for row in rows_of(built):
        suffix = "Ts" if row["split"] == "test" else "Tr"
        found = list((built / f"reports{suffix}").glob(f"{row['case']}.*"))
        if not found:
            assert row["split"] == "train"
            continue
        report = structure_report(read_report(found[0]))
        positive = " ".join(report.with_polarity("positive")).lower()
        negative = " ".join(report.with_polarity("negative")).lower()
        for name in FINDING_NAMES:
            noun = words[keys[name]]["noun"].lower()
            if row[name] == "1":
                assert noun not in negative, (row["case"], name)
            else:
                assert noun not in positive, (row["case"], name)
            if row[name] == "":
                assert noun not in negative, (row["case"], name)
            judged += noun in positive or noun in negative
    assert judged > 100


def test_equal_seeds_give_equal_files_and_a_killed_build_is_finished(built, workspace, tmp_path):
    arguments = ["semi_synthetic_chest", "-d", "901", "-n", "SemiSyntheticChest"]
    arguments += ["--num_studies", "40", "--seed", "3", "-np", "1"]
    target = workspace.raw / NAME
    code, _ = run_until(
        lambda: len(list(target.glob("studies/*.json"))) >= 5,
        signal.SIGKILL,
        "colipri_convert_dataset",
        *arguments,
    )
    assert code == -signal.SIGKILL
    assert not (target / "cases.csv").exists()
    done = run("colipri_convert_dataset", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = digests(built)
    given = {name: digest for name, digest in digests(target).items() if ".partial-" not in name}
    assert {name: given[name] for name in expected} == expected


def test_another_seed_gives_other_images(built, tmp_path):
    other = tmp_path / NAME
    build_dataset(other, "SemiSyntheticChest", 4, 4, 1)
    name = "imagesTr/chest_0000_1_0000.nii.gz"
    assert (built / name).read_bytes() != (other / name).read_bytes()


def test_a_folder_started_with_other_settings_is_refused(built):
    before = digests(built)
    with pytest.raises(ColipriError, match="started with other settings"):
        build_dataset(built, "SemiSyntheticChest", 41, 3, 1)
    assert digests(built) == before


def test_too_few_studies(tmp_path):
    with pytest.raises(ColipriError, match="at least 4"):
        build_dataset(tmp_path / NAME, "X", 3, 0, 1)


def test_montage(built, tmp_path):
    save_montage(built, tmp_path / "montage.png", "train")
    assert (tmp_path / "montage.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def more_people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("more") / NAME
    build_dataset(folder, "SemiSyntheticChest", 8, 3, 1, more_people=True)
    return folder


def test_more_people_change_the_training_split_alone(more_people, tmp_path):
    plain = tmp_path / NAME
    build_dataset(plain, "SemiSyntheticChest", 8, 3, 1, more_people=False)
    ours, theirs = digests(more_people), digests(plain)
    train = {row["case"] for row in rows_of(plain) if row["split"] == "train"}
    for path, digest in theirs.items():
        if path.startswith("images"):
            assert (ours[path] != digest) == any(case in path for case in train), path
    assert json.loads((more_people / "generator.json").read_text())["more_people"] is True
    with pytest.raises(ColipriError, match="started with other settings"):
        build_dataset(more_people, "SemiSyntheticChest", 8, 3, 1, more_people=False)


def test_twins_are_one_chest_with_findings_of_their_own(more_people):
    by_study = {row["study"]: row for row in rows_of(more_people) if row["case"].endswith("_1")}
    differing = 0
    for number in range(0, 8, 2):
        first, second = (by_study[f"chest_{number + i:04d}"] for i in (0, 1))
        images = [volume(more_people, "images", row, "_0000") for row in (first, second)]
        assert images[0].shape == images[1].shape
        maps = [volume(more_people, "labels", row) for row in (first, second)]
        free = (maps[0] == 0) & (maps[1] == 0)
        difference = np.abs(images[0].astype(int) - images[1])[free]
        assert np.median(difference) < 80  # noise: other people's tissue lies hundreds of HU apart
        differing += any(first[name] != second[name] for name in FINDING_NAMES)
    assert differing >= 3


def test_a_person_between_two_has_a_shape_between_theirs():
    sources = [load_source(name) for name in source_names("train")]
    for first, second in itertools.permutations(sources, 2):
        points = np.stack(
            np.meshgrid(
                *[c + np.array([-30.0, 0.0, 30.0]) for c in lung_box(first)[0]], indexing="ij"
            )
        )
        assert np.array_equal(towards(points, first, second, 0.0), points)
        whole = towards(points, first, second, 1.0) - points
        half = towards(points, first, second, 0.5) - points
        assert np.allclose(half, whole / 2)
        assert 1 < np.abs(whole).max() < 120
        # there and back again is about where it began
        back = place_in(place_in(points, first, second), second, first)
        assert np.median(np.linalg.norm(back - points, axis=0)) < 8


def test_lungs_meet_lungs_through_the_maps():
    for first, second in itertools.permutations(map(load_source, source_names("train")), 2):
        index = np.argwhere((first.anatomy == 1) | (first.anatomy == 2))[::977].T
        points = (index * first.spacing[:, None] + first.origin[:, None])[..., None, None]
        there = place_in(points, first, second)[..., 0, 0]
        voxel = np.rint((there - second.origin[:, None]) / second.spacing[:, None]).astype(int)
        voxel = np.clip(voxel, 0, np.array(second.anatomy.shape)[:, None] - 1)
        met = np.isin(second.anatomy[tuple(voxel)], (1, 2)).mean()
        assert met > 0.85, (first.name, second.name, met)
