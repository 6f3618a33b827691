"""The HTTP interface as 3D Slicer's module uses it, by real HTTP on loopback."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Iterator
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import colipri
from colipri.common.errors import ColipriError
from colipri.inference.inputs import find_images
from colipri.run import heatmap, serve
from colipri.serving import multipart
from colipri.serving import server as server_module
from colipri.serving.inference import Inference
from colipri.serving.multipart import Part, read_form, write_form
from colipri.serving.server import InferenceServer

FINDINGS = ["pleural effusion", "lung nodule"]


@pytest.fixture(scope="module")
def scan(tiny_folders: Any) -> Path:
    return sorted((tiny_folders.raw / "Dataset950_Tiny" / "imagesTr").glob("*.nii.gz"))[0]


@pytest.fixture(scope="module")
def server(
    tiny_folders: Any, scan: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InferenceServer]:
    predictor = colipri.load(tiny_folders.checkpoint, "cpu").predictor
    images = {image.name: image for image in find_images(scan)}
    folder = tmp_path_factory.mktemp("uploads")
    with InferenceServer(Inference(predictor, FINDINGS), folder, images, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def _ask(
    server: InferenceServer,
    method: str,
    path: str,
    fields: dict[str, Part] | None = None,
    token: str | None = None,
) -> tuple[int, str, bytes]:
    address = urlsplit(server.url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=60)
    kind, body = write_form(fields) if fields is not None else ("application/json", b"")
    prefix = address.path if token is None else f"/{token}"
    connection.request(method, prefix + path, body, {"Content-Type": kind})
    response = connection.getresponse()
    found = response.status, response.getheader("Content-Type", ""), response.read()
    connection.close()
    return found


def _upload(scan: Path, name: str = "scan.nii.gz") -> dict[str, Part]:
    return {"params": Part(b"{}"), "files": Part(scan.read_bytes(), name)}


def test_info_is_what_the_module_shows(server: InferenceServer) -> None:
    code, _, body = _ask(server, "GET", "/info/")
    content = json.loads(body)
    assert code == 200 and content["labels"] == FINDINGS
    assert set(content["models"]) == {"heat_map", "strongest_places", "scores"}
    assert content["models"]["strongest_places"]["labels"] == {FINDINGS[0]: 1, FINDINGS[1]: 2}


def test_a_session_from_upload_to_label_map(
    server: InferenceServer, scan: Path, tmp_path: Path
) -> None:
    """What Slicer does: upload, infer, read the label map on the voxels of the scan, end."""
    code, _, body = _ask(server, "PUT", "/session/", _upload(scan))
    session = json.loads(body)["session_id"]
    assert code == 200 and _ask(server, "GET", f"/session/{session}")[0] == 200
    params = {"result_extension": ".nrrd", "level": 0.7, "client_id": "user"}
    path = f"/infer/strongest_places?image=x&session_id={session}"
    code, kind, body = _ask(server, "POST", path, {"params": Part(json.dumps(params).encode())})
    assert code == 200, body
    form = read_form(kind, BytesIO(body), len(body), tmp_path)
    answer = json.loads(form["params"].content)
    assert set(answer["scores"]) == set(FINDINGS) and answer["label_names"][FINDINGS[1]] == 2
    assert form["file"].file_name == "strongest_places.nrrd"
    assert form["file"].path is not None
    file = form["file"].path.rename(tmp_path / "answer.nrrd")
    labels, image = sitk.ReadImage(str(file)), sitk.ReadImage(str(scan))
    assert labels.GetSize() == image.GetSize()
    assert np.allclose(labels.GetOrigin(), image.GetOrigin(), atol=1e-3)
    assert np.allclose(labels.GetDirection(), image.GetDirection(), atol=1e-4)
    assert set(np.unique(sitk.GetArrayFromImage(labels))) <= {0, 1, 2}
    assert sitk.GetArrayFromImage(labels).any()
    assert _ask(server, "DELETE", f"/session/{session}")[0] == 200
    assert _ask(server, "GET", f"/session/{session}")[0] == 404
    assert list(server.uploads.folder.iterdir()) == []


def test_a_heat_map_is_that_of_the_command(
    server: InferenceServer, tiny_folders: Any, scan: Path, tmp_path: Path
) -> None:
    path = f"/infer/heat_map?image={find_images(scan)[0].name}&output=image"
    params = {"finding": "cardiomegaly"}
    code, _, body = _ask(server, "POST", path, {"params": Part(json.dumps(params).encode())})
    assert code == 200
    (tmp_path / "a.nii.gz").write_bytes(body)
    words = ["-m", tiny_folders.checkpoint, "-device", "cpu", "-i", scan, "-f", "cardiomegaly"]
    assert heatmap.main([str(word) for word in [*words, "-o", tmp_path / "b.nii.gz"]]) == 0
    found, expected = (nib.load(tmp_path / f"{name}.nii.gz") for name in "ab")
    assert np.array_equal(found.get_fdata(), expected.get_fdata())
    assert np.array_equal(found.affine, expected.affine)


def test_scores_come_as_json(server: InferenceServer, scan: Path) -> None:
    fields = {"file": Part(scan.read_bytes(), "a b/../../c.nii.gz"), "params": Part(b"{}")}
    code, kind, body = _ask(server, "POST", "/infer/scores?image=y", fields)
    assert (code, kind) == (200, "application/json")
    assert all(0 < value < 1 for value in json.loads(body)["scores"].values())


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/infer/heat_map?image=case_000", {"params": Part(b"{}")}, "a heat map is of one finding"),
        ("/infer/other?image=case_000", {"params": Part(b"{}")}, "there is no model other"),
        ("/infer/scores?image=x", {"params": Part(b"{")}, "params is not JSON"),
        ("/infer/scores?image=x", {"params": Part(b"[]")}, "must be a JSON object"),
        ("/infer/scores?image=../../etc/passwd", {"params": Part(b"{}")}, "there is no scan"),
        ("/infer/scores?image=case_000", {"params": Part(b'{"finding": " "}')}, "name findings"),
        (
            "/infer/strongest_places?image=case_000",
            {"params": Part(b'{"level": 7}')},
            "level must be above 0",
        ),
        (
            "/infer/scores?image=case_000",
            {"params": Part(b'{"result_extension": ".exe"}')},
            "must be one of",
        ),
        ("/infer/scores", {"file": Part(b"x", "photo.jpg")}, "the file is not an image"),
        ("/infer/scores", {"file": Part(b"", "scan.nii.gz")}, "the file of the scan is empty"),
        ("/infer/scores", {"file": Part(b"not a file")}, "the form holds no file"),
        ("/infer/scores", {"params": Part(b"x" * (2 << 20))}, "is larger than 1 MB"),
        ("/infer/scores", {str(n): Part(b"x") for n in range(70)}, "more than 64 fields"),
        ("/infer/scores", {"file": Part(b"x", "broken.nii.gz")}, "scan.nii.gz"),
    ],
)
def test_wrong_requests_are_one_line(
    server: InferenceServer, path: str, fields: dict[str, Part], message: str
) -> None:
    code, _, body = _ask(server, "POST", path, fields)
    detail = json.loads(body)["detail"]
    assert code == 400 and message in detail and "\n" not in detail


def test_only_who_knows_the_token_is_answered(
    server: InferenceServer, monkeypatch: pytest.MonkeyPatch, scan: Path
) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert _ask(server, "GET", "/info/", token="wrong")[0] == 403
    assert _ask(server, "GET", "/info/", token=quote("é"))[0] == 403
    assert _ask(server, "GET", "/train/")[0] == 404
    monkeypatch.setattr(server_module, "LARGEST_UPLOAD", 1000)
    code, _, body = _ask(server, "PUT", "/session/", _upload(scan))
    assert code == 400 and b"larger than" in body


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_form_is_read_in_pieces(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the pieces fall, also with beginnings of the boundary in the file."""
    monkeypatch.setattr(multipart, "_PIECE", piece)
    kind, body = write_form({"params": Part(b"{}"), "file": Part(b"?", "a.nii.gz")})
    boundary = b"\r\n--" + kind.partition("boundary=")[2].encode()
    content = b"\r\n".join([boundary[:-1], b"", boundary[:5] * 3, b"--", b"\r\n\r\n"])
    body = body.replace(b"?", content)
    form = read_form(kind, BytesIO(body + b"next request"), len(body), tmp_path)
    assert form["params"].content == b"{}" and form["file"].path is not None
    assert form["file"].path.read_bytes() == content
    for end in range(0, len(body) - 4, 5):
        with pytest.raises(ColipriError, match="ended early"):
            read_form(kind, BytesIO(body[:end]), len(body), tmp_path)


