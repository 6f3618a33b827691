"""Worker processes and light commands import the text room: it must not load torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import colipri.text

ROOM = Path(colipri.text.__file__).parent


def test_everything_but_the_tokenizer_is_light() -> None:
    names = [
        ".".join(("colipri.text", *file.relative_to(ROOM).with_suffix("").parts))
        for file in sorted(ROOM.rglob("*.py"))
        if file.name not in ("__init__.py", "tokenizer.py")
    ]
    assert len(names) > 15
    code = (
        "import importlib, sys\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "slow = {'torch', 'transformers', 'tokenizers', 'pandas', 'scipy', 'SimpleITK'}\n"
        "print(*sorted(slow & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.strip() == ""


def test_no_module_reads_data_sets() -> None:
    """Raw data sets are above this room: they import it, and not the other way round."""
    for file in ROOM.rglob("*.py"):
        assert "colipri.raw_dataset" not in file.read_text(encoding="utf-8"), file
