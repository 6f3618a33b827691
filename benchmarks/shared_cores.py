"""Training steps of several processes on the same cores, by how OpenMP's threads wait.

    python benchmarks/shared_cores.py [--processes 1 2] [--seconds 8]

Each process trains the planner's smallest encoder (what the quick start trains) with as many
threads as there are cores. Printed are the steps a second of all processes together, for each way
to wait at the end of a parallel loop: torch's default (threads spin for some milliseconds), active
(they spin for ever), a short spin of 1,000 rounds, and what colipri's commands set (they sleep at
once). One process alone shows what sleeping costs; several show what spinning costs. The ways take
turns, and the best of ``--rounds`` counts, because the machine's other work only slows them down.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from colipri.common.cpus import thread_settings, usable_cpus

WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "active": {"OMP_WAIT_POLICY": "active"},
    "short spin": {"GOMP_SPINCOUNT": "1000"},
    "colipri": thread_settings({}),
}
SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def steps_a_second(seconds: float, begin: float) -> float:
    """Train until the time is over; every process begins at the same moment."""
    import torch

    from colipri.architectures.primus import PrimusEncoder
    from colipri.experiment_planning.encoders import TINY

    encoder = PrimusEncoder(
        input_channels=1,
        embed_dim=TINY.embed_dim,
        depth=TINY.depth,
        num_heads=TINY.num_heads,
        stem=TINY.stem,
        stem_kwargs=dict(TINY.stem_kwargs),
        **TINY.arch_kwargs,
    )
    optimizer = torch.optim.AdamW(encoder.parameters(), 1e-4)
    images = torch.randn(4, 1, 64, 64, 64)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        encoder(images).square().mean().backward()
        optimizer.step()

    step()
    time.sleep(max(0.0, begin - time.time()))
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return steps / (time.perf_counter() - started)


def run_side_by_side(number: int, way: str, seconds: float) -> float:
    """Return the steps a second of ``number`` processes together."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment |= WAYS[way]
    begin = str(time.time() + 6.0)
    command = [sys.executable, __file__, "--child", str(seconds), begin]
    children = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    return sum(float(child.communicate()[0].split()[-1]) for child in children)


def main() -> None:
    """Print a table: processes, and steps a second for each way to wait."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0, help="of a measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(steps_a_second(float(options.child[0]), float(options.child[1])))
        return
    print(f"{usable_cpus()} cores; steps a second of all processes together")
    print(f"{'processes':<12}" + "".join(f"{way:>12}" for way in WAYS))
    for number in options.processes:
        best = dict.fromkeys(WAYS, 0.0)
        for _ in range(options.rounds):
            for way in WAYS:
                best[way] = max(best[way], run_side_by_side(number, way, options.seconds))
        print(f"{number:<12}" + "".join(f"{rate:12.2f}" for rate in best.values()))


if __name__ == "__main__":
    main()
