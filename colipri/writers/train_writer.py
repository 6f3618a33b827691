"""Train a report writer on a data set: features once, samples, two stages, a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from colipri.common.errors import ColipriError
from colipri.features.encoding import EncodingRun, encode_features
from colipri.features.keys import feature_key, image_weights_digest
from colipri.features.store import FeatureStore
from colipri.inference.labelled_cases import (
    CaseCollection,
    LabelledCase,
    cases_of_split,
    spread,
)
from colipri.inference.predictor import ColipriPredictor
from colipri.writers.finding_head import FindingHead, fit_finding_head
from colipri.writers.hints import cross_fitted_findings, named, prompt_text
from colipri.writers.language_model import (
    add_lora,
    hidden_width,
    load_language_model,
    lora_weights,
)
from colipri.writers.packing import Sample
from colipri.writers.projector import ImageProjector, check_image_tokens, stored_image_tokens
from colipri.writers.training_reports import (
    EncodedReports,
    choose_labels_from,
    encode_reports,
    written_text,
)
from colipri.writers.writer_file import WRITER_FILE, WriterSettings, save_writer
from colipri.writers.writer_training import STATE_FILE, TrainingOptions, WriterTrainer

logger = logging.getLogger(__name__)

_MOST_VALIDATED = 200  # reports whose loss is computed after every epoch


@dataclass(frozen=True)
class WriterRun:
    """What is trained, and where it goes.

    Attributes:
        folder: Of the writer.
        language_model: Folder, .gguf file or name.
        image_tokens: Per scan.
        lora_rank: 0: stage 1 alone.
        guide: Give the findings of a head as a hint.
        finding_names: Of the head; empty: the columns of cases.csv.
        max_text_tokens: Longest report.
        features: Folder of colipri_encode -d; None: made in ``folder``.
        options: Of the training.
    """

    folder: Path
    language_model: str
    image_tokens: int = 64
    lora_rank: int = 16
    guide: bool = False
    finding_names: tuple[str, ...] = ()
    max_text_tokens: int = 512
    features: Path | None = None
    options: TrainingOptions = field(default_factory=TrainingOptions)


def train_writer(
    predictor: ColipriPredictor, collection: CaseCollection, run: WriterRun
) -> dict[str, Any]:
    """Train a writer, or continue one that was interrupted.

    Args:
        predictor: The frozen encoder.
        collection: Data set; its training split is learned, its validation split chooses the epoch.
        run: What and where.

    Returns:
        Losses and numbers, as in writer.json.

    Raises:
        ColipriError: no reports, a model that does not fit, or a writer that is there already.
    """
    check_image_tokens(run.image_tokens)
    if (run.folder / WRITER_FILE).is_file():
        raise ColipriError(f"{run.folder} holds a trained writer already; give another -o")
    run.folder.mkdir(parents=True, exist_ok=True)
    train = _with_report(cases_of_split(collection, "train", predictor))
    validation = spread(_validation_cases(collection, predictor), _MOST_VALIDATED)
    if not train:
        raise ColipriError(f"the training split of {collection.dataset} has no report")
    dtype = torch.bfloat16 if run.options.bf16 and predictor.device.type == "cuda" else None
    model, tokenizer = load_language_model(
        run.language_model, predictor.device, dtype or torch.float32
    )
    wanted = [*train, *validation]
    if run.guide:  # the head also learns from scans without a report
        wanted = [c for s in ("train", "val") for c in cases_of_split(collection, s, predictor)]
    store = _features(predictor, collection, wanted, run)
    hints, head = _hints(predictor, collection, run, store)
    texts = _texts([*train, *validation])
    samples = _Samples(store, tokenizer, texts, hints, run)
    torch.manual_seed(run.options.seed)
    projector = ImageProjector(_token_width(predictor), hidden_width(model))
    if run.lora_rank:
        model = add_lora(model, run.lora_rank)
    settings = WriterSettings(
        encoder=predictor.source,
        encoder_digest=image_weights_digest(predictor.model.state_dict()),
        language_model=run.language_model,
        image_tokens=run.image_tokens,
        token_width=projector.token_width,
        lora_rank=run.lora_rank,
        findings=head.finding_names if head is not None else (),
        max_text_tokens=run.max_text_tokens,
        dataset=collection.dataset,
    )
    trainer = WriterTrainer(
        model,
        projector.to(predictor.device),
        [case.identifier for case in train],
        [case.identifier for case in validation],
        samples.load,
        run.options,
        predictor.device,
        run.folder,
        _identity(settings, run, train),
    )
    samples.warn_of_cuts([case.identifier for case in train])
    trainer.run()
    report = {
        "reports": len(train),
        "validation_reports": len(validation),
        "history": trainer.progress.history,
        "options": asdict(run.options),
    }
    save_writer(run.folder, settings, projector.state_dict(), lora_weights(model), head, report)
    (run.folder / STATE_FILE).unlink(missing_ok=True)
    return report


class _Samples:
    """Samples of cases, tokenized when they are asked for."""

    def __init__(
        self,
        store: FeatureStore,
        tokenizer: Any,
        texts: Mapping[str, str],
        hints: Mapping[str, Sequence[str]] | None,
        run: WriterRun,
    ) -> None:
        self.store, self.tokenizer, self.texts = store, tokenizer, texts
        self.hints, self.run = hints, run
        self._stored = int(store.key["num_tokens"])

    def load(self, case: str) -> Sample:
        """Read image tokens and tokenize hint and report."""
        tokens, places = stored_image_tokens(
            self.store.read(case), self._stored, self.run.image_tokens
        )
        hint = None if self.hints is None else self.hints[case]
        return Sample(case, tokens, places, self._ids(prompt_text(hint)), self._target(case))

    def warn_of_cuts(self, cases: Sequence[str]) -> None:
        """Say how many reports are longer than allowed."""
        limit = self.run.max_text_tokens
        cut = sum(len(self._ids(self.texts[case])) >= limit for case in cases)
        if cut:
            logger.warning(
                "%d of %d reports are cut at %d tokens (--max_text_tokens)", cut, len(cases), limit
            )

    def _target(self, case: str) -> tuple[int, ...]:
        ids = self._ids(self.texts[case])
        if len(ids) >= self.run.max_text_tokens:
            return ids[: self.run.max_text_tokens]
        return (*ids, int(self.tokenizer.eos_token_id))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _with_report(cases: Sequence[LabelledCase]) -> list[LabelledCase]:
    return [case for case in cases if case.has_report]


def _validation_cases(
    collection: CaseCollection, predictor: ColipriPredictor
) -> list[LabelledCase]:
    try:
        return _with_report(cases_of_split(collection, "val", predictor))
    except ColipriError as error:
        logger.warning("No validation reports, the last epoch is kept: %s", error)
        return []


def _texts(cases: Sequence[LabelledCase]) -> dict[str, str]:
    texts = {}
    for case in cases:
        report = case.report()
        assert report is not None
        texts[case.identifier] = written_text(report)
        if not texts[case.identifier]:
            raise ColipriError(
                f"case {case.identifier}: the report describes nothing in the image (technique or "
                "indication alone); remove the report or complete it"
            )
    return texts


def _features(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    cases: Sequence[LabelledCase],
    run: WriterRun,
) -> FeatureStore:
    """Features that are there, or made now in the writer's folder."""
    if run.features is not None:
        store = FeatureStore(run.features)
        stored = int(store.key["num_tokens"])
        feature_key(predictor, stored).require_same(store.key, run.features)
        return store
    made = encode_features(
        predictor, collection, cases, EncodingRun(run.folder / "features", run.image_tokens)
    )
    assert made is not None
    if made.failed:
        name, reason = next(iter(made.failed.items()))
        raise ColipriError(f"{len(made.failed)} scans cannot be encoded ({name}: {reason})")
    return made


