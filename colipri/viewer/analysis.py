"""What is computed of a scan, each step once: read, encode, score, map, compare, write."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.imageio.body import find_ct_channel
from colipri.imageio.image import MedicalImage
from colipri.inference.heatmap_files import heat_maps_of
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.inference.volume import PreparedVolume
from colipri.viewer.drafts import Draft
from colipri.viewer.jobs import Note
from colipri.viewer.neighbours import KnownScans, Neighbour
from colipri.viewer.pictures import ShownScan, heat_file, show_scan, strongest_millimetres
from colipri.viewer.scans import INDEX, ListedScan, ScanList
from colipri.viewer.scores import Heads, ZeroShot

_KEPT_SCANS = 3  # with their voxels; a 512 x 512 x 600 scan takes 1 GB
_KEPT_MAPS = 20
LONGEST_FINDING = 4000  # characters
MOST_NEIGHBOURS = 10


@dataclass
class OpenScan:
    """What is known of a scan so far."""

    shown: ShownScan
    about: dict[str, Any]
    image: MedicalImage | None  # until it is prepared
    volume: PreparedVolume | None = None
    encoded: EncodedImage | None = None
    maps: OrderedDict[str, tuple[dict[str, Any], bytes]] = field(default_factory=OrderedDict)


class Analysis:
    """The model's answers.

    Args:
        predictor: the model.
        scans: the list.
        zero_shot: scores by text; None for a model without a text encoder.
        heads: of colipri_probe.
        known: scans that are compared, or None.
        drafts: who can write a report.
    """

    def __init__(
        self,
        predictor: ColipriPredictor,
        scans: ScanList,
        zero_shot: ZeroShot | None,
        heads: Heads,
        known: KnownScans | None,
        drafts: dict[str, Draft],
    ) -> None:
        self.predictor, self.scans, self.zero_shot = predictor, scans, zero_shot
        self.heads, self.known, self.drafts = heads, known, drafts
        self._open: OrderedDict[str, OpenScan] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    # ---------------------------------------------------------------- reading

    def open(self, scan: ListedScan, note: Note) -> dict[str, Any]:
        """Read and check a scan; return what the page shows of it.

        Raises:
            ColipriError: it cannot be read, or the model cannot be asked about it.
        """
        return self._opened(scan, note).about

    def _opened(self, scan: ListedScan, note: Note) -> OpenScan:
        with self._lock:
            found = self._open.get(scan.identifier)
        if found is None:
            note("reading")
            found = self._read(scan)
        with self._lock:
            self._open[scan.identifier] = found
            self._open.move_to_end(scan.identifier)
            while len(self._open) > _KEPT_SCANS:
                self._open.popitem(last=False)
        return found

    def _read(self, scan: ListedScan) -> OpenScan:
        try:
            image = self.predictor.read(scan.image)
        except ColipriError as error:
            raise ColipriError(scan.explain(error)) from error
        ct = find_ct_channel(self.predictor.plans.channel_names)
        shown = show_scan(image, ct or 0)
        about = {
            **scan.plain(),
            "hounsfield": ct is not None,
            "shape": list(shown.shape),
            "spacing": [round(step, 4) for step in shown.spacing],
            "steps": list(shown.steps),
            "limits": list(shown.limits),
            "bytes": len(shown.content),
        }
        return OpenScan(shown, about, image)

    def voxels(self, identifier: str) -> bytes:
        """Return the NIfTI file of an open scan.

        Raises:
            ColipriError: it is not open any more.
        """
        return self._get(identifier).shown.content

    def map_file(self, identifier: str, number: str) -> bytes:
        """Return the NIfTI file of a heat map.

        Raises:
            ColipriError: the scan or the map is not kept any more.
        """
        for about, content in list(self._get(identifier).maps.values()):
            if about["map"] == number:
                return content
        raise ColipriError("this heat map is not kept any more; ask for it again")

    def close(self, identifier: str) -> None:
        """Forget a scan."""
        with self._lock:
            self._open.pop(identifier, None)

    def _get(self, identifier: str) -> OpenScan:
        with self._lock:
            found = self._open.get(identifier)
        if found is None:
            raise ColipriError("this scan is not open any more; choose it again in the list")
        return found

    # ---------------------------------------------------------------- the model

    def encode(self, scan: ListedScan, note: Note) -> tuple[PreparedVolume, EncodedImage]:
        """Return a scan, prepared and encoded; from memory where it was asked for before."""
        found = self._opened(scan, note)
        try:
            if found.volume is None:
                note("preparing the scan for the model")
                assert found.image is not None
                found.volume = self.predictor.prepare_read(scan.name, found.image)
                found.image = None
            if found.encoded is None:
                note("encoding the scan")
                found.encoded = self.predictor.encode(found.volume)
        except ColipriError as error:
            raise ColipriError(scan.explain(error)) from error
        return found.volume, found.encoded

    def score(self, scan: ListedScan, note: Note) -> dict[str, Any]:
        """Return the probabilities of the findings, of heads first."""
        volume, encoded = self.encode(scan, note)
        note("scoring")
        tables = self.heads.score(volume, encoded)
        by_text = None if self.zero_shot is None else self.zero_shot.score(encoded)
        return {"tables": [asdict(one) for one in (*tables, by_text) if one is not None]}

    def heat(self, scan: ListedScan, finding: str, note: Note) -> dict[str, Any]:
        """Return score, limits and strongest place of a finding; its map is kept.

        Args:
            scan: of the list.
            finding: in any words.
            note: takes a line of progress.

        Raises:
            ColipriError: an empty or very long finding, or a model without a text encoder.
        """
        if self.zero_shot is None:
            raise ColipriError("this model has no text encoder: it cannot look for words")
        if len(finding) > LONGEST_FINDING:
            raise ColipriError(f"a finding may have {LONGEST_FINDING:,} characters")
        pairs, texts = self.zero_shot.prompts([finding])
        volume, encoded = self.encode(scan, note)
        found = self._opened(scan, note)
        if finding not in found.maps:
            note("comparing every place with the text")
            (heat,) = heat_maps_of(self.predictor, volume, encoded, pairs, texts)
            low, high, highest = (
                float(value) for value in np.nanpercentile(heat.heat, [50, 99.8, 100])
            )
            about = {
                "map": f"m{next(self._numbers)}",
                "finding": finding,
                "positive": heat.positive[0],
                "negative": heat.negative[0],
                "probability": heat.probability,
                "low": low,
                "high": max(high, low + 1e-6),
                "highest": highest,
                "place": strongest_millimetres(heat),
            }
            found.maps[finding] = (about, heat_file(heat))
            while len(found.maps) > _KEPT_MAPS:
                found.maps.popitem(last=False)
        return found.maps[finding][0]

    def nearest(self, scan: ListedScan, note: Note) -> dict[str, Any]:
        """Return the most similar known scans; they can be opened where their files are there.

        Raises:
            ColipriError: there are no known scans.
        """
        if self.known is None:
            raise ColipriError("no index was given (--index)")
        _, encoded = self.encode(scan, note)
        note("comparing with the known scans")
        found = self.known.nearest(encoded.embedding.numpy(), scan.image, MOST_NEIGHBOURS)
        return {"searched": self.known.description, "found": [self._plain(one) for one in found]}

    def _plain(self, one: Neighbour) -> dict[str, Any]:
        image = one.image()
        return {
            "id": None if image is None else self.scans.add(image, INDEX).identifier,
            "name": one.name,
            "similarity": one.similarity,
            "findings": list(one.findings),
            "facts": one.facts,
            "report": one.report,
        }

    def report(self, scan: ListedScan, writer: str, note: Note) -> dict[str, Any]:
        """Return a draft of the report.

        Args:
            scan: of the list.
            writer: one of ``drafts``.
            note: takes a line of progress.

        Raises:
            ColipriError: there is no such writer.
        """
        write = self.drafts.get(writer)
        if write is None:
            raise ColipriError("this model cannot write with that; load the page again")
        _, encoded = self.encode(scan, note)
        note("writing")
        return {"writer": writer, "text": write(encoded)}

    def work(self, kind: str, scan: ListedScan, argument: str) -> Any:
        """Return what a job does.

        Args:
            kind: open, score, heat, nearest or report.
            scan: of the list.
            argument: the finding, or the writer.

        Raises:
            ColipriError: there is no such kind.
        """
        if kind in ("heat", "report"):
            return partial(getattr(self, kind), scan, argument)
        if kind in ("open", "score", "nearest"):
            return partial(getattr(self, kind), scan)
        raise ColipriError("there is no such work")
