"""An index holds what was encoded, grows by what is new, and survives whatever interrupts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import write_checkpoint

from colipri.common.errors import ColipriError
from colipri.inference.predictor import ColipriPredictor
from colipri.retrieval import fast_search, search
from colipri.retrieval.index import (
    Entry,
    ScanIndex,
    add_part,
    remove_scans,
    restore_scans,
    start_index,
    updating,
)
from colipri.retrieval.indexing import dataset_to_index, model_key, update_index
from colipri.retrieval.search import matching_rows, search_index
from colipri.run import index as index_command
from colipri.run import retrieve as retrieve_command

KEY = {"weights": "a", "text": "b", "preprocessing": "c", "window": []}


def _filled(folder: Path, rows: int = 5, width: int = 4) -> ScanIndex:
    index = start_index(folder, KEY, {"checkpoint": "model.pth"}, width)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(rows, width)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    entries = [
        Entry(f"k{n}", f"scan {n}", (f"/data/{n}",), "d", {"split": "train" if n % 2 else "test"})
        for n in range(rows)
    ]
    return add_part(index, entries, embeddings)


def test_the_exact_search_is_a_matrix_product(tmp_path: Path) -> None:
    index = _filled(tmp_path)
    queries = index.embeddings()[[3, 1]]
    hits, searched = search_index(index, queries, top=3)
    assert searched == 5
    similarity = queries @ index.embeddings().T
    for row, found in zip(similarity, hits, strict=True):
        order = np.argsort(-row)[:3]
        assert [hit.entry.name for hit in found] == [f"scan {n}" for n in order]
        np.testing.assert_allclose([hit.similarity for hit in found], row[order], atol=1e-6)


def test_conditions(tmp_path: Path) -> None:
    entries = _filled(tmp_path).entries
    assert list(matching_rows(entries, ["split=train"])) == [1, 3]
    assert list(matching_rows(entries, ["split!=train", "name=scan 4"])) == [4]
    with pytest.raises(ColipriError, match=r"nothing called 'spilt' .* known: name"):
        matching_rows(entries, ["spilt=train"])
    with pytest.raises(ColipriError, match="takes NAME=VALUE"):
        matching_rows(entries, ["train"])
    with pytest.raises(ColipriError, match="no scan of the index fulfils split=val"):
        search_index(ScanIndex(tmp_path), np.ones((1, 4)), 3, ["split=val"])


def test_a_changed_scan_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    index = _filled(tmp_path)
    newer = np.eye(4, dtype=np.float32)[:1]
    index = add_part(index, [Entry("k2", "scan 2", ("/data/2",), "new")], newer)
    assert len(index.entries) == 5
    assert index.known()["k2"] == "new"
    place = [entry.key for entry in index.entries].index("k2")
    assert np.array_equal(index.embeddings()[place], newer[0])


def test_a_part_that_was_not_finished_does_not_count(tmp_path: Path) -> None:
    index = _filled(tmp_path)
    (tmp_path / "parts" / "000002.safetensors").write_bytes(b"half of it")
    assert len(ScanIndex(tmp_path).entries) == 5
    index = add_part(index, [Entry("k9", "scan 9", ("/data/9",), "d")], np.eye(4)[:1])
    assert len(index.entries) == 6 and index.embeddings().shape == (6, 4)


def test_damage_is_named(tmp_path: Path) -> None:
    _filled(tmp_path)
    (tmp_path / "parts" / "000001.safetensors").write_bytes(b"broken")
    with pytest.raises(ColipriError, match=r"is damaged: 000001\.safetensors"):
        ScanIndex(tmp_path).embeddings()
    (tmp_path / "parts" / "000001.jsonl").write_text("{}\n")
    with pytest.raises(ColipriError, match=r"is damaged: 000001\.jsonl"):
        ScanIndex(tmp_path)
    (tmp_path / "index.json").write_text('{"format": "something else"}')
    with pytest.raises(ColipriError, match="is not an index of this colipri"):
        ScanIndex(tmp_path)


def test_only_one_process_updates_an_index(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from colipri.retrieval.index import updating\n"
        "with updating(Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with updating(tmp_path):
        other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "another process is updating the index" in other.stderr
    assert subprocess.run(command, check=False).returncode == 0


def test_a_killed_update_leaves_a_lock_that_does_not_hold(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from colipri.retrieval.index import updating\n"
        "with updating(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with updating(tmp_path):
        pass


def test_faiss_finds_the_same_where_it_searches_everything(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    index = _filled(tmp_path, rows=200, width=8)
    queries = index.embeddings()[:3]
    exact, _ = search_index(index, queries, 1)
    fast, _ = search_index(index, queries, 1, approximate=True)
    assert [h[0].entry.key for h in fast] == [h[0].entry.key for h in exact]


def test_faiss_clusters_are_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And again when the index has changed; conditions hold; files of older states go."""
    pytest.importorskip("faiss")
    index = _filled(tmp_path, rows=400, width=8)
    queries = index.embeddings()[:3]
    exact, _ = search_index(index, queries, 5, ["split=train"])
    whole_index = ScanIndex.embeddings
    read: list[int] = []
    monkeypatch.setattr(ScanIndex, "embeddings", lambda self: read.append(1) or whole_index(self))
    monkeypatch.setattr(fast_search, "_PROBES", 400)  # all clusters: nothing may be missed
    with caplog.at_level("INFO", "colipri"):
        for _ in range(3):
            fast, searched = search_index(index, queries, 5, ["split=train"], approximate=True)
            assert [[h.entry.key for h in hits] for hits in fast] == [
                [h.entry.key for h in hits] for hits in exact
            ]
            assert searched == 200
    assert len(read) == 1 and caplog.text.count("Clustering 400 scans") == 1
    (first,) = (tmp_path / "faiss").iterdir()
    index = remove_scans(index, ["k3"])
    fast, _ = search_index(index, queries, 400, approximate=True)
    assert "k3" not in {hit.entry.key for hit in fast[0]} and len(fast[0]) == 399
    (second,) = (tmp_path / "faiss").iterdir()
    assert second != first
    second.write_bytes(b"broken")
    with pytest.raises(ColipriError, match=r"\.index is damaged; delete it"):
        search_index(index, queries, 5, approximate=True)


