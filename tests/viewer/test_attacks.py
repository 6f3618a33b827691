"""Attempts to reach the scans or to wear the server out; each is refused in one line."""

from __future__ import annotations

import gzip
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Prepared
from viewer.running import Running, start

from colipri.viewer import server as server_module
from colipri.viewer import uploads as uploads_module
from colipri.viewer.access import Access


def test_only_this_machine_is_listened_to(viewer: Running) -> None:
    assert viewer.server.server_address[0] == "127.0.0.1"
    own = socket.gethostbyname_ex(socket.gethostname())[2]
    for address in [one for one in own if not one.startswith("127.")]:
        with pytest.raises(OSError):
            socket.create_connection((address, viewer.port), timeout=2).close()


@pytest.mark.parametrize("path", ["/", "/state", "/static/viewer.js", "/{wrong}/state", "/%2e%2e/"])
def test_nothing_is_answered_without_the_token(viewer: Running, path: str) -> None:
    token = viewer.server.access.token
    reply = viewer.raw("GET", path.format(wrong=token[:-1] + "_"))
    assert reply.status in (403, 404)
    assert token.encode() not in reply.body and b"scan" not in reply.body


def test_tokens_are_long_and_differ() -> None:
    tokens = {Access().token for _ in range(50)}
    assert len(tokens) == 50 and all(len(token) >= 43 for token in tokens)  # 256 bits


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "127.0.0.1@evil.example"},
        {"Host": "[::1]:{port}"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["state", ""])
def test_other_sites_and_rebound_names_are_refused(
    viewer: Running, headers: dict[str, str], path: str
) -> None:
    """Even if they knew the token."""
    given = {name: value.format(port=viewer.port) for name, value in headers.items()}
    reply = viewer.raw("GET", viewer.base + path, headers=given)
    assert reply.status == 403 and "error" in reply.content


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "localhost:8888"])
def test_the_page_and_tunnels_are_served(viewer: Running, host: str) -> None:
    host = host.format(port=viewer.port)
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert viewer.raw("GET", f"{viewer.base}state", headers=headers).status == 200


def test_every_answer_forbids_the_outside(viewer: Running) -> None:
    for path in (viewer.base, f"{viewer.base}state", f"{viewer.base}nothing", "/"):
        headers = viewer.raw("GET", path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "connect-src 'self'" in policy
        assert "unsafe" not in policy and "*" not in policy and "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Server"].strip() == "colipri"


@pytest.mark.parametrize(
    "path",
    [
        "static/../application.py",
        "static/..%2fapplication.py",
        "static/%2e%2e/application.py",
        "static/..\\application.py",
        "static//etc/passwd",
        "static/%00viewer.js",
        "static/index.html/../../../../etc/passwd",
        "voxels/../../etc/passwd",
        "voxels/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "map/s1/../../x",
        "../state",
    ],
)
def test_paths_lead_nowhere(viewer: Running, path: str) -> None:
    reply = viewer.raw("GET", viewer.base + path)
    assert reply.status in (400, 404) and "error" in reply.content
    assert b"root:" not in reply.body and b"import" not in reply.body


def test_a_ticket_opens_the_page_once(viewer: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    path = viewer.server.access.new_ticket()
    first, second = viewer.raw("GET", path), viewer.raw("GET", path)
    assert first.status == 303 and first.headers["Location"] == viewer.base
    assert second.status == 403
    late = viewer.server.access.new_ticket()
    now = time.monotonic()
    monkeypatch.setattr("colipri.viewer.access.time.monotonic", lambda: now + 61)
    assert viewer.raw("GET", late).status == 403
    assert viewer.raw("GET", "/open/").status == 403


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_are_refused(viewer: Running, method: str) -> None:
    assert viewer.raw(method, f"{viewer.base}state").status == 501


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "no JSON"),
        (b"[" * 60_000, "no JSON"),
        (b"[1]", "no JSON object"),
        (b"\xff\xfe", "no JSON"),
        (b'{"kind": 1, "scan": "s1"}', "must be texts"),
        (b'{"kind": "close", "scan": "s1"}', "no such work"),
        (b'{"kind": "__init__", "scan": "s1"}', "no such work"),
        (b'{"kind": "open", "scan": "../s1"}', "no such scan"),
    ],
)
def test_odd_requests(viewer: Running, body: bytes, message: str) -> None:
    reply = viewer.raw("POST", f"{viewer.base}jobs", body)
    assert reply.status == 400 and message in reply.content["error"]


