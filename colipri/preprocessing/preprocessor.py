"""Preprocess all cases of a data set: in parallel, in parts, and resumable after any kill."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from colipri.common.atomic import TEMPORARY_MARK, atomic_write_json, temporary_tail
from colipri.common.errors import ColipriError
from colipri.common.parallel import Outcome, default_num_processes, run_parallel
from colipri.paths import preprocessed_folder
from colipri.preprocessing.case import CaseResult, preprocess_case
from colipri.preprocessing.manifest import collect_records, write_manifest
from colipri.preprocessing.packing import Packer, should_pack
from colipri.preprocessing.records import CaseTask, failure_file, possible_files
from colipri.preprocessing.shards import LOCATION
from colipri.preprocessing.store import CASES, MANIFEST, REPORTS, CaseStore
from colipri.raw_dataset.dataset import RawDataset
from colipri.raw_dataset.left_out import describe_left_out, load_without

if TYPE_CHECKING:
    from colipri.plans.plans import Plans

logger = logging.getLogger(__name__)

# mkstemp's eight letters between the mark and the name of the file that was to be written
_PARTIAL = re.compile(re.escape(TEMPORARY_MARK) + r"[^-]{8}-(.+)")


def preprocess_dataset(
    dataset: RawDataset | str | int,
    plans: Plans,
    configurations: Sequence[str] | None = None,
    num_processes: int | None = None,
    num_parts: int = 1,
    part_id: int = 0,
    keep_going: bool = False,
) -> dict[str, CaseStore | None]:
    """Preprocess the cases of a data set in one or more configurations of a plan.

    Finished cases are skipped if their source files and the plan have not changed. Cases that the
    plan leaves out are not preprocessed, and are listed in manifest.json under "left_out".

    Args:
        dataset: loaded, or its number or name.
        plans: of this data set.
        configurations: names in the plan; None means all.
        num_processes: None means colipri.common.parallel.default_num_processes.
        num_parts: process only every ``num_parts``-th case. The part that finishes last writes the
            manifest.
        part_id: start at this case, 0 to ``num_parts - 1``.
        keep_going: skip broken cases (listed in manifest.json under "failed").

    Returns:
        Configuration -> its store, or None while other parts are still running.

    Raises:
        ColipriError: a case is broken (without ``keep_going``; what is finished stays), all cases
            are, or the folder cannot be written to.
    """

    if not 0 <= part_id < num_parts:
        raise ColipriError(
            f"--part_id must be 0 to {num_parts - 1} (--num_parts - 1), not {part_id}"
        )
    dataset = load_without(dataset, plans.left_out)
    if dataset.name != plans.dataset_name:
        raise ColipriError(f"this plan is for {plans.dataset_name}, not for {dataset.name}")
    _check_identifiers([case.identifier for case in dataset.cases])
    if plans.left_out:
        logger.warning(
            "%s: %s, as the plan says; plan again after correcting them",
            dataset.name,
            describe_left_out(plans.left_out),
        )
    names = list(configurations or plans.configurations)
    target = _target_folder(dataset)
    stores = {}
    for name in names:
        tasks = _make_tasks(dataset, plans, name, target)
        stores[name] = _preprocess_configuration(
            tasks,
            num_processes or default_num_processes(),
            num_parts,
            part_id,
            keep_going,
        )
    return stores


def _check_identifiers(identifiers: Sequence[str]) -> None:
    """Case names become file names, which must not collide with the store's own files."""
    if not identifiers:
        raise ColipriError("the data set has no cases")
    reserved = {Path(name).stem for name in (MANIFEST, REPORTS, CASES, LOCATION)}
    for name in identifiers:
        longest = max(len(os.fsencode(file)) for file in possible_files(name))
        if longest > 255:
            raise ColipriError(
                f"case '{name}': files named after it would have {longest} bytes in their name, "
                "255 are possible; rename the case"
            )
        if (
            name in reserved
            or name.endswith(("_tokens", "_seg", ".failed"))
            or name.startswith("shard-0")
        ):
            raise ColipriError(
                f"case '{name}': the store uses this name itself (manifest, reports, cases, "
                "location, *_tokens, *_seg, *.failed, shard-0*); rename the case"
            )


def _target_folder(dataset: RawDataset) -> Path:
    """Create $colipri_preprocessed/DatasetXXX with the dataset.json that training needs."""

    target = preprocessed_folder() / dataset.name
    atomic_write_json(target / "dataset.json", dataset.dataset_json)
    return target