def _hints(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    run: WriterRun,
    store: FeatureStore,
) -> tuple[dict[str, list[str]] | None, FindingHead | None]:
    """Hints of training and validation cases, and the head that gives them at test time."""
    if not run.guide:
        return None, None
    names = run.finding_names or tuple(collection.finding_names)
    labels_from = choose_labels_from(collection, names)

    def encoded(split: str) -> EncodedReports:
        return encode_reports(predictor, collection, split, names, labels_from, store.folder)

    train, validation = encoded("train"), encoded("val")
    val = (validation.embeddings.double().numpy(), validation.labels)
    learned = train.embeddings.double().numpy()
    head = fit_finding_head((learned, train.labels), val, train.finding_names)
    of_train = cross_fitted_findings(
        learned, train.labels, train.subjects, train.finding_names, val, run.options.seed
    )
    hints = dict(zip(train.names, of_train, strict=True))
    for name, row in zip(validation.names, head.decide(val[0]), strict=True):
        hints[name] = named(row, train.finding_names)
    return hints, head


def _token_width(predictor: ColipriPredictor) -> int:
    return int(predictor.configuration.encoder.embed_dim)


def _identity(
    settings: WriterSettings, run: WriterRun, train: Sequence[LabelledCase]
) -> dict[str, Any]:
    """What a continued training must share with the one that was interrupted."""
    options = {k: v for k, v in asdict(run.options).items() if k != "save_every"}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    chosen = {k: v for k, v in asdict(settings).items() if k != "encoder"}
    chosen["findings"] = list(settings.findings)
    return {**chosen, **plain, "reports": len(train)}
