"""Does everything before the first step stay fast and small with 50,000 cases?

    python benchmarks/scale.py [--cases 50000] [--workers 2]

Writes a store of so many cases into a temporary folder: real reports' worth of text, records of
full size, and arrays that all cases share, so that 50,000 cases take megabytes. Then a process of
its own plans, splits, prepares all objectives, learns the vocabulary, makes the digests of a
checkpoint and loads the first batch, as colipri_train does. Prints seconds and memory of each part,
the sum beside the aim of 60 s and 2 GB (loader processes included), what grows with the cases, and
what that gives for 1,000,000.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

AIM_SECONDS, AIM_BYTES = 60.0, 2e9
DATASET = "Dataset999_Scale"
EXAMPLE_PLANS = Path(__file__).parents[1] / "tests" / "experiment_planning" / "example_plans.json"
DISTINCT_REPORTS = 2000
Row = tuple[str, float, float, int]  # part, seconds, CPU seconds of this process, bytes
POSITIVE = (
    "Small left pleural effusion.",
    "Nodule of {} mm in the right upper lobe.",
    "The heart is enlarged.",
    "Consolidation in the left lower lobe.",
    "Degenerative changes of the spine.",
    "Coronary artery calcification of {} vessels.",
    "Pericardial effusion of {} mm.",
    "Emphysema in both upper lobes.",
    "Cyst of {} mm in the liver.",
)
NEGATIVE = (
    "No pneumothorax.",
    "No enlarged lymph nodes.",
    "No pleural effusion.",
    "No consolidation or nodule.",
    "The trachea and main bronchi are open.",
    "No pericardial effusion.",
    "No fracture.",
    "No cardiomegaly.",
    "No emphysema.",
)


def drawn_report(rng: random.Random) -> dict[str, Any]:
    """A structured report of a dozen sentences."""
    from colipri.text.reports.report import Report
    from colipri.text.structured_report import structure_report

    said = [text.format(rng.randint(2, 40)) for text in rng.sample(POSITIVE, 4)]
    said += rng.sample(NEGATIVE, 5)
    said.append(f"Aortic diameter is {rng.randint(20, 45)} mm at the level of the carina.")
    rng.shuffle(said)
    sections = {"findings": " ".join(said), "impression": " ".join(said[:3])}
    return structure_report(Report(sections)).to_dict()


def write_fake_store(preprocessed: Path, cases: int) -> None:
    """A store in shards of ``cases`` cases, two reconstructions a study, every tenth held out."""
    from colipri.common.atomic import atomic_write_bytes, atomic_write_json
    from colipri.plans.plans import Plans
    from colipri.preprocessing.files import compress, write_reports
    from colipri.preprocessing.manifest import packed_manifest
    from colipri.preprocessing.records import plans_digest
    from colipri.preprocessing.shards import SealedRecords, sealed_records, shard_name

    content = json.loads(EXAMPLE_PLANS.read_text())
    content["dataset_name"] = DATASET
    plans = Plans.from_dict(content)
    configuration = plans.configuration("3d_lowres")
    folder = preprocessed / DATASET / configuration.data_identifier
    atomic_write_json(folder.parent / "colipriPlans.json", content)
    atomic_write_json(folder.parent / "dataset.json", {"channel_names": {"0": "CT"}})
    shape = (1, *configuration.patch_size)
    volume = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    grid = np.ones([size // 4 for size in configuration.patch_size], np.uint8)
    frames = [compress(volume, configuration.patch_size), compress(grid, None)]
    rng = random.Random(0)
    distinct = [drawn_report(rng) for _ in range(DISTINCT_REPORTS)]
    names = [f"train_{number:06d}_a_{number % 2 + 1}" for number in range(cases)]
    files = {f"image{end}": {"bytes": 10**7, "sha256": "0" * 64} for end in (".b2nd", "_t.b2nd")}
    shard = shard_name(0, [{"files": files}])
    place = {"shard": shard, "offset": 0, "sizes": list(map(len, frames))}
    records = {
        name: {
            "case": name,
            "files": files,
            "report": distinct[number % DISTINCT_REPORTS],
            "place": {**place, "pieces": [[203 + 10 * n, 10] for n in range(8)]},
        }
        for number, name in enumerate(names)
    }
    atomic_write_bytes(folder / f"{shard}.b2shard", b"".join(frames))
    size = sum(map(len, frames))
    head = {"shard": shard, "bytes": size, "sha256": "0" * 64}
    lines = [head, *({"case": name, "place": place} for name in names)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    atomic_write_bytes(folder / f"{shard}.jsonl", text.encode())
    assert isinstance(sealed_records(folder), SealedRecords)
    places = write_reports(folder / "reports.jsonl", {n: r["report"] for n, r in records.items()})
    findings = [f"Finding {number}" for number in range(18)]
    manifest = {
        "dataset_name": DATASET,
        "plans_name": plans.plans_name,
        "plans_digest": plans_digest(plans, configuration),
        "token_patch_size": configuration.token_patch_size,
        "cell_size": [4, 4, 4],
        "pad_value": -1024.0,
        "failed": {},
        "left_out": {},
        "cases": {
            name: {
                "subject": f"patient_{number // 2}",
                "study": f"study_{number // 2}",
                "split": "test" if number // 2 % 10 == 0 else "",
                "dataset": DATASET,
                "findings": {f: (number // 2 + k) % 3 % 2 for k, f in enumerate(findings)},
                "has_report": True,
                "shape": list(shape),
                "body_fraction": 0.5,
                "files": files,
            }
            for number, name in enumerate(names)
        },
    }
    atomic_write_json(folder / "manifest.json", packed_manifest(folder, manifest, records, places))


@contextmanager
def part(name: str, rows: list[Row]) -> Iterator[None]:
    """Note seconds, CPU seconds and memory (of this process and its children) of a block."""
    started, cpu = time.perf_counter(), time.process_time()
    yield
    spent = time.perf_counter() - started
    rows.append((name, spent, time.process_time() - cpu, resident()))


def resident() -> int:
    """Bytes of this process and its children; pages that they share count once (PSS)."""
    pids, total = [os.getpid()], 0
    for pid in pids:
        try:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += map(int, children.read_text().split())
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
    return total


def fake_fingerprint(cases: int) -> dict[str, Any]:
    """What colipri_extract_fingerprint keeps of so many cases (its lists have one row each)."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from experiment_planning.fingerprints import make_fingerprint

    rng = np.random.default_rng(0)
    spacings = rng.uniform([0.6, 0.6, 0.6], [2.5, 0.95, 0.95], (cases, 3))
    extents = rng.uniform([250, 260, 320], [420, 330, 410], (cases, 3))
    return dict(make_fingerprint(spacings.tolist(), extents.tolist()))


