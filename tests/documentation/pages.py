"""The shell commands of a page of the documentation, run in their order as they are printed.

What a page leaves to the reader stands in two tables of the test: ``names`` says which folder
takes the place of a path such as ``/data/scans``, and ``shorter`` applies the short options that
the page itself names.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

DOCUMENTATION = Path(__file__).resolve().parents[2] / "documentation"
COMMAND = re.compile(r"(colipri_\w+ |nnUNetv2_\w+ |export |torchrun |\w+=\$)")
VARIABLES = ("raw", "preprocessed", "results")


def code_blocks(page: str, after: str = "") -> list[str]:
    """Indented and fenced blocks of a page behind some words, in order, without indentation."""
    text = (DOCUMENTATION / page).read_text(encoding="utf-8")
    text = text[text.index(after) :]
    blocks, lines, fenced = [], [], None
    for line in [*text.splitlines(), "end"]:
        if line.startswith("```"):
            if fenced is None:
                fenced, lines = line.removeprefix("```"), []
            else:
                blocks.append("\n".join(lines))
                fenced, lines = None, []
        elif fenced is not None:
            lines.append(line)
        elif line.startswith("    "):
            lines.append(line[4:])
        elif lines and not line:
            lines.append("")
        elif lines:
            blocks.append("\n".join(lines).strip("\n"))
            lines = []
    return blocks


def commands_of(page: str) -> list[str]:
    """Command lines of a page; lines that end in a backslash are joined."""
    lines = "\n".join(code_blocks(page)).replace("\\\n", " ").splitlines()
    return [line for line in lines if COMMAND.match(line)]


@dataclass
class Reader:
    """Someone who follows a page: a working folder, the three folders, and an environment.

    Attributes:
        root: everything that is written goes below it.
        names: what a page calls a path, and what stands for it here.
        shorter: pairs of a pattern and its replacement, as the page allows.
    """

    root: Path
    names: dict[str, str] = field(default_factory=dict)
    shorter: list[tuple[str, str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.here = self.root / "work"
        self.here.mkdir(parents=True)
        scripts = sysconfig.get_path("scripts")
        self.environment = {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "0",
            "OMP_WAIT_POLICY": "PASSIVE",
            **self.environment,
        }
        for program in ("colipri", "nnUNet"):
            for part in VARIABLES:
                folder = self.root / f"{program}_{part}"
                folder.mkdir(exist_ok=True)
                self.environment[f"{program}_{part}"] = str(folder)

    def folder(self, variable: str) -> Path:
        """The folder that an environment variable names."""
        return Path(self.environment[variable])

    def command(self, printed: str) -> str:
        """What is run for a printed line."""
        for name, path in self.names.items():
            printed = printed.replace(name, path)
        for pattern, replacement in self.shorter:
            printed = re.sub(pattern, replacement, printed)
        return printed

    def run(self, printed: str) -> str:
        """Run a line in bash and return what it printed; it has to succeed."""
        line = self.command(printed)
        if re.match(r"\w+=\$", line):  # a variable of the reader's shell
            line = f"export {line}"
        if line.startswith("export "):
            line += "\nenv -0"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=self.here,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, f"printed: {printed}\nrun: {line}\n{said}"
        if line.startswith("export "):
            pairs = (entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)
            self.environment = dict(pairs)
            return ""
        return done.stdout

    def follow(self, page: str) -> None:
        """Run all commands of a page in their order."""
        printed = commands_of(page)
        assert printed
        for line in printed:
            self.run(line)