def _make_tasks(dataset: RawDataset, plans: Plans, name: str, target: Path) -> list[CaseTask]:
    configuration = plans.configuration(name)
    folder = target / configuration.data_identifier
    cases = sorted(dataset.cases, key=lambda case: case.identifier)
    return [CaseTask(case, plans, configuration, folder) for case in cases]


def _preprocess_configuration(
    tasks: Sequence[CaseTask], num_processes: int, num_parts: int, part_id: int, keep_going: bool
) -> CaseStore | None:
    first = tasks[0]
    name, folder = first.configuration.data_identifier, first.folder
    mine = tasks[part_id::num_parts]
    _remove_leftovers(folder, mine, alone=num_parts == 1)
    counts = {"unchanged": 0, "metadata_updated": 0, "written": 0}
    packs = should_pack(folder, len(tasks))
    packer = Packer(folder, [task.case.identifier for task in mine])
    try:
        outcomes = run_parallel(preprocess_case, mine, num_processes, f"Preprocessing {name}")
        with closing(cast("Generator[Outcome[CaseTask, CaseResult], None, None]", outcomes)):
            for outcome in outcomes:
                status = _status(outcome, keep_going)
                if status is not None:
                    counts[status] += 1
                if packs:
                    packer.finished(outcome.item.case.identifier)
    except KeyboardInterrupt:
        # stop at once, not after the cases in progress; the next run makes those again
        _stop_workers()
        _remove_leftovers(folder, mine, alone=num_parts == 1)
        raise
    logger.info(
        "%s: %d cases written, %d only with new metadata, %d unchanged",
        name,
        counts["written"],
        counts["metadata_updated"],
        counts["unchanged"],
    )
    packer.finish()
    return _finish(tasks, keep_going, packs)


def _stop_workers() -> None:
    """Terminate this process's workers."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(timeout=10)


def _status(outcome: Outcome[CaseTask, CaseResult], keep_going: bool) -> str | None:
    """The status of a case; None if it is broken and skipped.

    Raises:
        ColipriError: the case is broken and ``keep_going`` is off, or the store is not writable.
    """
    if outcome.result is not None:
        if outcome.result.problem is not None:
            raise ColipriError(outcome.result.problem)
        return outcome.result.status
    case, problem = outcome.item.case.identifier, outcome.problem or "unknown problem"
    logger.debug("%s", outcome.details)
    if not problem.startswith(f"case {case}:"):
        problem = f"case {case}: {problem}"
    if not keep_going:
        raise ColipriError(f"{problem} (finished cases are kept; --keep_going skips broken cases)")
    logger.error("%s; skipped", problem)
    atomic_write_json(failure_file(outcome.item.folder, case), {"case": case, "problem": problem})
    return None


def _finish(tasks: Sequence[CaseTask], keep_going: bool, packs: bool) -> CaseStore | None:
    """Write the manifest if every case of the data set is accounted for."""
    first = tasks[0]
    name = first.configuration.data_identifier
    records, failed, missing = collect_records(tasks)
    if missing:
        logger.info(
            "%s: %d of %d cases belong to other parts and are not finished yet; the last part, or "
            "this command without --num_parts, completes the folder",
            name,
            len(missing),
            len(tasks),
        )
        return None
    if failed and not keep_going:
        case, problem = next(iter(failed.items()))
        raise ColipriError(f"{len(failed)} cases are broken, the first is {case}: {problem}")
    if not records:
        raise ColipriError(
            f"{name}: all {len(failed)} cases are broken: {next(iter(failed.values()))}"
        )
    write_manifest(first.plans, first.configuration, first.folder, records, failed, packs)
    if failed:
        logger.warning("%s: %d cases are skipped, see manifest.json", name, len(failed))
    return CaseStore(first.folder)


def _remove_leftovers(folder: Path, tasks: Sequence[CaseTask], alone: bool) -> None:
    """Delete partial files of killed runs, for these cases only: other parts may be writing."""
    mine = {MANIFEST, REPORTS} if alone else set()
    for task in tasks:
        case = task.case.identifier
        names = (*possible_files(case), f"{case}.json", failure_file(folder, case).name)
        mine.update(temporary_tail(name) for name in names)
    for path in folder.glob(TEMPORARY_MARK + "*"):
        match = _PARTIAL.fullmatch(path.name)
        whose = None if match is None else match.group(1)
        if whose is not None and (whose in mine or (alone and whose.startswith("shard-"))):
            path.unlink(missing_ok=True)
