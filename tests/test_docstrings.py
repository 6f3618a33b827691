"""Every public function with three or more parameters explains each of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "colipri"
FEWEST_PARAMETERS = 3
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[tuple[str, Function, str]]:
    """Public functions and methods, and constructors, with the docstring that explains them."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if not isinstance(method, Function) or _is_override(method):
                    continue
                name = f"{node.name}.{method.name}"
                if method.name == "__init__":
                    yield name, method, ast.get_docstring(node) or ""
                elif not method.name.startswith("_"):
                    yield name, method, ast.get_docstring(method) or ""


def _is_override(method: Function) -> bool:
    return any(
        isinstance(d, ast.Name) and d.id in ("override", "overload") for d in method.decorator_list
    )


def parameters(function: Function) -> list[str]:
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def unexplained(source: str) -> list[str]:
    """Public functions without ``Args:``, or whose ``Args:`` leave out a parameter."""
    found = []
    for name, function, docstring in functions(ast.parse(source)):
        names = parameters(function)
        if len(names) < FEWEST_PARAMETERS:
            continue
        _, _, explained = docstring.partition("Args:\n")
        if not explained:
            found.append(f"{name} has no Args:")
            continue
        missing = [
            one for one in names if f"{one}:" not in explained and f"{one}," not in explained
        ]
        if missing:
            found.append(f"{name} does not explain {', '.join(missing)}")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_functions_with_three_parameters_explain_them(room: str) -> None:
    problems = [
        f"{path.relative_to(PACKAGE)}: {problem}"
        for path in sorted((PACKAGE / room).rglob("*.py"))
        for problem in unexplained(path.read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def f(a, b, c):\n    'x'\n", "f has no Args:"),
        (
            "def f(a, b, c):\n    '''x\n\n    Args:\n        a, b: x\n    '''\n",
            "does not explain c",
        ),
        ("class A:\n    'x'\n    def __init__(self, a, b, c): ...\n", "A.__init__ has no Args:"),
        ("def f(a, b, c):\n    '''x\n\n    Args:\n        a, b: x\n        c: y\n    '''\n", ""),
        ("def f(a, b):\n    'x'\n", ""),
        ("def _f(a, b, c):\n    'x'\n", ""),
    ],
)
def test_the_check_itself(source: str, problem: str) -> None:
    assert problem in "".join(unexplained(source))
    assert bool(problem) == bool(unexplained(source))
