"""Loss and gradients of C are those of open_clip's classes, where every image has one text."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "open_clip_equality.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The benchmark as a module; it needs open-clip-torch (pip install '.[test]')."""
    pytest.importorskip("open_clip", reason="needs open-clip-torch, of the extra 'test'")
    spec = importlib.util.spec_from_file_location("open_clip_equality", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
@pytest.mark.parametrize("batch", [1, 2, 7, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_every_gradient_are_equal(
    benchmark: Any, kind: str, batch: int, seed: int
) -> None:
    given = benchmark.inputs_of(kind, batch, 32, benchmark.torch.float64, seed)
    loss, mine = benchmark.gradients(benchmark.ours(kind), given)
    expected, theirs = benchmark.gradients(benchmark.theirs(kind), given)
    assert float(loss) == pytest.approx(float(expected), rel=1e-12, abs=1e-14)
    assert set(mine) == {"image", "text", "scale", "bias"}
    for name, gradient in theirs.items():
        assert benchmark.torch.allclose(mine[name], gradient, rtol=1e-9, atol=1e-13), name
    if batch > 1:  # of one pair nothing can be told apart: InfoNCE is 0
        assert all(float(theirs[name].abs().max()) > 0 for name in ("image", "text", "scale"))
        assert (float(theirs["bias"].abs()) > 0) == (kind == "siglip")
