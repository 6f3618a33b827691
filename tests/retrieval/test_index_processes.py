"""Several processes fill an index as one does; what a killed one has finished is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import copy_scans

from colipri.common.errors import ColipriError
from colipri.inference.predictor import ColipriPredictor
from colipri.retrieval.index import ScanIndex, updating
from colipri.retrieval.index_processes import encode_share, update_by_processes
from colipri.retrieval.indexing import images_to_index, update_index
from colipri.run import index as index_command


@pytest.fixture
def scans(tiny: Any, tmp_path: Path) -> Path:
    """Three scans, and one that cannot be read."""
    return copy_scans(tiny.raw, tmp_path / "scans", "case_000b.nii.gz")


def _same(one: ScanIndex, two: ScanIndex) -> None:
    first, second = ({e.key: row for row, e in enumerate(i.entries)} for i in (one, two))
    assert first.keys() == second.keys()
    order = [second[key] for key in first]
    np.testing.assert_allclose(one.embeddings(), two.embeddings()[order], atol=1e-6)


def test_shares_make_up_the_whole(tiny: Any, scans: Path, tmp_path: Path) -> None:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint, "cpu")
    found = images_to_index(scans, 1)
    whole = update_index(predictor, tmp_path / "one", found).index
    folder = tmp_path / "three"

    def run() -> list[str]:
        with pytest.raises(ColipriError, match="another process is updating"), updating(folder):
            raise AssertionError("two processes hold the index")
        return [line for n in range(3) for line in encode_share(predictor, folder, found, n, 3)]

    done = update_by_processes(folder, found, run)
    assert done is not None and (done.added, done.changed, done.unchanged) == (3, 0, 0)
    assert len(done.problems) == 1 and done.problems[0].startswith("case_000b")
    _same(whole, done.index)
    assert not (folder / "processes").exists()
    # again: only what is missing is tried, and what is gone is removed
    (scans / "case_000_0000.nii.gz").unlink()
    again = update_by_processes(folder, images_to_index(scans, 1), run)
    assert again is not None and again.added == 0 and again.unchanged == 2
    assert again.removed == ("case_000",) and len(again.index.entries) == 2


def test_what_was_finished_is_kept(tiny: Any, scans: Path, tmp_path: Path) -> None:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint, "cpu")
    found = images_to_index(scans, 1)
    folder = tmp_path / "index"

    def one_is_killed() -> list[str]:
        encode_share(predictor, folder, found, 0, 2)
        raise ColipriError("process 1 of 2 was ended by SIGKILL")

    with pytest.raises(ColipriError, match="SIGKILL"):
        update_by_processes(folder, found, one_is_killed)
    first = len(ScanIndex(folder / "processes" / "0").entries)
    left: list[int] = []

    def run() -> list[str]:
        left.append(len(found) - len(ScanIndex(folder).entries))
        return encode_share(predictor, folder, found, 0, 1)

    done = update_by_processes(folder, found, run)
    assert first >= 1 and left == [len(found) - first]
    assert done is not None and len(done.index.entries) == 3 and done.added == 3 - first


def test_stopped_processes_leave_what_they_have(tiny: Any, scans: Path, tmp_path: Path) -> None:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint, "cpu")
    found = images_to_index(scans, 1)

    def run() -> None:
        encode_share(predictor, tmp_path / "index", found, 0, 2)

    assert update_by_processes(tmp_path / "index", found, run) is None
    assert len(ScanIndex(tmp_path / "index").entries) >= 1


def test_nothing_that_can_be_read(tiny: Any, tmp_path: Path) -> None:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint, "cpu")
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"no image")
    found = images_to_index(tmp_path / "scans", 1)
    folder = tmp_path / "index"
    with pytest.raises(ColipriError, match="no scan could be read: a"):
        update_by_processes(folder, found, lambda: encode_share(predictor, folder, found, 0, 1))


@pytest.mark.slow
def test_the_command(
    tiny: Any, scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(scans)]
    printed = []
    for name, more in (("one", []), ("two", ["-num_gpus", "2"])):
        assert index_command.main([*words, "-o", str(tmp_path / name), *more]) == 1
        captured = capfd.readouterr()
        lines = [line for line in captured.err.splitlines() if "error:" in line]
        assert len(lines) == 1 and lines[0].startswith("colipri_index: error: case_000b")
        printed.append(captured.out.replace(str(tmp_path / name), "INDEX"))
    assert printed[0] == printed[1] and "3 scans; 3 added" in printed[0]
    _same(ScanIndex(tmp_path / "one"), ScanIndex(tmp_path / "two"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "scans", "two"]
