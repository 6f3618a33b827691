"""colipri_view as a command: what it prints, how it ends, what it refuses in one line."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tiny_model import Prepared

from colipri.run.view import main

COMMAND = [sys.executable, "-c", "import sys; from colipri.run.view import main; sys.exit(main())"]


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("colipri_view: error: ")
    return lines[0]


def test_a_port_in_use_is_one_line_before_the_model_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["-m", "no such model", "--port", str(port)]) == 1
    assert f"the port {port} is in use; choose another one" in _error(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "nowhere.pth"], "nowhere.pth"),
        (["-m", "nowhere.pth", "--port", "70000"], "between 0 and 65535"),
        (["-m", "{model}", "-i", "nowhere"], "there is no image or folder nowhere"),
        (["-m", "{model}", "-i", "{empty}"], "holds no image"),
        (["-m", "{model}", "--index", "{empty}"], "there is no index"),
        (["-m", "{model}", "--head", "nowhere.safetensors"], "there is no head"),
        (["-m", "{model}", "--writer", "{empty}"], "holds no trained writer"),
        (["-m", "{model}", "--max_upload", "0"], "at least 1"),
        (["-m", "{model}", "--prompts", "nowhere.json"], "nowhere.json"),
        (["-m", "{model}", "-f", " "], "empty"),
    ],
)
def test_mistakes(
    tiny_folders: Prepared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    places = {"model": tiny_folders.checkpoint, "empty": tmp_path}
    filled = [word.format(**places) for word in arguments]
    assert main([*filled, "-device", "cpu", "--no_browser"]) == 1
    assert message in _error(capsys)


@pytest.mark.slow  # starts the command twice
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_ended(
    tiny_folders: Prepared, tmp_path: Path, how: signal.Signals
) -> None:
    words = ["-m", str(tiny_folders.checkpoint), "-device", "cpu", "--no_browser"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    url = ""
    for line in process.stdout:
        if found := re.match(r"The viewer is at (http://127\.0\.0\.1:\d+/\S{43}/)", line):
            url = found.group(1)
            break
    with urllib.request.urlopen(url) as answer:
        assert b"colipri viewer" in answer.read()
    assert len(list(tmp_path.glob("colipri_view_*"))) == 1
    process.send_signal(how)
    printed = process.communicate(timeout=30)[0]
    assert process.returncode == 0 and "The viewer has ended." in printed
    assert not list(tmp_path.glob("colipri_view_*"))


def test_the_browser_gets_a_link_that_is_of_no_use_afterwards(
    tiny_folders: Prepared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line of a browser can be seen by other users of the machine."""
    opened: list[str] = []

    def look(url: str) -> bool:
        opened.append(url)
        return False

    def stop(self: object, poll_interval: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("webbrowser.open", look)
    monkeypatch.setattr("colipri.viewer.server.ViewerServer.serve_forever", stop)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["-m", str(tiny_folders.checkpoint), "-device", "cpu"]) == 0
    printed = capsys.readouterr().out
    token = re.search(r"http://127\.0\.0\.1:\d+/(\S+)/", printed)
    assert token is not None and "open the address yourself" in printed
    assert "/open/" in opened[0] and token.group(1) not in opened[0]