def _send(viewer: Running, content: bytes, wait: float = 5.0) -> bytes:
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=wait) as connection:
        connection.sendall(content)
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found


def test_lies_about_lengths(viewer: Running) -> None:
    host = f"Host: 127.0.0.1:{viewer.port}\r\n"
    for header, status in (
        ("Content-Length: 99999999999", b"413"),
        ("Content-Length: -1", b"400"),
        ("Content-Length: 1e3", b"400"),
        ("Content-Length: 9999999999999999999999", b"400"),
        ("Transfer-Encoding: chunked", b"411"),
    ):
        request = f"POST {viewer.base}jobs HTTP/1.1\r\n{host}{header}\r\n\r\n"
        assert _send(viewer, request.encode()).split()[1] == status, header
    # a second request hidden in the body of a refused one is not answered
    hidden = f"GET {viewer.base}state HTTP/1.1\r\n{host}\r\n"
    request = f"POST {viewer.base}nothing HTTP/1.1\r\n{host}Content-Length: {len(hidden)}\r\n\r\n"
    assert _send(viewer, (request + hidden).encode()).count(b"HTTP/1.1") == 1


def test_no_request_at_all(viewer: Running) -> None:
    for content in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"GET\r\n\r\n", b"A" * 70_000):
        answer = _send(viewer, content)
        assert b"A" * 100 not in answer and viewer.base.encode() not in answer
    assert viewer.ask("GET", "state").status == 200


def test_a_request_that_never_ends_is_closed(
    viewer: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_HEADER_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        try:
            while time.monotonic() - began < 5:
                connection.sendall(b"X-Slow: 1\r\n")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - began < 4
    assert viewer.ask("GET", "state").status == 200


def test_many_connections_do_not_stop_the_server(viewer: Running) -> None:
    silent = [socket.create_connection(("127.0.0.1", viewer.port)) for _ in range(100)]
    for one in silent:
        one.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            assert viewer.ask("GET", "state").status == 200
            return
        except (ConnectionError, OSError):
            time.sleep(0.1)
    raise AssertionError("the server does not answer any more")


# -------------------------------------------------------------------- uploads


def _nifti(scans: Path) -> bytes:
    return (scans / "plain.nii.gz").read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "../../../../tmp/evil.nii.gz",
        "/etc/evil.nii.gz",
        "..\\..\\evil.nii.gz",
        "a/../../evil.nii.gz",
        "....//evil.nii.gz",
        ".nii.gz",
        "evil\x00.nii.gz",
        "x" * 5000 + ".nii.gz",
        "<script>alert(1)</script>.nii.gz",
        "-rf.nii.gz",
    ],
)
def test_names_of_uploads_are_not_paths(viewer: Running, scans: Path, name: str) -> None:
    area = viewer.application.uploads._folder
    before = {path for path in area.parent.iterdir() if "evil" in path.name}
    reply = viewer.upload({name: _nifti(scans)})
    assert reply.status == 200, reply.content
    (scan,) = reply.content["scans"]
    stored = viewer.application.analysis.scans.get(scan["id"]).image.files[0]
    assert stored.resolve().is_relative_to(area.resolve()) and not stored.is_symlink()
    assert len(stored.name) < 150 and stored.name[0] not in ".<"
    assert {path for path in area.parent.iterdir() if "evil" in path.name} == before
    assert viewer.run("open", scan["id"])["state"] == "done"
    assert viewer.ask("DELETE", f"scans/{scan['id']}").status == 200
    assert not stored.exists()