def test_an_upload_is_not_kept_in_memory(tmp_path: Path) -> None:
    size = 64 << 20
    kind, body = write_form({"file": Part(b"?", "a.nii.gz")})
    begin, end = body.split(b"?")

    class Stream(BytesIO):
        """As long as it is asked for, made as it is read."""

        def __init__(self) -> None:
            self.place = 0

        def read(self, count: int | None = -1) -> bytes:
            assert count is not None and 0 < count <= 1 << 20
            made = bytearray(count)
            for start, part in ((0, begin), (len(begin) + size, end)):
                for number, sign in enumerate(part):
                    if 0 <= start + number - self.place < count:
                        made[start + number - self.place] = sign
            self.place += count
            return bytes(made)

    tracemalloc.start()
    form = read_form(kind, Stream(), len(begin) + size + len(end), tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert form["file"].path is not None and form["file"].path.stat().st_size == size
    assert peak < 8 << 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is full")
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart.secrets, "token_hex", lambda _: "full")
    (tmp_path / "full").symlink_to("/dev/full")
    kind, body = write_form({"file": Part(bytes(100), "a.nii.gz")})
    with pytest.raises(ColipriError, match="No space left on device"):
        read_form(kind, BytesIO(body), len(body), tmp_path)


def test_old_uploads_make_room(server: InferenceServer, scan: Path) -> None:
    names = [f"scan {number}" for number in range(server.uploads.most + 2)]
    for name in names:
        form = {"params": Part(b"{}"), "file": Part(scan.read_bytes(), "s.nii.gz")}
        assert _ask(server, "PUT", f"/datastore/?image={quote(name)}", form)[0] == 200
    kept = [name for name in names if server.uploads.find(name) is not None]
    assert kept == names[2:]
    assert len(list(server.uploads.folder.iterdir())) == server.uploads.most


def test_a_port_in_use_is_one_line(
    server: InferenceServer, tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    port = str(server.server_address[1])
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-f", "effusion", "--port", port]
    assert serve.main(words) == 1
    assert f"the port {port} cannot be used" in capsys.readouterr().err