def test_from_a_million_scans_on_faiss_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("faiss")
    index = _filled(tmp_path, rows=200, width=8)
    queries = index.embeddings()[:1]
    search_index(index, queries, 1)
    assert not (tmp_path / "faiss").exists()
    monkeypatch.setattr(search, "APPROXIMATE_FROM", 200)
    with caplog.at_level("INFO", "colipri"):
        search_index(index, queries, 1)
        assert "searching with faiss" in caplog.text and (tmp_path / "faiss").exists()
        monkeypatch.setattr(search, "find_spec", lambda name: None)
        search_index(index, queries, 1)
        assert "pip install faiss-cpu" in caplog.text


def test_what_is_gone_is_removed_and_may_come_back(tmp_path: Path) -> None:
    index = _filled(tmp_path)
    before = index.embeddings()
    index = remove_scans(index, ["k1", "k4"])
    assert [entry.key for entry in index.entries] == ["k0", "k2", "k3"]
    assert np.array_equal(index.embeddings(), before[[0, 2, 3]])
    assert index.removed() == {"k1": "d", "k4": "d"} and "k1" not in index.known()
    index = restore_scans(index, ["k4"])
    assert np.array_equal(index.embeddings(), before[[0, 2, 3, 4]])
    index = add_part(index, [Entry("k1", "scan 1", ("/data/1",), "new")], before[:1])
    assert index.known()["k1"] == "new" and index.removed() == {}


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
import colipri.retrieval.index as module
from colipri.retrieval.index import Entry, ScanIndex, add_part, updating
folder, name = Path(sys.argv[1]), sys.argv[2]
real = getattr(module, name)
def kill(*arguments, **options):
    if sys.argv[3] == "after":
        real(*arguments, **options)
    os.kill(os.getpid(), 9)
setattr(module, name, kill)
with updating(folder):
    add_part(ScanIndex(folder), [Entry("k9", "scan 9", ("/data/9",), "d")], np.eye(4)[:1])
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["save_file", "atomic_write_text", "atomic_write_json"])
def test_an_update_killed_at_any_step_leaves_an_index(
    tmp_path: Path, step: str, moment: str
) -> None:
    """The index is as before, or has the whole part; the same update then succeeds."""
    before = _filled(tmp_path).embeddings()
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), step, moment], check=False)
    assert done.returncode == -9
    index = ScanIndex(tmp_path)
    finished = (step, moment) == ("atomic_write_json", "after")
    assert len(index.entries) == len(index.embeddings()) == (6 if finished else 5)
    assert np.array_equal(index.embeddings()[:5], before)
    with updating(tmp_path):
        index = add_part(index, [Entry("k9", "scan 9", ("/data/9",), "d")], np.eye(4)[:1])
    assert len(index.entries) == len(index.embeddings()) == 6