def test_uploads_have_limits(viewer: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = viewer.upload({"big.nii": bytes((1 << 20) + 1)})
    assert reply.status == 413 and "larger than 1 MB (--max_upload)" in reply.content["error"]
    half = bytes(700_000)
    reply = viewer.upload({"a.nii": half, "b.nii": half})  # together
    assert reply.status == 413
    monkeypatch.setattr(uploads_module, "_MOST_FILES", 3)
    reply = viewer.upload({f"{number}.dcm": b"x" for number in range(5)})
    assert reply.status == 413 and "may have 3 files" in reply.content["error"]
    # a length that is far too large is refused before anything is read
    identifier = viewer.ask("POST", "uploads").content["id"]
    host = f"Host: 127.0.0.1:{viewer.port}\r\nContent-Length: 999999999999\r\n\r\n"
    request = f"PUT {viewer.base}uploads/{identifier}?name=a.nii HTTP/1.1\r\n{host}"
    assert b"--max_upload" in _send(viewer, request.encode())


def test_all_uploads_together_have_a_limit(tiny_folders: Prepared) -> None:
    with start("-m", tiny_folders.checkpoint, "--max_upload", 1) as viewer:
        sent = 0
        while sent < 8:
            identifier = viewer.ask("POST", "uploads").content.get("id", "none")
            path = f"{viewer.base}uploads/{identifier}?name=a.nii"
            reply = viewer.raw("PUT", path, bytes(900_000))
            if reply.status != 200:
                break
            sent += 1
        assert sent == 4 and "too large together" in reply.content["error"]


def test_gzip_bombs_are_refused(viewer: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "_LARGEST_EXPANDED", 20 << 20)
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < 100_000
    for content in (bomb, gzip.compress(b"x") * 3 + bomb):  # also behind other members
        reply = viewer.upload({"bomb.nii.gz": content})
        assert reply.status == 413 and "unpacks to more than" in reply.content["error"]
    area = viewer.application.uploads._folder
    assert not list(area.rglob("bomb*"))


def test_archives_and_deflated_dicom_are_refused(viewer: Running, tmp_path: Path) -> None:
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    reply = viewer.upload({"scan.zip": b"PK\x05\x06" + bytes(18)})
    assert reply.status == 413 and "archives are not opened" in reply.content["error"]
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = "1.2", "1.2.3"
    data.ImageComments = "0" * 60_000
    pydicom.dcmwrite(tmp_path / "a.dcm", data, enforce_file_format=True)
    reply = viewer.upload({"study/a.dcm": (tmp_path / "a.dcm").read_bytes()})
    assert reply.status == 413 and "deflated DICOM" in reply.content["error"]


def test_a_slow_upload_is_ended(viewer: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "_GRACE_SECONDS", 0.2)
    identifier = viewer.ask("POST", "uploads").content["id"]
    host = f"Host: 127.0.0.1:{viewer.port}\r\nContent-Length: 100000\r\n\r\n"
    request = f"PUT {viewer.base}uploads/{identifier}?name=slow.nii HTTP/1.1\r\n{host}"
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=5) as connection:
        connection.sendall(request.encode())
        began = time.monotonic()
        answer = b""
        connection.settimeout(0.1)
        while not answer and time.monotonic() - began < 5:
            connection.sendall(b"x")
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
        connection.settimeout(5)
        while piece := connection.recv(65536):
            answer += piece
    assert b"too slow" in answer
    assert not list(viewer.application.uploads._folder.rglob("slow*"))