def measure(cases: int, workers: int) -> None:
    """Everything that colipri_train does before its first step; prints JSON."""
    import torch

    from colipri.dataloading.splits import load_split
    from colipri.experiment_planning.planner import ColipriPlanner
    from colipri.objectives.registry import build_objectives
    from colipri.plans.plans import load_plans
    from colipri.preprocessing.manifest import check_preprocessed
    from colipri.training.data import TrainingData
    from colipri.training.options import RunOptions
    from colipri.training.validation_plan import plan_validation

    torch.set_num_threads(1)
    rows: list[Row] = []
    start = resident()
    fingerprint = fake_fingerprint(cases)
    with part("planner", rows):
        ColipriPlanner(fingerprint).plan()
    del fingerprint
    plans = load_plans(DATASET)
    configuration = plans.configuration("3d_lowres")
    with part("open and check the store", rows):
        store = check_preprocessed(DATASET, plans, "3d_lowres")
    with part("splits (made and checked)", rows):
        load_split(store, 0)
    objectives = build_objectives(
        {"contrastive": {}, "report_generation": {}, "masked_image_modelling": {}}
        | {"opposite_sentence": {}}
    )
    with part("cases and objectives", rows):
        data = TrainingData(plans, configuration, 0, RunOptions(num_workers=workers), 2, objectives)
    with part("vocabulary", rows):
        _ = data.tokenizer
    with part("what validation can measure", rows):
        plan_validation(data.store, data.validated_cases, objectives, plans.findings, "short")
    with part("digests for checkpoints", rows):
        _ = data.digests
    with part("lengths of all texts", rows):
        data.check_texts()
    with part("sampler and first batch", rows):
        data.start_training(0)
        batch = data.next_batch()
    with part("next 10 batches", rows):
        for _ in range(10):
            batch = data.next_batch()
    print(json.dumps({"start": start, "rows": rows, "batch": len(batch)}))
    data._batches.close()  # ends the loader processes


def report(cases: int, result: dict[str, Any], disk: int) -> None:
    """Print the table, the sums, and one million cases on paper."""
    rows = [row for row in result["rows"] if row[0] != "next 10 batches"]
    print(f"{cases:,} cases; {disk / 1e6:.0f} MB of tables and reports on disk")
    print(f"{'part':32s} {'s':>7s} {'CPU s':>7s} {'MB in all processes':>20s}")
    for name, seconds, cpu, memory in result["rows"]:
        print(f"{name:32s} {seconds:7.2f} {cpu:7.2f} {memory / 1e6:20.0f}")
    seconds, memory = sum(row[1] for row in rows), max(row[3] for row in result["rows"])
    print(
        f"until the first batch: {seconds:.1f} s (aim {AIM_SECONDS:.0f}): "
        f"{seconds / AIM_SECONDS:.2f} of the aim; "
        f"{sum(row[2] for row in rows):.1f} s of the CPU, without loader processes"
    )
    print(
        f"largest memory: {memory / 1e9:.2f} GB (aim {AIM_BYTES / 1e9:.0f}): "
        f"{memory / AIM_BYTES:.2f} of the aim; {result['start'] / 1e9:.2f} GB of it before the "
        "first case"
    )
    growing = seconds / cases
    per_case = (memory - result["start"]) / cases
    print(
        f"1,000,000 cases on paper, if all of this grew with the cases: {growing * 1e6 / 60:.0f} "
        f"minutes, {(result['start'] + per_case * 1e6) / 1e9:.1f} GB, and "
        f"{disk / cases * 1e6 / 1e9:.1f} GB of tables on disk"
    )


def main() -> None:
    """Write the store, measure in a process of its own, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.cases, options.workers)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_fake_store(folder, options.cases)
        disk = sum(path.stat().st_size for path in folder.rglob("*.json*"))
        words = [sys.executable, __file__, "--measure", "--cases", str(options.cases)]
        process = subprocess.run(
            [*words, "--workers", str(options.workers)],
            env={**os.environ, "colipri_preprocessed": temporary},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        report(options.cases, json.loads(process.stdout.splitlines()[-1]), disk)


if __name__ == "__main__":
    main()
