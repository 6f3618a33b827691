"""The data of one run: which cases, in which order, with which tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.common.hashing import derive_seed
from colipri.dataloading.data_digests import DataDigests, digest_data
from colipri.dataloading.dataset import ColipriDataset, paired_cases
from colipri.dataloading.loader import Collate, make_loader
from colipri.dataloading.sampler import SampleKey
from colipri.dataloading.sharing import Shard, rows_to_load
from colipri.dataloading.splits import load_split
from colipri.objectives.base import Objective
from colipri.objectives.batch import Batch, TextTools
from colipri.plans.plans import Configuration, Plans
from colipri.preprocessing.manifest import check_preprocessed
from colipri.preprocessing.store import CaseStore
from colipri.text.finding_names import FindingNames
from colipri.text.structured_report import StructuredReport
from colipri.text.tokenizer import load_pretrained_tokenizer, train_wordpiece
from colipri.training.options import RunOptions
from colipri.training.text_check import check_texts
from colipri.training.validation_cases import choose_validation_cases

_NO_REPORTS = "abcdefghijklmnopqrstuvwxyz " * 2


class ReportsOfCases:
    """The reports of the training cases; read when asked for, because there may be many.

    Args:
        store: preprocessed cases.
        cases: to train on.
    """

    def __init__(self, store: CaseStore, cases: list[str]) -> None:
        self.store = store
        self.cases = cases

    def __iter__(self) -> Iterator[StructuredReport]:
        for case in self.cases:
            report = self.store.report(case)
            if report is not None:
                yield report

    @cached_property
    def finding_names(self) -> FindingNames:
        """Names that these reports affirm and negate; searched once."""
        return FindingNames(self)

    def labelled_studies(
        self,
    ) -> Iterator[tuple[Mapping[str, int | None], StructuredReport | None]]:
        """Yield label columns and report of every study, from its first case."""
        seen: set[str] = set()
        for case in self.cases:
            record = self.store.record(case)
            if record["study"] not in seen:
                seen.add(record["study"])
                yield record["findings"], self.store.report(case)

    @cached_property
    def labels(self) -> Mapping[str, tuple[int, ...]]:
        """Names in label maps -> their values."""
        return self.store.labels()

    def label_maps(self) -> Iterator[tuple[Mapping[str, int | None], Mapping[int, int]]]:
        """Yield label columns, and value -> voxels, of every case that has a label map."""
        for case in self.cases:
            record = self.store.record(case)
            if "label_voxels" in record:
                voxels = {int(value): n for value, n in record["label_voxels"].items()}
                yield record["findings"], voxels


class TrainingData:
    """Cases of a fold and the batches made of them.

    Args:
        plans, configuration: what was preprocessed.
        fold: 0 to 4 or "all".
        options: seed and number of workers.
        micro_batch_size: cases of a part of the batch.
        objectives: name -> objective; they decide which cases are used, and learn from the reports.
        pin_memory: for fast copies to a CUDA device.
        shard: of this process, if several share the batches.

    Raises:
        ColipriError: not preprocessed, no such fold, or no report to train on.
    """

    def __init__(
        self,
        plans: Plans,
        configuration: Configuration,
        fold: int | str,
        options: RunOptions,
        micro_batch_size: int,
        objectives: Mapping[str, Objective],
        pin_memory: bool = False,
        shard: Shard | None = None,
    ) -> None:
        self.plans = plans
        self.configuration = configuration
        self.options = options
        self.micro_batch_size = micro_batch_size
        self.objectives = objectives
        self.batch_size = configuration.batch_size
        self.pin_memory = pin_memory
        self.shard = shard or Shard()
        self.store = self.open_store()
        train, val = load_split(self.store, fold)
        self.needs_reports = any(objective.needs_reports for objective in objectives.values())
        self.uses_images_alone = any(objective.reads_images for objective in objectives.values())
        self.train_cases, self.val_cases = train, val
        if self.needs_reports:
            paired = paired_cases(self.store, train, include_image_only=False)
            self._require_two_studies(paired, fold)
            self.train_cases = train if self.uses_images_alone else paired
            self.val_cases = [case for case in val if self.store.record(case)["has_report"]]
        self.validated_cases = choose_validation_cases(self.store, self.val_cases)
        self.mixing = configuration.training.mixing if self.needs_reports else None
        self.reports = ReportsOfCases(self.store, self.train_cases)
        for objective in objectives.values():
            objective.prepare(self.reports)
        self._batches: Iterator[Batch] | None = None
        folder = self.store.folder.parent
        self.dataset_json = self._optional_json(folder / "dataset.json") or {}
        self.fingerprint = self._optional_json(folder / "dataset_fingerprint.json")

    def open_store(self) -> CaseStore:
        """Return the cases; a subclass may have others than preprocessed images."""
        return check_preprocessed(self.plans.dataset_name, self.plans, self.configuration.name)

    def dataset(self, training: bool, seed: int) -> ColipriDataset:
        """Return what makes samples of the cases.

        Args:
            training: draw crops and captions, or take their fixed form.
            seed: of the draws.
        """
        return ColipriDataset(self.store, self.configuration, training, seed, self.objectives)

    @cached_property
    def tokenizer(self) -> Any:
        """The plan's tokenizer: learned on this fold's training reports, or a pretrained one.

        Only training reports count: a vocabulary learned on validation reports would know words
        that the model is supposed to meet for the first time.
        """
        plan = self.configuration.text_encoder
        if plan.name_or_path is not None and plan.source == "pretrained":
            return load_pretrained_tokenizer(plan.name_or_path)
        texts = [report.text for report in self.reports]
        # images alone: the text encoder is not trained, and any vocabulary keeps its place
        return train_wordpiece(texts or [_NO_REPORTS], plan.vocabulary_size)

    @cached_property
    def digests(self) -> DataDigests:
        """Digests of all cases in use; computed once, which reads every report."""
        return digest_data(self.store, self.train_cases, self.val_cases)

    def check_texts(self) -> list[str]:
        """Return warnings about the training reports: see colipri.training.text_check."""
        longest = self.configuration.max_text_tokens
        return check_texts(self.reports, self.tokenizer, longest, self.dataset_json)

    def collate(self) -> Collate:
        """Return what makes batches of samples, in the worker processes."""
        longest = self.configuration.max_text_tokens
        text = TextTools(self.tokenizer, longest, longest * self.micro_batch_size)
        return Collate(self.objectives, text)

    def start_training(self, position: int) -> None:
        """Begin or continue the order of batches at ``position`` steps since the beginning."""
        dataset = self.dataset(True, derive_seed(self.options.seed, "data"))
        self._batches = iter(
            make_loader(
                dataset,
                self.train_cases,
                self.batch_size,
                position,
                self.options.num_workers,
                self.pin_memory,
                mixing=self.mixing,
                rows_here=self.rows_here if self.shard.size > 1 else None,
                collate=self.collate(),
            )
        )

    def rows_here(self, keys: list[SampleKey]) -> set[int]:
        """Return the rows of a global training batch whose images this process encodes."""
        return rows_to_load(
            [self.store.record(key.case)["has_report"] for key in keys],
            self.micro_batch_size,
            self.shard,
            self.needs_reports,
            self.uses_images_alone,
        )

    def stop_training(self) -> None:
        """End the loader's workers; another stage reads other data."""
        self._batches = None

    def next_batch(self) -> Batch:
        """Return the next training batch; call :meth:`start_training` first."""
        if self._batches is None:
            raise RuntimeError("start_training was not called")
        return next(self._batches)

    def validation_batches(
        self, cases: Sequence[str] | None = None, num_workers: int | None = None
    ) -> Iterator[Batch]:
        """Yield validation cases once each, centred and with their full texts.

        Several processes take the batches in turn; with sharded weights all take all of them.

        Args:
            cases: some of the validation cases; None for those of the validation of an epoch.
            num_workers: loader processes; None for the run's, 0 loads in this process.
        """
        chosen = self.validated_cases if cases is None else cases
        dataset = self.dataset(False, 0)
        size = min(self.batch_size, max(2, len(chosen)))
        while size > 1 and len(chosen) > 1 and len(chosen) % size == 1:
            size += 1  # a last batch of one case would have a contrastive loss of 0
        loader = make_loader(
            dataset,
            chosen,
            size,
            num_workers=self.options.num_workers if num_workers is None else num_workers,
            pin_memory=self.pin_memory,
            shard=Shard() if self.shard.pad else self.shard,
            collate=self.collate(),
        )
        return iter(loader)

    def findings_of(self, case: str) -> dict[str, int | None]:
        """Labels of a case: 1, 0 or None (unknown)."""
        return dict(self.store.record(case)["findings"])

    def describe(self) -> str:
        """Return a phrase for the log: how many cases of which kind."""
        reports = sum(self.store.record(case)["has_report"] for case in self.train_cases)
        alone = len(self.train_cases) - reports
        kinds = f" ({reports} with a report, {alone} image-only)" if alone else ""
        return (
            f"{len(self.train_cases)} cases{kinds} to train on, {len(self.val_cases)} to validate"
        )

    def _require_two_studies(self, paired: list[str], fold: int | str) -> None:
        if len(self._studies(paired)) < 2:
            raise ColipriError(
                f"fold {fold} has {len(paired)} case(s) with a report from "
                f"{len(self._studies(paired))} study; training with reports needs two"
            )

    def _studies(self, cases: list[str]) -> set[str]:
        return {self.store.record(case)["study"] for case in cases}

    @staticmethod
    def _optional_json(path: Path) -> Any:
        return read_json(path) if path.is_file() else None
