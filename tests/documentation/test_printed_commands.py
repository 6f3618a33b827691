"""Every command that a page prints is one that its parser accepts: no option has another name.

Cheap, for all pages; whether the commands do what the page says is tested by test_pages.py.
"""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import tomllib
from documentation.pages import DOCUMENTATION, code_blocks

ROOT = DOCUMENTATION.parent
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
EVIDENCE = ("probing", "features", "evaluation", "benchmarks", "report_metrics", "report_writers",
            "grounding", "results")  # fmt: skip


def printed_commands(page: Path) -> list[str]:
    """Command lines of a page, joined where they end in a backslash, without comments."""
    lines = "\n".join(code_blocks(page.name)).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        line = re.sub(r"\s+#.*$|\s{4,}[a-z].*$", "", line.strip().removeprefix("$ "))
        parts = [part.strip() for part in line.split("&&")]
        found += [part for part in parts if re.match(r"colipri_\w+( |$)", part)]
    return found


def complaint(line: str) -> str:
    """What the parser of a printed command says against it; "" if nothing."""
    words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "1"))
    module = SCRIPTS[words[0]].partition(":")[0]
    parser = import_module(module).build_parser()
    messages: list[str] = []

    class Refused(Exception):
        pass

    def refuse(message: str) -> None:
        messages.append(message)
        raise Refused

    parser.error = refuse
    try:
        parser.parse_args(words[1:])
    except Refused:
        return f"{line}: {messages[0]}"
    except SystemExit:  # --help
        pass
    return ""


@pytest.mark.parametrize("page", EVIDENCE)
def test_the_parser_takes_what_the_page_prints(page: str) -> None:
    commands = [
        line for line in printed_commands(DOCUMENTATION / f"{page}.md") if "..." not in line
    ]
    assert commands
    problems = [problem for line in commands if (problem := complaint(line))]
    assert not problems, "\n".join(problems)


def test_a_wrong_option_is_found() -> None:
    assert "unrecognized arguments: --modell" in complaint("colipri_compare A.json B.json --modell")
    assert not complaint("colipri_compare A.json B.json -o difference.json")
