"""Loading weights strictly: everything that does not fit is said at once, in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from colipri.common.errors import ColipriError

_SHOWN = 5  # names per kind of problem; the count says how many there are


def load_state_dict_reported(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str = "the weights",
    may_be_missing: Sequence[str] = (),
) -> list[str]:
    """Load weights, or change nothing and say all that is wrong.

    Args:
        module: takes the weights.
        state: parameter name -> tensor.
        source: what the weights are, for the message (a file name).
        may_be_missing: beginnings of names that the weights need not hold (for example a decoder).

    Returns:
        Names that were allowed to be missing and were; they keep their initialisation.

    Raises:
        ColipriError: names are missing or unknown, or shapes differ.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state]
    excused = [name for name in missing if name.startswith(tuple(may_be_missing))]
    problems = {
        "missing": [name for name in missing if name not in excused],
        "unknown": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} ({_shape(state[name])} instead of {_shape(tensor)})"
            for name, tensor in wanted.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        lists = "; ".join(_listed(kind, names) for kind, names in problems.items() if names)
        raise ColipriError(f"{source} do not fit {type(module).__name__}: {lists}")
    module.load_state_dict({**state}, strict=not excused)
    return excused


def _listed(kind: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
