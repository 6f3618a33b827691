"""Writers that write no word of their own: the nearest report, and the report of the findings.

They are honest competitors of every language model (the winner of VLM3D 2026 looks up a text for
the predicted combination of labels), and the controls of colipri_evaluate_reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Protocol

import numpy as np
from torch import Tensor

from colipri.inference.predictor import EncodedImage
from colipri.writers.finding_head import FindingHead
from colipri.writers.training_reports import EncodedReports, nearest_rows

_MOST_COMPARED = 2000  # reports of one combination that are compared with each other


class ImageWriter(Protocol):
    """Writes the report of an encoded image.

    A writer that also has ``write_many`` (list of images -> list of reports) gets several at once.
    """

    def write(self, encoded: EncodedImage) -> str:
        """Write the report of one encoded volume."""


def write_in_batches(
    writer: ImageWriter, images: Iterable[EncodedImage], size: int
) -> Iterator[tuple[EncodedImage, str]]:
    """Yield every image with its report, in order.

    Args:
        writer: Of the reports.
        images: Encoded.
        size: Most images that are written together.
    """
    many = getattr(writer, "write_many", None)
    if many is None:
        yield from ((image, writer.write(image)) for image in images)
        return
    remaining = iter(images)
    while batch := list(islice(remaining, size)):
        yield from zip(batch, many(batch), strict=True)


class NearestWriter:
    """The report of the training image with the highest cosine.

    Args:
        reports: Training cases with a report.
    """

    def __init__(self, reports: EncodedReports) -> None:
        self.reports = reports.with_reports()

    def write(self, encoded: EncodedImage) -> str:
        """Return the report of the nearest training image."""
        return self.write_of_embeddings(encoded.embedding[None])[0]

    def write_of_embeddings(self, embeddings: Tensor) -> list[str]:
        """Return n reports for embeddings (n, E)."""
        rows = nearest_rows(embeddings, self.reports.embeddings).tolist()
        return [self.reports.texts[row] for row in rows]


class LabelWriter:
    """The most typical training report of the predicted combination of findings.

    Most typical: the one with the highest mean cosine of TF-IDF vectors to the others of the same
    combination. If no training report has the combination, the one that differs in the fewest
    findings stands in (of several the most frequent).

    Args:
        reports: Training cases with a report and labels; unknown labels count as absent.
        head: Predicts the findings of embeddings.
        decide: Predicts the findings of an encoded image instead, in the order of the reports'
            labels.
    """

    def __init__(
        self,
        reports: EncodedReports,
        head: FindingHead | None = None,
        decide: Callable[[EncodedImage], Sequence[bool]] | None = None,
    ) -> None:
        self.reports, self.head, self._decide = reports.with_reports(), head, decide
        found = np.nan_to_num(self.reports.labels) == 1
        self._groups: dict[tuple[bool, ...], list[int]] = {}
        for row, labels in enumerate(found.tolist()):
            self._groups.setdefault(tuple(labels), []).append(row)
        self._typical = cache(self._find_typical)

    def write(self, encoded: EncodedImage) -> str:
        """Return the report of the findings that the head predicts."""
        if self._decide is not None:
            return self.report_of(tuple(self._decide(encoded)))
        return self.write_of_embeddings(encoded.embedding[None])[0]

    def write_of_embeddings(self, embeddings: Tensor) -> list[str]:
        """Return n reports for embeddings (n, E)."""
        assert self.head is not None
        predicted = self.head.decide(embeddings.double().numpy())
        return [self.report_of(tuple(map(bool, row))) for row in predicted.tolist()]

    def report_of(self, combination: tuple[bool, ...]) -> str:
        """Return the typical report of a combination of findings."""
        return self.reports.texts[self._typical(self._known(combination))]

    def _known(self, combination: tuple[bool, ...]) -> tuple[bool, ...]:
        if combination in self._groups:
            return combination

        def distance(other: tuple[bool, ...]) -> tuple[int, int]:
            differing = sum(a != b for a, b in zip(combination, other, strict=True))
            return differing, -len(self._groups[other])

        return min(self._groups, key=distance)

    def _find_typical(self, combination: tuple[bool, ...]) -> int:
        rows = self._groups[combination][:_MOST_COMPARED]
        return rows[most_typical([self.reports.texts[row] for row in rows])]


def most_typical(texts: Sequence[str]) -> int:
    """Return the position of the text most similar to all others (cosine of TF-IDF vectors)."""
    if len(texts) < 3:
        return 0
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True).fit_transform(texts)
    similarity = vectors @ np.asarray(vectors.sum(axis=0)).ravel()
    return int(np.argmax(np.round(similarity, 9)))
