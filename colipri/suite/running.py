"""Running evaluations one after another; what was finished in an earlier run is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json, read_json
from colipri.common.errors import ColipriError
from colipri.suite.base import Evaluation, Facts, Words

RECORD = "evaluations.json"
Run = Callable[[Words], int]


@dataclass(frozen=True)
class Outcome:
    """What came of an evaluation.

    Attributes:
        name, title: Of the evaluation.
        state: done, earlier (an earlier run did it), impossible or failed.
        text: The main figure, or the reason.
        seconds: Of this run.
    """

    name: str
    title: str
    state: str
    text: str
    seconds: float = 0.0


def run_evaluations(
    chosen: Mapping[str, Evaluation], facts: Facts, run: Run, say: Callable[[str], None], model: str
) -> list[Outcome]:
    """Run what the data set allows; one that fails does not stop the others.

    Args:
        chosen: By name, in order.
        facts: Of model and data set.
        run: Runs a command and returns its exit code.
        say: Prints a line.
        model: Digest of the checkpoint: results of other weights are made again.

    Returns:
        One outcome per evaluation. KeyboardInterrupt passes; finished results are kept.
    """
    record = facts.folder / f"{Path(RECORD).stem}_{facts.dataset}_{facts.split}.json"
    done: dict[str, Any] = read_json(record) if record.is_file() else {}
    possible = {name: one for name, one in chosen.items() if not one.missing(facts)}
    outcomes = [
        Outcome(name, one.title, "impossible", one.missing(facts))
        for name, one in chosen.items()
        if name not in possible
    ]
    begun = time.monotonic()
    for place, (name, one) in enumerate(possible.items(), start=1):
        output = one.output(facts)
        commands = one.commands(facts, output)
        key = {"commands": commands, "model": model}
        if output.is_file() and done.get(name) == key:
            outcomes.append(Outcome(name, one.title, "earlier", _headline(one, output)))
            continue
        minutes = (time.monotonic() - begun) / 60
        say(f"\n# {place} of {len(possible)}: {one.title} ({minutes:.0f} min so far)")
        outcome = _run_one(name, one, output, commands, run)
        outcomes.append(outcome)
        if outcome.state == "done":
            done[name] = key
            atomic_write_json(record, done)
    return outcomes


def _run_one(name: str, one: Evaluation, output: Path, commands: list[Words], run: Run) -> Outcome:
    start = time.monotonic()
    for words in commands:
        code = run(words)
        if code == 130:
            raise KeyboardInterrupt
        if code:
            reason = f"{words[0]} failed with exit code {code}; see above"
            return Outcome(name, one.title, "failed", reason, time.monotonic() - start)
    if not output.is_file():
        reason = f"{commands[-1][0]} wrote no {output}"
        return Outcome(name, one.title, "failed", reason, time.monotonic() - start)
    return Outcome(name, one.title, "done", _headline(one, output), time.monotonic() - start)


def _headline(one: Evaluation, output: Path) -> str:
    try:
        return one.headline(read_json(output))
    except (ColipriError, KeyError, TypeError) as error:
        return f"{output.name} cannot be summed up ({error})"
