"""Why a plan has so many attention heads, and how many would fill the GPU's attention kernels.

Flash kernels are compiled for heads of a few widths; a head between two of them costs what the
next wider one costs (FlashAttention-2, arXiv 2307.08691: 32, 64, 96, 128, 192 and 256 channels).
"""

from __future__ import annotations

from colipri.architectures.primus import PRESETS
from colipri.plans.architecture import EncoderSettings

ENTRY = "architecture.arch_kwargs.num_heads"
KERNEL_WIDTHS = (32, 64, 96, 128, 192, 256)
_AXES_TIMES_PAIR = 6  # heads split into three axes of sine-cosine pairs


def computed_width(width: int) -> int:
    """Return the channels with which a flash kernel computes a head of this width.

    Heads wider than the widest kernel are not padded: other kernels compute them.
    """
    return next((kernel for kernel in KERNEL_WIDTHS if kernel >= width), width)


def filling_heads(embed_dim: int, num_heads: int) -> int | None:
    """Return the number of heads nearest to ``num_heads`` that flash kernels compute unpadded.

    Args:
        embed_dim: width of a token.
        num_heads: as planned.

    Returns:
        The number of heads; None where the width allows none, or as planned none are padded.
    """
    if computed_width(embed_dim // num_heads) == embed_dim // num_heads:
        return None
    fitting = [
        embed_dim // width
        for width in KERNEL_WIDTHS
        if embed_dim % width == 0 and width % _AXES_TIMES_PAIR == 0
    ]
    return min(fitting, key=lambda heads: abs(heads - num_heads), default=None)


def explain_heads(encoder: EncoderSettings, by_hand: bool = False) -> str | None:
    """Return the reason for the number of heads; None where there is nothing to choose.

    The default stays what published weights have: most trainings start from such weights, which
    fit no other number of heads, and no accuracy of the wider heads has been measured.

    Args:
        encoder: as planned.
        by_hand: the number was set by the user.
    """
    width = encoder.embed_dim // encoder.num_heads
    computed = computed_width(width)
    if by_hand:
        if computed == width:
            return (
                f"heads are {width} channels wide, which flash kernels compute without padding; "
                "published Primus weights have other heads and do not fit"
            )
        return f"flash kernels compute heads of {width} channels as {computed}"
    published = (encoder.embed_dim, encoder.num_heads) in (
        (size["embed_dim"], size["num_heads"]) for size in PRESETS.values()
    )
    heads = filling_heads(encoder.embed_dim, encoder.num_heads)
    if heads is None or not published:
        return None
    saved = 1 - encoder.embed_dim / (encoder.num_heads * computed)
    return (
        f"as published weights of this size have them; flash kernels compute heads of {width} "
        f"channels as {computed}. For a training from scratch on a GPU, --set "
        f"architecture.num_heads={heads} gives heads of {encoder.embed_dim // heads} and "
        f"{100 * saved:.0f} % less attention arithmetic; published weights do not fit it"
    )
