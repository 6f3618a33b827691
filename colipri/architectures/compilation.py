"""torch.compile for the image encoder's blocks, where it works; other runs continue without it.

The blocks are compiled one by one and in place: they are the same program, so it is compiled once,
and the names in the state dict stay what they are. torch.compile gives up silently where it meets
too many variants of a program, and then runs it uncompiled. So what is reported here is counted:
passes of a block in which compiled code really ran.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from colipri.architectures.model import ColipriModel
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.rope import grid_positions, rotation
from colipri.plans.architecture import EncoderSettings

logger = logging.getLogger(__name__)

AUTO = "auto"
_PROBE_GRID = (3, 4, 4)  # positions for all tokens of the samples below
# Samples' lengths of the passes that a run makes: ragged micro batches, even ones, single cases.
_PROBE_LENGTHS = {"ragged": (24, 17), "even": (20, 20), "single": (31,)}


@dataclass
class CompiledPasses:
    """Counts passes of the blocks from now on.

    Attributes:
        passes: of a block, recomputations included.
        compiled: those in which compiled code ran.
        programs: compiled so far, graphs by the compiler's count.
    """

    passes: int = 0
    compiled: int = 0
    programs: int = 0
    _calls: int = 0

    def backend(self, name: str) -> Callable[[Any, Any], Callable[..., Any]]:
        """Return a backend of torch.compile whose programs count their calls."""
        inner = torch._dynamo.lookup_backend(name)

        def compile_counted(module: Any, inputs: Any) -> Callable[..., Any]:
            program = inner(module, inputs)
            self.programs += 1

            def counted(*arguments: Any) -> Any:
                self._calls += 1
                return program(*arguments)

            return counted

        return compile_counted

    def watch(self, block: nn.Module) -> None:
        """Count the passes of a block that is compiled."""
        run = block._compiled_call_impl
        assert run is not None

        def counted(*arguments: Any, **options: Any) -> Any:
            before = self._calls
            try:
                return run(*arguments, **options)
            finally:  # a recomputation is left by an exception as soon as it has gone far enough
                self.passes += 1
                self.compiled += self._calls > before

        block._compiled_call_impl = counted

    def describe(self) -> str:
        """Return "1,536 of 1,536 passes of a block ran compiled"."""
        return f"{self.compiled:,} of {self.passes:,} passes of a block ran compiled"


def trial_encoder(settings: EncoderSettings, device: torch.device) -> PrimusEncoder:
    """Return an encoder of one block, to try the compiler on where blocks are sharded.

    Sharded blocks exchange weights in every pass, so a failure in one process would leave the
    others waiting.
    """
    with torch.random.fork_rng([]):
        small = {**settings.to_dict(), "depth": 1, "attention": None, "position_grid": None}
        return PrimusEncoder(**small).to(device)


def compile_blocks(
    model: ColipriModel,
    setting: bool | str,
    autocast: bool = False,
    trial: PrimusEncoder | None = None,
) -> CompiledPasses | None:
    """Compile the blocks of the image encoder and try them out, forward and backward.

    Args:
        model: on its device.
        setting: False for not at all, AUTO for torch's default backend on a GPU and not at all on a
            CPU, True for the default backend everywhere, or a backend's name.
        autocast: True if training runs under bf16 autocast.
        trial: to try out in the place of the model's encoder (:func:`trial_encoder`).

    Returns:
        What counts their passes; None if they are not compiled. A failure is logged as a warning,
        with its first line.
    """
    on_gpu = model.logit_scale.device.type == "cuda"
    if not setting or (setting == AUTO and not on_gpu):
        return None
    blocks = list(model.image_encoder.eva.blocks)
    tried = trial or model.image_encoder
    passes = CompiledPasses()
    modes = [module.training for module in tried.modules()]
    try:
        # one object: for another one torch would compile every block by itself
        backend = passes.backend("inductor" if setting in (True, AUTO) else str(setting))
        for block in dict.fromkeys((*tried.eva.blocks, *blocks)):
            block.compile(dynamic=True, backend=backend)
            passes.watch(block)
        found = _probe(tried, model.logit_scale.device, autocast, passes)
    except Exception as error:  # noqa: BLE001 (compilers fail in every way there is)
        for block in blocks:
            block._compiled_call_impl = None
        torch.compiler.reset()
        first = str(error).strip().splitlines() or [""]
        logger.warning(
            "torch.compile does not work here (%s: %s); training continues without it",
            type(error).__name__,
            first[0][:200],
        )
        return None
    finally:
        for module, mode in zip(tried.modules(), modes, strict=True):
            module.training = mode
        tried.zero_grad(set_to_none=True)
    whole = all(count == len(tried.eva.blocks) for count in found.values())
    logger.log(
        logging.INFO if whole else logging.WARNING,
        "torch.compile: of %d blocks of the image encoder run compiled: %s (%d programs)",
        len(tried.eva.blocks),
        ", ".join(f"{count} in {name} passes" for name, count in found.items()),
        passes.programs,
    )
    return passes


def _probe(
    encoder: PrimusEncoder, device: torch.device, autocast: bool, passes: CompiledPasses
) -> dict[str, int]:
    """Run every kind of pass through all blocks, and leave the random state unchanged.

    Args:
        encoder: whose blocks are run.
        device: of the encoder.
        autocast: True for bf16 autocast.
        passes: that are counted.

    Returns:
        Kind of pass -> blocks that ran compiled.
    """
    found = {}
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.autocast(device.type, torch.bfloat16, autocast):
        for is_training in (True, False):
            encoder.train(is_training)
            for name, lengths in _PROBE_LENGTHS.items():
                for gradients in (True, False) if is_training else (False,):
                    kind = f"{name} {'training' if is_training else 'evaluation'}"
                    before = passes.compiled
                    with torch.set_grad_enabled(gradients):
                        out = _run(encoder, lengths, device)
                    found[kind if gradients or not is_training else f"{kind} no-gradient"] = (
                        passes.compiled - before
                    )
                    if gradients:
                        out.float().sum().backward()
    return found


def _run(encoder: PrimusEncoder, lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Encode samples of random tokens."""
    positions = grid_positions(_PROBE_GRID, device)[: sum(lengths)]
    gradients = torch.is_grad_enabled()
    tokens = torch.randn(len(positions), encoder.embed_dim, device=device, requires_grad=gradients)
    rope = rotation(positions, encoder.head_dim)
    where = positions.cpu().numpy()
    arranged = encoder.arrange(tokens, rope, lengths, where)
    return deque(encoder.block_outputs(arranged), maxlen=1)[0]
