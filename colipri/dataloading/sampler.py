"""Which cases make up which batch: study-aware, endless, and a function of (seed, position) alone.

Two reconstructions of one study share one report; as each other's negatives they would teach the
model to tell kernels apart. A batch therefore holds distinct studies: in every pass over the data
each study comes up once, with one of its reconstructions drawn at random. Equal reports of
different patients cannot be kept apart like that (there are hundreds of equal normal reports, see
colipri.text.prompts.same_text), so they stay in the batch and become further positives
(colipri.objectives.contrastive).

Batch number n depends on the seed and n only. Resuming is therefore setting the position, and all
processes of a run draw the same global batches (colipri.dataloading.sharing).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed


class SampleKey(NamedTuple):
    """One sample: which case, and its number since training began (seeds its random numbers).

    Without ``image`` only the text is read, for example because another process encodes the image;
    without ``text`` only the image (colipri.dataloading.pieces).
    """

    case: str
    number: int
    image: bool = True
    text: bool = True


class EndlessSampler:
    """Batches without end; batch number n is a function of n and of how the sampler was made.

    Attributes:
        position: number of the next batch.
        seed, batch_size: what the order depends on.
    """

    seed: int
    batch_size: int
    position: int = 0

    def batch(self, position: int) -> list[SampleKey]:
        """Batch number ``position``."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[list[SampleKey]]:
        while True:
            batch = self.batch(self.position)
            self.position += 1
            yield batch

    def advance(self, batches: int) -> None:
        """Skip ``batches`` batches (resuming: as many as were trained on)."""
        self.position += batches


class StudyAwareBatchSampler(EndlessSampler):
    """Endless batches of distinct studies.

    A pass over S studies is S // batch_size full batches of a fresh permutation; the studies left
    over (fewer than a batch) differ from pass to pass. With fewer studies than the batch size,
    batches hold every study and repeat some, with another reconstruction where there is one.

    Args:
        cases: case identifiers to draw from.
        studies: the study of each case.
        batch_size: of the global batch, all processes together.
        seed: of the run.
        shares: per case, how often its data set comes up: 1.0 with every pass, 0.25 with a quarter
            of its studies in every pass, others in the next. All cases of a share are one group.
            None: all alike.
        first_number: of the first sample, so that two samplers of one run never number alike.

    Raises:
        ColipriError: no case, or no room in a batch.

    Example:
        >>> sampler = StudyAwareBatchSampler(["a1", "a2", "b"], ["a", "a", "b"], 2, seed=0)
        >>> {key.case[0] for key in next(iter(sampler))} == {"a", "b"}
        True
    """

    def __init__(
        self,
        cases: Sequence[str],
        studies: Sequence[str],
        batch_size: int,
        seed: int,
        shares: Sequence[float] | None = None,
        first_number: int = 0,
    ) -> None:
        if not cases:
            raise ColipriError("there is no case to draw batches from")
        if batch_size < 1:
            raise ColipriError(f"a batch of {batch_size} cases holds nothing")
        members: dict[str, list[str]] = {}
        for case, study in sorted(zip(cases, studies, strict=True)):
            members.setdefault(study, []).append(case)
        self.members = [members[study] for study in sorted(members)]
        self.groups = self._groups(dict(zip(cases, shares, strict=True)) if shares else {})
        self.batch_size = batch_size
        self.seed = seed
        self.first_number = first_number
        self._order: tuple[int, np.ndarray] | None = None  # of the pass in use

    @property
    def batches_per_pass(self) -> int:
        """Batches until every study has come up (but for a remainder)."""
        return max(1, self.studies_per_pass // self.batch_size)

    @property
    def studies_per_pass(self) -> int:
        """Studies that come up in one pass; all of them unless some data sets count less."""
        return sum(count for _, count in self.groups)

    def batch(self, position: int) -> list[SampleKey]:
        """Batch number ``position``."""
        which, number = divmod(position, self.batches_per_pass)
        order = self._order_of_pass(which)
        chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
        first = self.first_number + position * self.batch_size
        keys = []
        taken: dict[int, int] = {}
        for place, study in enumerate(chosen.tolist()):
            cases = self.members[study]
            # repeated only in a batch larger than the number of studies: the next reconstruction
            offset = derive_seed(self.seed, "reconstruction", which, study) + taken.get(study, 0)
            taken[study] = taken.get(study, 0) + 1
            keys.append(SampleKey(cases[offset % len(cases)], first + place))
        return keys

    def _groups(self, shares: dict[str, float]) -> list[tuple[np.ndarray, int]]:
        """Per share the studies that have it, and how many of them a pass takes."""
        by_share: dict[float, list[int]] = {}
        for number, cases in enumerate(self.members):
            by_share.setdefault(shares.get(cases[0], 1.0), []).append(number)
        return [
            (np.array(studies), max(1, round(share * len(studies))))
            for share, studies in sorted(by_share.items())
        ]

    def _order_of_pass(self, which: int) -> np.ndarray:
        if self._order is None or self._order[0] != which:
            rng = np.random.default_rng(derive_seed(self.seed, "pass", which))
            chosen = self._studies_of_pass(which)
            repeats = -(-self.batch_size // len(chosen))  # 1 unless there are fewer studies
            order = np.concatenate([chosen[rng.permutation(len(chosen))] for _ in range(repeats)])
            self._order = (which, order)
        return self._order[1]

    def _studies_of_pass(self, which: int) -> np.ndarray:
        """Return all studies, or of a group with a share the next ones of its own endless order."""
        parts = []
        for number, (studies, count) in enumerate(self.groups):
            if count == len(studies):
                parts.append(studies)
                continue
            round_, start = divmod(which * count, len(studies))
            stream = [self._stream(number, round_ + i, len(studies)) for i in (0, 1)]
            parts.append(studies[np.concatenate(stream)[start : start + count]])
        return np.sort(np.concatenate(parts))

    def _stream(self, group: int, round_: int, length: int) -> np.ndarray:
        rng = np.random.default_rng(derive_seed(self.seed, "share", group, round_))
        return rng.permutation(length)
