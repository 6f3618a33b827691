"""Writing a plans file, and keeping the one that it replaces."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_bytes, atomic_write_json, read_json
from colipri.common.errors import ColipriError

logger = logging.getLogger(__name__)


def write_plans(target: Path, content: Mapping[str, Any]) -> None:
    """Write a plans file; a plan that was there and differs is kept under a numbered name.

    It may have been edited by hand, and cases may have been preprocessed with it.

    Args:
        target: The plans file.
        content: Plain data.

    Raises:
        ColipriError: the file cannot be written.
    """
    if target.is_file() and not _holds(target, content):
        kept = numbered_backup(target)
        atomic_write_bytes(kept, target.read_bytes())
        logger.info("The plan that was there differs; it is kept as %s", kept)
    atomic_write_json(target, dict(content))


def numbered_backup(target: Path) -> Path:
    """Return colipriPlans_before.json, colipriPlans_before_2.json, ...: the first that is free."""
    kept, number = target.with_name(f"{target.stem}_before.json"), 1
    while kept.exists():
        number += 1
        kept = target.with_name(f"{target.stem}_before_{number}.json")
    return kept


def _holds(target: Path, content: Mapping[str, Any]) -> bool:
    try:
        return bool(read_json(target) == content)
    except ColipriError:  # an edit that broke the file is kept as it is
        return False
