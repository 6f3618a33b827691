"""Push and pull against a hub on loopback, by real HTTP, and everything against a local folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sharing.hub_server import TOKEN, Hub, running_hub

EXPORT = "import sys; from colipri.run.export import main; sys.exit(main())"
PULL = """
import sys
import colipri
from transformers import AutoModel, AutoProcessor
name = sys.argv[1]
model, processor = AutoModel.from_pretrained(name), AutoProcessor.from_pretrained(name)
print(type(model).__name__, type(processor).__name__)
print(colipri.load("hf:" + name, "cpu").encode_texts(["effusion"]).tolist())
"""

pytestmark = pytest.mark.slow  # each process imports transformers again


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


def _run(hub: Hub, home: Path, *words: object, **changes: str) -> subprocess.CompletedProcess[str]:
    """A process whose hub is this one; ``home`` is its cache."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        **changes,
    }
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_model_goes_to_the_hub_and_comes_back(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    words = ("-c", EXPORT, "-m", checkpoint, "-o", target)
    pushed = _run(hub, tmp_path / "a", *words, "--push_to_hub", "me/model")
    assert pushed.returncode == 0, pushed.stderr
    assert "it is read by -m hf:me/model" in pushed.stdout
    assert "licence: not stated (data set Dataset950_Tiny)" in pushed.stdout
    assert hub.private == {"me/model"}
    files = hub.repositories["me/model"]
    assert {name: (target / name).read_bytes() for name in files} == files
    assert set(files) == {entry.name for entry in target.iterdir()}
    assert any(line.startswith("PUT /objects/") for line in hub.asked)  # weights go by LFS

    pulled = _run(hub, tmp_path / "b", "-c", PULL, "me/model")
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.splitlines()[0] == "ColipriDualEncoder ColipriProcessor"
    offline = _run(hub, tmp_path / "b", "-c", PULL, "me/model", HF_HUB_OFFLINE="1")
    assert offline.stdout == pulled.stdout  # from the cache of the first
    local = _run(
        hub, tmp_path / "c", "-c", PULL.replace('"hf:" + ', ""), target, HF_HUB_OFFLINE="1"
    )
    assert local.stdout == pulled.stdout  # a folder needs no hub


def test_what_the_hub_refuses_is_one_line(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    words = ("-c", EXPORT, "-m", checkpoint, "-o", tmp_path / "m")
    push = (*words, "--push_to_hub", "me/model")
    wrong = _run(hub, tmp_path / "a", *push, HF_TOKEN="hf_wrong")
    gone = _run(hub, tmp_path / "a", *push, HF_ENDPOINT="http://127.0.0.1:9")
    missing = _run(hub, tmp_path / "a", "-c", EXPORT, "-m", "hf:me/none", "-o", tmp_path / "n")
    bad_name = _run(hub, tmp_path / "a", "-c", EXPORT, "-m", "hf:none", "-o", tmp_path / "n")
    for done, message in (
        (wrong, "the hub does not let you write to me/model; log in with a token"),
        (gone, "the model was not pushed to me/model: "),
        (missing, "there is no checkpoint me/none: no such file or folder"),
        (bad_name, "hf:none is not a name on the hub; it looks like hf:owner/name"),
    ):
        assert done.returncode == 1
        lines = [line for line in done.stderr.splitlines() if ": error: " in line]
        assert len(lines) == 1 and message in lines[0], done.stderr
