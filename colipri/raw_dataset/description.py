"""dataset.json: what a data set or a collection of data sets is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.raw_dataset.table import FIXED_COLUMNS
from colipri.text.reports_without_findings import SHARE_KEY, allowed_share


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check dataset.json (a member list, or channels and file ending).

    Args:
        folder: of the data set or collection.

    Raises:
        ColipriError: the file is missing or a key is missing or wrong.
    """
    path = folder / "dataset.json"
    description = read_json(path)
    if not isinstance(description, dict):
        raise ColipriError(f"{path} must be an object with channel_names and file_ending")
    if "members" in description:
        members = description["members"]
        if not (isinstance(members, list) and members and all(isinstance(m, str) for m in members)):
            raise ColipriError(f"{path}: members must be a list of data set names")
        return description
    for key, kind in (("channel_names", dict), ("file_ending", str)):
        if not isinstance(description.get(key), kind) or not description[key]:
            raise ColipriError(
                f"{path} needs '{key}', for example "
                + ('{"0": "CT"}' if key == "channel_names" else '".nii.gz"')
            )
    ending = description["file_ending"]
    if not ending.startswith("."):
        raise ColipriError(f"{path}: file_ending '{ending}' lacks its dot; write '.{ending}'")
    channels = description["channel_names"]
    if set(channels) != {str(number) for number in range(len(channels))}:
        raise ColipriError(f'{path}: channel_names must be numbered "0", "1", ...')
    try:
        allowed_share(description)
    except ColipriError as error:
        raise ColipriError(f"{path}: {error}") from error
    findings = description.get("findings", [])
    if not isinstance(findings, list) or not all(isinstance(name, str) for name in findings):
        raise ColipriError(f"{path}: findings must be a list of names")
    if len(set(findings)) != len(findings) or set(findings) & set(FIXED_COLUMNS):
        raise ColipriError(
            f"{path}: findings must differ from each other and from {', '.join(FIXED_COLUMNS)}"
        )
    return description


def merge_descriptions(where: str, members: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Merge channel_names, file_ending, findings and labels of data sets trained together.

    Reports without findings are allowed as the most generous member states.

    A finding that a member has no column for is unknown in its cases. Findings that differ only in
    spelling are an error: each would be unknown in the other's cases, and nobody would notice.

    Labels are merged if all members that name some name the same: a value of one member would mean
    something else in another one, or a label that it does not draw would seem to be absent.

    Args:
        where: name of the collection, for errors.
        members: name -> content of dataset.json, in order.

    Raises:
        ColipriError: a member is a collection, or channels or findings do not match.
    """
    merged: dict[str, Any] = {}
    first = next(iter(members))
    spelling: dict[str, tuple[str, str]] = {}  # folded -> finding, member
    for name, description in members.items():
        if "members" in description:
            raise ColipriError(f"{where}: {name} is itself a collection; name its members instead")
        channels = dict(description["channel_names"])
        if merged and channels != merged["channel_names"]:
            raise ColipriError(
                f"{where}: {name} has the channels {_listed(channels)}, {first} has "
                f"{_listed(merged['channel_names'])}; only images of the same modality can be "
                "trained together (correct channel_names in dataset.json if they are)"
            )
        if not merged:
            merged = {"channel_names": channels, "file_ending": description["file_ending"]}
        for finding in description.get("findings", []):
            folded = re.sub(r"[^a-z0-9]", "", finding.casefold()) or finding
            known, member = spelling.setdefault(folded, (finding, name))
            if known != finding:
                raise ColipriError(
                    f"{where}: the finding '{finding}' of {name} is called '{known}' in {member}; "
                    "give it one name in both (dataset.json and cases.csv)"
                )
    shares = [allowed_share(d) for d in members.values() if SHARE_KEY in d]
    if shares:
        merged[SHARE_KEY] = max(shares)
    merged["findings"] = [finding for finding, _ in spelling.values()]
    labels = [d["labels"] for d in members.values() if has_labels(d)]
    if labels and all(one == labels[0] for one in labels):
        merged["labels"] = labels[0]
    return merged


def has_labels(description: Mapping[str, Any]) -> bool:
    """True if a dataset.json names labels beside the background."""
    return bool(set(description.get("labels") or ()) - {"background"})


def _listed(channels: Mapping[str, str]) -> str:
    return ", ".join(f"{number}: {channels[number]}" for number in sorted(channels, key=int))