def _run(capsys: pytest.CaptureFixture[str], main: Any, *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_from_data_set_and_folder_to_a_page(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user: index a data set, search by text, by image and with a condition, add a folder."""
    index = tmp_path / "index"
    model = ["-m", tiny.checkpoint, "-device", "cpu"]
    code, out, _ = _run(capsys, index_command.main, *model, "-d", "950", "-o", index, "--reports")
    assert code == 0 and "12 scans; 12 added, 0 changed, 0 were there" in out
    code, out, _ = _run(capsys, index_command.main, *model, "-d", "950", "-o", index)
    assert "12 scans; 0 added, 0 changed, 12 were there" in out

    page = tmp_path / "found.html"
    search = [*model, "--index", index, "--top", "3"]
    where = ["--where", "split=train", "Pleural effusion=1"]
    code, out, _ = _run(
        capsys, retrieve_command.main, *search, "-q", "effusion", *where, "-o", page
    )
    assert code == 0 and '"effusion" in' in out and "Pleural effusion" in out
    html = page.read_text()
    assert html.count("data:image/png") >= 6 and "There is a pleural effusion." in html
    assert "http://" not in html and "<script" not in html

    scans = sorted((tiny.raw / "Dataset950_Tiny" / "imagesTr").glob("*.nii.gz"))
    result = tmp_path / "found.json"
    code, _, _ = _run(capsys, retrieve_command.main, *search, "-q", scans[4], "-o", result)
    first = json.loads(result.read_text())["queries"][0]["found"][0]
    assert first["scan"] == "case_004" and first["similarity"] == pytest.approx(1, abs=1e-5)
    assert first["report"].startswith("No pleural effusion. There is a nodule of 7 mm.")

    folder = tmp_path / "new"
    folder.mkdir()
    shutil.copy(scans[0], folder / "a_0000.nii.gz")
    (folder / "b_0000.nii.gz").write_bytes(b"no image")
    code, out, err = _run(capsys, index_command.main, *model, "-i", folder, "-o", index)
    assert code == 1 and "13 scans; 1 added" in out
    assert err.startswith("colipri_index: error: b: ") and len(err.splitlines()) == 1
    (folder / "b_0000.nii.gz").unlink()
    shutil.copy(scans[1], folder / "a_0000.nii.gz")
    os.utime(folder / "a_0000.nii.gz", (1, 1))
    code, out, _ = _run(capsys, index_command.main, *model, "-i", folder, "-o", index)
    assert code == 0 and "13 scans; 0 added, 1 changed, 0 were there" in out

    (folder / "a_0000.nii.gz").rename(tmp_path / "a_0000.nii.gz")  # a drive that is not there
    code, out, _ = _run(capsys, index_command.main, *model, "-d", "950", "-o", index)
    assert code == 0 and "1 scans are gone and were removed: a" in out and ": 12 scans" in out
    (tmp_path / "a_0000.nii.gz").rename(folder / "a_0000.nii.gz")
    code, out, _ = _run(capsys, index_command.main, *model, "-i", folder, "-o", index)
    assert code == 0 and "13 scans; 0 added, 0 changed, 0 were there" in out
    assert "1 scans are back as they were" in out


def test_a_case_that_left_the_data_set_leaves_the_index(tiny: Any, tmp_path: Path) -> None:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    scans = dataset_to_index("950", "all", reports=False)
    update_index(predictor, tmp_path, scans, whole_dataset="Dataset950_Tiny")
    done = update_index(predictor, tmp_path, scans[1:], whole_dataset="Dataset950_Tiny")
    assert done.removed == (scans[0][1].name,) and len(done.index.entries) == 11
    done = update_index(predictor, tmp_path, scans[1:3])  # a part of it says nothing of the rest
    assert done.removed == () and len(done.index.entries) == 11


def test_images_that_are_refused_change_the_exit_code(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = sorted((tiny.raw / "Dataset950_Tiny" / "imagesTr").glob("*.nii.gz"))
    shutil.copy(scans[0], tmp_path / "good_0000.nii.gz")
    (tmp_path / "bad_0000.nii.gz").write_bytes(b"no image")
    words = ["-m", tiny.checkpoint, "-device", "cpu", "-i", tmp_path, "-q", "effusion"]
    code, out, err = _run(capsys, retrieve_command.main, *words, "-o", tmp_path / "r.json")
    assert code == 1 and "in 1 scans" in out and "good" in out
    assert err.startswith("colipri_retrieve: error: ") and len(err.splitlines()) == 1
    assert json.loads((tmp_path / "r.json").read_text())["problems"][0]["image"] == "bad"


def test_another_model_and_wrong_arguments(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_index(tmp_path / "index", KEY, {"checkpoint": "model.pth"}, 32)
    model = ["-m", write_checkpoint(tmp_path / "best.pth"), "-device", "cpu"]
    search = [*model, "--index", tmp_path / "index"]
    predictor = ColipriPredictor.from_checkpoint(tmp_path / "best.pth")
    start_index(tmp_path / "empty", model_key(predictor), predictor.describe(), 32)
    good = [*model, "--index", tmp_path / "empty"]
    for words, message in (
        ([*search, "-q", "effusion"], "do not belong together: the index was made with"),
        (search, "--index needs something to look for"),
        ([*good, "-q", ""], "an empty text cannot be looked for"),
        ([*good, "-q", tmp_path / "gone.nii.gz"], "there is no image"),
        ([*good, "-q", "effusion"], "the index is empty"),
        ([*search, "-q", "effusion", "-d", "950"], "--index takes neither"),
        ([*model, "--index", tmp_path / "none", "-q", "effusion"], "there is no index in"),
        ([*model, "-i", tmp_path, "-q", "effusion", "--where", "a=b"], "need an index"),
    ):
        code, _, err = _run(capsys, retrieve_command.main, *words)
        assert code == 1 and message in err and len(err.splitlines()) == 1, err
