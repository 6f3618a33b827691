"""Moving a store in shards to another place, verifying it, and using it from there.

A place is a folder or a URL of fsspec (s3://bucket/folder). The manifest arrives last: a place
without it is half moved and is not used. Files that have arrived whole are not copied again. Plan,
fingerprint, splits and description travel along (colipri.preprocessing.store_companions).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_bytes, atomic_write_json
from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.preprocessing.files import write_reports
from colipri.preprocessing.line_table import LineTable
from colipri.preprocessing.manifest import packed_manifest
from colipri.preprocessing.packing import Packer
from colipri.preprocessing.records import STORE_VERSION, possible_files, read_record
from colipri.preprocessing.shard_reading import location_of
from colipri.preprocessing.shards import LOCATION, SHARD_ENDING
from colipri.preprocessing.store import MANIFEST, REPORTS, CaseStore
from colipri.preprocessing.store_companions import put_companions
from colipri.preprocessing.store_place import Place, difference, file_blocks

logger = logging.getLogger(__name__)

_SHOWN = 3  # problems that an error names


def pack_store(folder: Path) -> CaseStore:
    """Pack a finished store of single files into shards.

    Raises:
        ColipriError: it is not finished, or a file is damaged.
    """
    store = CaseStore(folder)
    if store.manifest["store_version"] != STORE_VERSION:
        return store
    cases = store.identifiers()
    packer = Packer(folder, cases)
    for case in progress(cases, "packing"):
        packer.finished(case)
    packer.finish()
    records = {case: require_record(folder, case) for case in cases}
    reports = {name: record["report"] for name, record in records.items() if record["report"]}
    places = write_reports(folder / REPORTS, reports)
    atomic_write_json(folder / MANIFEST, packed_manifest(folder, store.manifest, records, places))
    return CaseStore(folder)


def require_record(folder: Path, case: str) -> dict[str, Any]:
    """Return the record of a case of a finished store.

    Raises:
        ColipriError: it or its arrays are missing.
    """
    record = read_record(folder, case)
    if record is None:
        raise ColipriError(
            f"case {case}: its files in {folder} are missing or cut off; run colipri_preprocess "
            "again"
        )
    return record


def move_store(folder: Path, target: str, keep: bool = False) -> None:
    """Move the shards of a store to another place, and read them from there from now on.

    Args:
        folder: of the store.
        target: folder or URL.
        keep: copy, and go on reading the shards from here.

    Raises:
        ColipriError: the target holds another store, a file here is damaged, or the storage cannot
            be reached. What has arrived stays, and the same command continues.
    """
    manifest = pack_store(folder).manifest
    files: dict[str, dict[str, Any]] = manifest["files"]
    place = Place(target)
    content = (folder / MANIFEST).read_bytes()
    there = place.sizes()
    if MANIFEST in there and place.read(MANIFEST) != content:
        raise ColipriError(f"{place.url} holds another store; choose an empty folder")
    if MANIFEST not in there:
        waiting = [name for name in files if there.get(name) != files[name]["bytes"]]
        for name in progress(waiting, f"moving to {place.url}"):
            _require_sound(folder / name, files[name])
            place.put(folder / name)
        _require_arrived(place, files)
    put_companions(place, folder, manifest)
    if MANIFEST not in there:
        place.put_bytes(MANIFEST, content)
    logger.info("%d files are whole in %s", len(files) + 1, place.url)
    if not keep:
        _let_go(folder, place, files)


def _let_go(folder: Path, place: Place, files: Mapping[str, Any]) -> None:
    """Point to the place first, then remove the shards here."""
    url = place.url if "://" in place.url else str(Path(place.url).absolute())
    atomic_write_json(folder / LOCATION, {"url": url})
    for name in files:
        if name.endswith(SHARD_ENDING):
            (folder / name).unlink(missing_ok=True)
    logger.info("%s now reads its shards from there", folder)


def fetch_store(source: str, folder: Path, with_shards: bool = False) -> None:
    """Make a store that was moved to ``source`` usable in ``folder``.

    Args:
        source: folder or URL.
        folder: of the store here; made if it is absent.
        with_shards: copy the shards as well; otherwise they are read from ``source``.

    Raises:
        ColipriError: the store there is not whole, or cannot be reached.
    """
    place = Place(source)
    there = place.sizes()
    manifest = _manifest_of(place, there)
    wrong = [n for n, about in manifest["files"].items() if there.get(n) != about["bytes"]]
    if wrong:
        raise ColipriError(_half_moved(place.url, len(wrong), len(manifest["files"]), wrong[0]))
    url = place.url if "://" in place.url else str(Path(place.url).absolute())
    if not with_shards:
        atomic_write_json(folder / LOCATION, {"url": url})
    names = [n for n in manifest["files"] if with_shards or not n.endswith(SHARD_ENDING)]
    for name in progress(names, f"fetching {place.url}"):
        place.fetch(name, folder / name, manifest["files"][name])
    if with_shards:
        (folder / LOCATION).unlink(missing_ok=True)
    atomic_write_bytes(folder / MANIFEST, place.read(MANIFEST))


def verify_store(folder: Path) -> list[str]:
    """Compare every file of a store, wherever it is, with the checksum that was written with it.

    Returns:
        One line per problem; none if the store is whole and sound.
    """
    manifest = CaseStore(folder).manifest
    problems = []
    if manifest["store_version"] == STORE_VERSION:
        files = {n: a for r in manifest["cases"].values() for n, a in r["files"].items()}
    else:
        files = manifest["files"]
    url = location_of(folder)
    for name, about in progress(list(files.items()), f"verifying {folder.name}"):
        path = folder / name
        elsewhere = url is not None and not path.is_file() and name.endswith(SHARD_ENDING)
        shown = f"{url}/{name}" if elsewhere else str(path)
        try:
            blocks = Place(str(url)).blocks(name) if elsewhere else file_blocks(path)
            problem = difference(blocks, about)
        except (OSError, ColipriError) as error:
            problem = f"cannot be read ({error})"
        if problem:
            problems.append(f"{shown}: {problem}{_cases_in(manifest, name)}")
    return problems


def _manifest_of(place: Place, there: Mapping[str, int]) -> dict[str, Any]:
    if MANIFEST not in there:
        shards = sum(name.endswith(SHARD_ENDING) for name in there)
        if shards:
            raise ColipriError(
                f"{place.url} holds {shards} shards but no {MANIFEST}: the store is half moved; "
                "run the same colipri_store move again where it came from"
            )
        raise ColipriError(f"{place.url} holds no store (no {MANIFEST})")
    manifest: dict[str, Any] = json.loads(place.read(MANIFEST))
    if "files" not in manifest:
        raise ColipriError(f"{place.url} is a store of single files; use it as a local folder")
    return manifest


def _require_sound(path: Path, about: Mapping[str, Any]) -> None:
    problem = difference(file_blocks(path), about) if path.is_file() else "is missing"
    if problem:
        raise ColipriError(
            f"{path}: {problem}; delete it and run colipri_preprocess again before moving"
        )


def _require_arrived(place: Place, files: Mapping[str, Mapping[str, Any]]) -> None:
    there = place.sizes()
    wrong = [name for name in files if there.get(name) != files[name]["bytes"]]
    if wrong:
        raise ColipriError(_half_moved(place.url, len(wrong), len(files), wrong[0]))


def _half_moved(url: str, wrong: int, total: int, first: str) -> str:
    return (
        f"{url} is half moved: {wrong} of {total} files are missing or cut off, the first is "
        f"{first}; run the same colipri_store move again"
    )


def _cases_in(manifest: Mapping[str, Any], name: str) -> str:
    """Name the cases that a damaged file holds."""
    shard = name.removesuffix(SHARD_ENDING)
    cases = [
        case
        for case, record in _whole_records(manifest["cases"])
        if record.get("place", {}).get("shard") == shard
        or ("place" not in record and name in possible_files(case))
    ]
    if not cases:
        return ""
    more = f" and {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else ""
    return f" (cases {', '.join(cases[:_SHOWN])}{more})"


def _whole_records(cases: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for case in cases:
        yield case, cases.whole(case) if isinstance(cases, LineTable) else cases[case]
