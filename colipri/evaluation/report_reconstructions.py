"""The section that shows what masked image modelling reconstructs, or says why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from colipri.evaluation.html_page import Section
from colipri.evaluation.html_parts import element, figure, grid, join, paragraph, png_image

TITLE = "Reconstructions"
_ORDER = 75
_M = "masked image modelling (objective M)"


def reconstruction_section(entries: Sequence[Mapping[str, Any]], summary: str) -> Section:
    """Three pictures a case: the image, what the encoder saw, and what the decoder made of it.

    Args:
        entries: ``pictures``: three of {"name", "pixels": (rows, columns, 3) uint8, "millimetres":
            (row, column step)}; ``case``; ``note``: what is measured.
        summary: below the heading.
    """
    cards = []
    for entry in entries:
        pictures = [
            png_image(
                picture["pixels"],
                f"{picture['name']} of {entry['case']}",
                millimetres=picture["millimetres"],
            )
            for picture in entry["pictures"]
        ]
        caption = (element("b", entry["case"]), f" · {entry['note']}")
        cards.append(figure(grid(pictures, "planes"), *caption))
    key = paragraph(
        "Left: middle coronal slice, as the encoder would get it. Middle: what it got; hidden "
        "tokens are grey, those of air are dark blue and neither seen nor predicted. Right: hidden "
        "tokens as the decoder predicts them, visible ones as they are.",
        class_="key",
    )
    return Section(TITLE, join([key, grid(cards, "cards")]), summary, _ORDER)


def no_reconstruction_section(objectives: Iterable[str], *, trained: bool = False) -> Section:
    """Says in the place of the pictures why there are none.

    Args:
        objectives: that the run trained, by name.
        trained: M is among them, but the checkpoint has no decoder.
    """
    names = ", ".join(name.replace("_", " ") for name in objectives) or "not recorded"
    if trained:
        reason = (
            f"This model was trained with {_M}, but its checkpoint holds no masked decoder: it was "
            "left out when the file was written. The checkpoints of the run itself have it."
        )
    else:
        reason = (
            f"This run was trained without {_M}; its objectives: {names}. It has no decoder that "
            "could reconstruct an image. Train with M, for example -tr ColipriTrainer_CRM."
        )
    return Section(TITLE, paragraph(reason), "", _ORDER)
