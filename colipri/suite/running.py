"""Running evaluations one after another; what was finished in an earlier run is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json, read_json
from colipri.common.errors import ColipriError
from colipri.suite.base import Evaluation, Facts, Words

RECORD = "evaluations.json"
# Durations relative to zero-shot classification, beside each other on the embedded set with two
# cores; those that are not named count as one.
USUAL_SHARES = {
    "zero_shot": 1.0,
    "retrieval": 1.0,
    "probe": 25.0,
    "grounding": 15.0,
    "reports": 8.0,
}
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
    keys: dict[str, dict[str, Any]] = {
        name: {"commands": one.commands(facts, one.output(facts)), "model": model}
        for name, one in possible.items()
    }
    earlier = {
        name
        for name, one in possible.items()
        if one.output(facts).is_file() and _identity(done.get(name)) == keys[name]
    }
    left = TimeLeft([name for name in possible if name not in earlier], done)
    for place, (name, one) in enumerate(possible.items(), start=1):
        output = one.output(facts)
        if name in earlier:
            outcomes.append(Outcome(name, one.title, "earlier", _headline(one, output)))
            continue
        say(f"\n# {place} of {len(possible)}: {one.title} ({left.describe()})")
        outcome = _run_one(name, one, output, keys[name]["commands"], run)
        outcomes.append(outcome)
        left.finish(name, outcome.seconds if outcome.state == "done" else None)
        if outcome.state == "done":
            done[name] = {**keys[name], "seconds": round(outcome.seconds, 1)}
            atomic_write_json(record, done)
    return outcomes


def _identity(entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a recorded evaluation was, without how long it took."""
    return {key: value for key, value in (entry or {}).items() if key != "seconds"}


class TimeLeft:
    """How long evaluations will take, from what they took.

    One that ran before is expected to take as long again; for the others the ratios of
    :data:`USUAL_SHARES` to the evaluations that are finished are used.

    Args:
        names: Of the evaluations that will run, in order.
        done: The record of earlier runs.
    """

    def __init__(self, names: Sequence[str], done: Mapping[str, Mapping[str, Any]]) -> None:
        self.names = list(names)
        self.known = {n: float(e["seconds"]) for n, e in done.items() if e.get("seconds")}
        self.begun = time.monotonic()

    def finish(self, name: str, seconds: float | None) -> None:
        """Take note of an evaluation that has ended; None: it failed, which says nothing."""
        self.names.remove(name)
        if seconds is not None:
            self.known[name] = seconds

    def seconds(self) -> float | None:
        """Return the seconds that are left; None while nothing is known."""
        if not self.known:
            return None
        pace = sum(self.known.values()) / sum(map(_usual, self.known))
        return sum(self.known.get(name, pace * _usual(name)) for name in self.names)

    def describe(self) -> str:
        """Return the time so far and the time left, for people."""
        so_far = f"{_minutes(time.monotonic() - self.begun)} so far"
        seconds = self.seconds()
        return so_far if seconds is None else f"{so_far}, about {_minutes(seconds)} left"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _usual(name: str) -> float:
    return USUAL_SHARES.get(name, 1.0)


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
