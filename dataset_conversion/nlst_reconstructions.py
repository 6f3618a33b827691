"""Which reconstructions of a screening exam are worth keeping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colipri.common.errors import ColipriError

# Reconstruction filters of the four vendors in the trial (the codes of the trial's own tables, and
# what series descriptions call them). Soft ones show the mediastinum and the least noise.
_SOFT = (
    "STANDARD",
    "B20F",
    "B30F",
    "B31F",
    "B40F",
    "B35F",
    "FC01",
    "FC02",
    "FC10",
    "FC13",
    "C",
    "B",
)
_SHARP = ("BONE", "LUNG", "BODYFILTER", "B45F", "B50F", "B60F", "B70F", "B80F", "FC30", "FC50",
          "FC51", "FC52", "FC53", "FC82", "D")  # fmt: skip
_LOCALISER = re.compile(r"LOCALI[SZ]ER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM", re.IGNORECASE)
_SEPARATORS = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class Reconstruction:
    """One series: its file, its kernel ("" if the name says nothing) and its number of slices."""

    file: Path
    kernel: str
    slices: int


def read_reconstruction(file: Path) -> Reconstruction:
    """The kernel from the name, the slices from the header.

    Raises:
        ColipriError: the header cannot be read, or it is no volume.
    """
    from colipri.imageio.reading import read_header

    header = read_header(file)
    if header.dimension != 3:
        raise ColipriError(f"the image is no volume: {file} has size {header.shape}")
    return Reconstruction(file, kernel_of(file.name), int(header.shape[2]))


def kernel_of(name: str) -> str:
    """The reconstruction filter in a series description such as "0,OPL,GE,HSQX,STANDARD,350,2".

    Example:
        >>> kernel_of("2-0OPLGEHSQXSTANDARD350.nii.gz"), kernel_of("1_OPA_SE_VZOOM_B30f.nii.gz")
        ('STANDARD', 'B30F')
    """
    words = [word.upper() for word in _SEPARATORS.split(name)]
    known = (*_SOFT, *_SHARP)
    exact = [kernel for kernel in known if kernel in words]
    # File names from TCIA have lost their commas; single letters would then be found anywhere.
    within = [k for k in known if len(k) >= 4 and any(k in word for word in words)]
    found = exact or within
    return max(found, key=len) if found else ""


def choose(found: Sequence[Reconstruction], most: int, min_slices: int) -> dict[Path, str]:
    """File -> why it is left out, for those that are."""
    reasons: dict[Path, str] = {}
    best: dict[str, Reconstruction] = {}
    for one in sorted(found, key=lambda r: (-r.slices, r.file.name)):
        if _LOCALISER.search(one.file.name):
            reasons[one.file] = "a localiser"
        elif one.slices < min_slices:
            reasons[one.file] = f"too few slices: {one.slices}, {min_slices} are needed"
        elif one.kernel in best and one.kernel:
            reasons[one.file] = f"not chosen, same kernel: {best[one.kernel].file.name}"
        else:
            best[one.kernel or one.file.name] = one
    ranked = sorted(best.values(), key=lambda r: (_rank(r.kernel), -r.slices, r.file.name))
    for one in ranked[most:]:
        reasons[one.file] = f"not chosen, {most} others of the exam: {ranked[0].file.name}"
    return reasons


def _rank(kernel: str) -> int:
    """Soft, then unknown, then sharp."""
    return 0 if kernel in _SOFT else 2 if kernel in _SHARP else 1
