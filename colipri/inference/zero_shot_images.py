"""Zero-shot scores of image files: no labels needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.evaluation.prompts import DEFAULT_STYLE, describe_prompts, make_prompts
from colipri.evaluation.zero_shot import encode_prompts, probabilities, zero_shot_logits
from colipri.inference.inputs import ImageInput, find_images
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.split_results import Thresholds, thresholds_from_file


def zero_shot_on_images(
    predictor: ColipriPredictor,
    source: Path | str,
    findings: Sequence[str] | None = None,
    *,
    prompt_style: str = DEFAULT_STYLE,
    thresholds_file: Path | str | None = None,
    part: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """Score images and return what ``colipri_zero_shot -i`` writes.

    Args:
        predictor: The model.
        source: Image file, folder of images, or DICOM series folder.
        findings: In any words; default: those of the training data.
        prompt_style: A built-in style or a JSON file.
        thresholds_file: Result of an earlier run on a split; decides "present".
        part: This process, and how many share the images; :func:`require_images` is theirs then.

    Returns:
        ``images``: image, files, scores (finding -> probability), logits (finding -> logit, which
        does not saturate), present (finding -> true, false, or null without a threshold);
        ``problems``: images that could not be read.

    Raises:
        ColipriError: no image could be read, no findings, or faulty prompts or thresholds.
    """
    names = _names(findings, predictor)
    prompts = make_prompts(names, prompt_style)
    names = [pair.finding for pair in prompts]
    predictor.require_known_words(names)
    thresholds = Thresholds({}, "none")
    if thresholds_file is not None:
        thresholds = thresholds_from_file(thresholds_file, names)
    images = find_images(source, predictor.num_channels)[part[0] :: part[1]]
    texts = encode_prompts(prompts, predictor.encode_texts)
    found, problems = [], []
    encoded = progress(predictor.encode_files(images), "Encoding", total=len(images), unit="image")
    for image, outcome in zip(images, encoded, strict=True):
        if isinstance(outcome, ColipriError):
            problems.append({"image": image.name, "problem": str(outcome)})
            continue
        embedding = outcome[1].embedding
        found.append(_entry(image, embedding, names, texts, predictor.temperature, thresholds))
    result = {
        "model": predictor.describe(),
        "prompts": describe_prompts(prompts, prompt_style),
        "thresholds": thresholds.to_dict(),
        "images": found,
        "problems": problems,
    }
    return result if part[1] > 1 else require_images(result)


def require_images(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result if an image was scored.

    Raises:
        ColipriError: none was; the problem of the first.
    """
    if not result["images"]:
        raise ColipriError(result["problems"][0]["problem"])
    return result


def _names(findings: Sequence[str] | None, predictor: ColipriPredictor) -> list[str]:
    if findings is not None:
        return list(findings)
    known = list(predictor.plans.findings)
    if not known:
        raise ColipriError("the model's training data had no findings; name some with -f")
    return known


def _entry(
    image: ImageInput,
    embedding: Tensor,
    names: Sequence[str],
    texts: tuple[Tensor, Tensor],
    temperature: float,
    thresholds: Thresholds,
) -> dict[str, Any]:
    row = zero_shot_logits(embedding.unsqueeze(0), *texts, temperature)[0].numpy()
    logits = dict(zip(names, row.tolist(), strict=True))
    present = {}
    for name in names:
        cut = thresholds.logits.get(name)
        present[name] = None if cut is None else logits[name] >= cut
    return {
        "image": image.name,
        "files": [str(file) for file in image.files],
        "scores": dict(zip(names, probabilities(row).tolist(), strict=True)),
        "logits": logits,
        "present": present,
    }
