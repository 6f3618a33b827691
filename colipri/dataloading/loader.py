"""Batches for the trainer: made in this process or in workers, and no failure goes unnoticed."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from colipri.common.cpus import usable_cpus
from colipri.common.disk import shared_memory_error
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.dataloading.ahead import one_ahead
from colipri.dataloading.dataset import ColipriDataset, ImageSample, LoadFailure
from colipri.dataloading.mixing import MixedBatchSampler, image_only_batch_size
from colipri.dataloading.pieces import (
    PREFETCH_PIECES,
    ImagePiece,
    PieceSampler,
    assemble,
    choose_transport,
    from_pipe,
    to_pipe,
)
from colipri.dataloading.sampler import EndlessSampler, SampleKey, StudyAwareBatchSampler
from colipri.dataloading.sharing import RowsHere, Shard, SharedBatchSampler
from colipri.objectives.base import Objective
from colipri.objectives.batch import Batch, Sample, TextTools, make_batch
from colipri.plans.training import MixingSettings

if TYPE_CHECKING:
    from colipri.preprocessing.store import CaseStore

logger = logging.getLogger(__name__)

_IMAGE_ONLY_NUMBERS = 1 << 48  # no run has as many paired samples


def default_num_workers() -> int:
    """Loader processes: none for one or two cores, else the cores but one, at most 8.

    Several training processes on this machine share its cores.

    Reading a crop takes milliseconds (benchmarks/loader.py); on two cores workers would only take
    time from the training itself.
    """
    here = usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # training processes
    return 0 if here <= 2 else min(8, here - 1)


class BatchLoader:
    """Iterates over batches and knows how many were handed out.

    Args:
        dataset: what to load.
        batches: lists of SampleKey; an EndlessSampler, or a list (once through).
        num_workers: processes; 0 loads in this process; None lets :func:`default_num_workers` say.
        pin_memory: put the images into pinned memory, for asynchronous copies to a CUDA device.
        collate: joins samples.

    Raises (while iterating):
        ColipriError: a case cannot be loaded (it is named), or a worker process died.
    """

    def __init__(
        self,
        dataset: ColipriDataset,
        batches: EndlessSampler | Sequence[Sequence[SampleKey]],
        num_workers: int | None = None,
        pin_memory: bool = False,
        collate: Collate | None = None,
    ) -> None:
        self.dataset = dataset
        self.batches = batches
        self.num_workers = default_num_workers() if num_workers is None else num_workers
        self.pin_memory = pin_memory
        self.collate = collate or Collate()
        self.delivered = batches.position if isinstance(batches, EndlessSampler) else 0

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self.batches, EndlessSampler):
            self.batches.position = self.delivered  # an earlier iterator may have read ahead
        transport = choose_transport(self.dataset.image_bytes(), self.num_workers)
        sampler = PieceSampler(self.batches, transport.images)
        pieces = self._pieces(sampler, transport.pipes)
        batches = assemble(pieces, sampler.rows, self.pin_memory)
        if self.num_workers > 0:
            batches = one_ahead(batches)
        for batch in batches:
            self.delivered += 1
            yield batch

    def _pieces(self, sampler: PieceSampler, pipes: bool) -> Iterator[Batch | ImagePiece]:
        """Text batches and image pieces as they come from the workers.

        Raises:
            ColipriError: a case cannot be loaded, or a worker process died.
        """
        iterator = iter(self._torch_loader(sampler, pipes))
        while True:
            try:
                piece = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                # a worker that dies is noticed by torch, or by the broken connection to it
                if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
                raise _worker_error(error) from error
            piece = from_pipe(piece) if pipes else piece
            if isinstance(piece, LoadFailure):
                logger.debug("%s", piece.details)
                name = f"case {piece.case}: "
                text = piece.problem.removeprefix(name)
                raise ColipriError(name + text) from RuntimeError(piece.details)
            yield piece

    def _torch_loader(self, sampler: PieceSampler, pipes: bool) -> DataLoader[Any]:
        with_workers: dict[str, Any] = {}
        if self.num_workers > 0:
            with_workers = {
                "worker_init_fn": _prepare_worker,
                "prefetch_factor": PREFETCH_PIECES,
                # not fork: after OpenMP threads have run, a forked worker can hang
                "multiprocessing_context": "spawn",
            }
        return DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=Piped(self.collate) if pipes else self.collate,
            # its seed must not come from the generator that the training step uses meanwhile
            generator=torch.Generator(),
            **with_workers,
        )


def make_loader(
    dataset: ColipriDataset,
    cases: Sequence[str],
    batch_size: int,
    position: int = 0,
    num_workers: int | None = None,
    pin_memory: bool = False,
    mixing: MixingSettings | None = None,
    rows_here: RowsHere | None = None,
    shard: Shard | None = None,
    collate: Collate | None = None,
) -> BatchLoader:
    """Return the loader that fits the data set: training or validation.

    A training data set gives endless study-aware batches, beginning with number ``position``
    (batches trained on so far). A validation data set gives every case once, in the given order;
    its last batch may be smaller.

    Args:
        dataset: of training or of validation.
        cases: identifiers.
        batch_size: of the global batch.
        position: number of the first training batch.
        num_workers: loader processes; 0 loads in this process; None: :func:`default_num_workers`.
        pin_memory: for fast copies to a CUDA device.
        mixing: how cases with and without a report are mixed; None: draw from all cases alike.
        rows_here: of a training batch that other processes share, the rows whose images are needed
            here; None for all.
        shard: of validation batches that several processes take in turn.
        collate: joins samples; default: without tokens.
    """
    if dataset.training:
        sampler = training_sampler(dataset.store, cases, batch_size, dataset.seed, mixing)
        if rows_here is not None:
            sampler = SharedBatchSampler(sampler, rows_here)
        sampler.advance(position)
        return BatchLoader(dataset, sampler, num_workers, pin_memory, collate)
    keys = [SampleKey(case, number) for number, case in enumerate(cases)]
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    here = shard or Shard()
    shared = batches[here.rank :: here.size]
    return BatchLoader(dataset, shared, num_workers, pin_memory, collate)


def training_sampler(
    store: CaseStore,
    cases: Sequence[str],
    batch_size: int,
    seed: int,
    mixing: MixingSettings | None = None,
) -> EndlessSampler:
    """Return study-aware batches of all cases, or of paired and image-only cases as mixed.

    Args:
        store: the preprocessed cases.
        cases: to draw from.
        batch_size: of the global batch.
        seed: of the run.
        mixing: how cases with and without a report are mixed; None: draw from all cases alike.

    Raises:
        ColipriError: ``mixing`` names an unknown data set.
    """
    settings = mixing or MixingSettings()
    settings.check_datasets({store.record(case)["dataset"] for case in cases})

    def sampler(
        chosen: Sequence[str], size: int, seed: int, first_number: int = 0
    ) -> StudyAwareBatchSampler:
        records = [store.record(case) for case in chosen]
        return StudyAwareBatchSampler(
            chosen,
            [record["study"] for record in records],
            size,
            seed,
            settings.shares_of_cases([record["dataset"] for record in records]),
            first_number,
        )

    paired = [case for case in cases if store.record(case)["has_report"]]
    image_only = [case for case in cases if not store.record(case)["has_report"]]
    if mixing is None or not paired or not image_only:
        return sampler(cases, batch_size, seed)
    share = mixing.share(
        *(len({store.record(case)["study"] for case in part}) for part in (paired, image_only))
    )
    if share == 0.0:
        return sampler(paired, batch_size, seed)
    alternating = mixing.schedule == "alternating"
    size = batch_size if alternating else image_only_batch_size(batch_size, share)
    return MixedBatchSampler(
        sampler(paired, batch_size, seed),
        sampler(image_only, size, derive_seed(seed, "image-only"), _IMAGE_ONLY_NUMBERS),
        share if alternating else None,
    )


@dataclass(frozen=True)
class Collate:
    """Joins samples in the process that read them; what objectives prepare is made there as well.

    Attributes:
        objectives: name -> objective.
        text: tokenizer and limits; None for batches without tokens.
    """

    objectives: Mapping[str, Objective] = field(default_factory=dict)
    text: TextTools | None = None

    def __call__(
        self, samples: Sequence[Sample | ImageSample | LoadFailure]
    ) -> Batch | ImagePiece | LoadFailure:
        """Return a batch of samples, a piece of images, or the first failure among them."""
        good: list[Sample] = []
        images: list[ImageSample] = []
        for sample in samples:
            if isinstance(sample, LoadFailure):
                return sample
            if isinstance(sample, ImageSample):
                images.append(sample)
            else:
                good.append(sample)
        if images:
            return ImagePiece(
                torch.stack([sample.image for sample in images]),
                torch.stack([sample.body for sample in images]),
            )
        return make_batch(good, self.objectives, self.text)


@dataclass(frozen=True)
class Piped:
    """Joins samples to messages that go through pipes instead of shared memory."""

    collate: Collate

    def __call__(self, samples: Sequence[Sample | ImageSample | LoadFailure]) -> Any:
        """Return what ``collate`` does, without tensors."""
        return to_pipe(self.collate(samples))


def _prepare_worker(_: int) -> None:
    """Ctrl-C is the parent's to handle; the parent ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _worker_error(error: Exception) -> ColipriError:
    return shared_memory_error("a loader process died: memory or /dev/shm may be too small", error)
