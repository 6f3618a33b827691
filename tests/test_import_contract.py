"""Who may import whom: rooms from high to low, no circles, imports at the top of the file.

The order of the rooms is in pyproject.toml (``tool.importlinter``); ``lint-imports`` shows every
chain of imports that breaks it.
"""

from __future__ import annotations

import ast
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]

# Imports inside functions are allowed in commands and in the package itself, so that --help and
# "import colipri" stay fast, and for these packages everywhere: commands and worker processes start
# with what they need.
FAST_TO_START = ("colipri/run/", "colipri/__init__.py")
# A worker that only compares with the cache does without SimpleITK and scipy, which take seconds.
FAST_TO_START += ("colipri/raw_dataset/verification/case.py",)
LAZY_PACKAGES = {
    "dask": "optional",
    "distributed": "optional, comes with dask",
    "sklearn": "takes a second to import; splits and metrics need it",
    "transformers": "takes three seconds to import; text encoders and tokenizers need it",
    "nnunetv2": "reads its folders from the environment and prints when it is imported",
}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Module -> modules of colipri that it imports, also inside functions and for types only."""
    graph = grimp.build_graph("colipri", cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def test_imports_go_to_lower_rooms() -> None:
    # in a process of its own: it switches off the loggers of the one that it runs in
    command = [str(Path(sysconfig.get_path("scripts")) / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_modules_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    circles = [circle for circle in _circles(imports) if len(circle) > 1]
    assert [sorted(circle) for circle in circles] == []


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert [circle for circle in _circles(edges) if len(circle) > 1] == [{"b", "c"}]


def test_imports_are_at_the_top() -> None:
    found = {
        f"{file}:{line} imports {module} inside a function"
        for file, line, module in _imports_inside_functions()
    }
    assert found == set()


def _imports_inside_functions() -> Iterator[tuple[str, int, str]]:
    """(file, line, module) of every import inside a function that no rule allows."""
    for path in sorted((ROOT / "colipri").rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        if file.startswith(FAST_TO_START):
            continue
        functions = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for node in (inner for function in functions for inner in ast.walk(function)):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                if name.split(".")[0] not in LAZY_PACKAGES:
                    yield file, node.lineno, name


def _circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components (Tarjan, SIAM J. Comput. 1972), without recursion."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[set[str]] = []
    for root in edges:
        work = [] if root in index else [(root, iter(edges[root]))]
        if work:
            index[root] = low[root] = len(index)
            stack.append(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    work.append((target, iter(edges.get(target, ()))))
                    break
                if target in stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    place = stack.index(node)
                    components.append(set(stack[place:]))
                    del stack[place:]
    return components