def test_an_upload_that_breaks_off_leaves_nothing(viewer: Running) -> None:
    identifier = viewer.ask("POST", "uploads").content["id"]
    host = f"Host: 127.0.0.1:{viewer.port}\r\nContent-Length: 100000\r\n\r\n"
    request = f"PUT {viewer.base}uploads/{identifier}?name=cut.nii HTTP/1.1\r\n{host}abc"
    with socket.create_connection(("127.0.0.1", viewer.port)) as connection:
        connection.sendall(request.encode())
        time.sleep(0.2)
    area, deadline = viewer.application.uploads._folder, time.monotonic() + 30
    while list(area.rglob("cut*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(area.rglob("cut*"))
    assert viewer.ask("GET", "state").status == 200


def test_headers_that_promise_too_much(viewer: Running) -> None:
    """348 bytes that state 32,767 x 32,767 x 32,767 voxels."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_shape((32767, 32767, 32767))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    reply = viewer.upload({"huge.nii": header.binaryblock + bytes(2000)})
    job = viewer.run("open", reply.content["scans"][0]["id"])
    assert job["state"] == "failed" and "voxels" in job["error"]
    assert str(viewer.application.uploads._folder) not in job["error"]


# -------------------------------------------------------------------- files and texts


def test_links_of_a_folder_give_nothing_away(tiny_folders: Prepared, tmp_path: Path) -> None:
    """A link may lead to an image elsewhere, as data sets do; other files are never sent."""
    secret = tmp_path / "secret.txt"
    secret.write_text("the password is swordfish\n" * 50)
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a.nii", "b.nii.gz", "c.mha", "d.nrrd"):
        (folder / name).symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.nii")
    with start("-m", tiny_folders.checkpoint, "-i", folder) as viewer:
        scans = viewer.ask("GET", "state").content["scans"]
        assert {scan["name"] for scan in scans} == {"a", "b", "c", "d"}
        for scan in scans:
            job = viewer.run("open", scan["id"])
            assert job["state"] == "failed" and "swordfish" not in job["error"]
            assert viewer.ask("GET", f"voxels/{scan['id']}.nii").status == 400


def test_markup_stays_text(viewer: Running) -> None:
    """Answers are JSON, never pages, and the page sets texts only as text."""
    markup = "<script>alert(1)</script>"
    scan = viewer.ask("GET", "state").content["scans"][0]
    assert scan["name"].startswith("<img")
    job = viewer.run("heat", scan["id"], markup)
    assert job["state"] == "done" and job["result"]["finding"] == markup
    reply = viewer.ask("GET", f"jobs/{job['id']}")
    assert reply.headers["Content-Type"] == "application/json"
    static = Path(server_module.__file__).parent / "static"
    for script in static.glob("*.js"):
        if script.name != "niivue.umd.js":
            text = script.read_text()
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
                assert word not in text, (script.name, word)
    page = (static / "index.html").read_text()
    assert " on" not in page.replace(" one", "").replace(" only", "") or "onclick" not in page
    assert "http:" not in page and "https:" not in page and "style=" not in page


@pytest.mark.parametrize("finding", ["", "   ", "x" * 4001])
def test_findings_that_are_none(viewer: Running, finding: str) -> None:
    job = viewer.run("heat", "s1", finding)
    assert job["state"] == "failed" and len(job["error"]) < 200


def test_a_long_finding_and_words_that_the_model_cannot_know(viewer: Running) -> None:
    job = viewer.run("heat", "s1", "effusion " * 400)
    assert job["state"] == "done" and np.isfinite(job["result"]["probability"])
    for finding in ("胸水", "плевральный выпот"):
        job = viewer.run("heat", "s1", finding)
        assert job["state"] == "failed" and not job["error"].startswith("unexpected")
        assert len(job["error"].splitlines()) == 1
    job = viewer.run("heat", "s1", "half a pair \ud800")  # JSON can hold it, UTF-8 cannot
    assert not job["error"].startswith("unexpected")


def test_nothing_of_a_request_is_logged(viewer: Running, caplog: Any) -> None:
    with caplog.at_level("DEBUG", logger="colipri"):
        viewer.run("heat", "s1", "There is a pleural effusion.")
        viewer.ask("GET", "state")
    assert "TOKEN" in caplog.text
    assert viewer.server.access.token not in caplog.text and "pleural" not in caplog.text
