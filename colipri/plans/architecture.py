"""The networks of a plan: image encoder, its stem, and text encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from colipri.common.settings import Settings, SettingsError, entries, entry

if TYPE_CHECKING:
    from typing import Self

PRIMUS = "colipri.architectures.primus.PrimusEncoder"
VOXELFM = "colipri.architectures.voxelfm.VoxelFMEncoder"  # for inference; plans never choose it
STEMS = ("linear", "light", "resnet", "v2", "v3")
POOLS = ("attention", "mean_max")
TEXT_KINDS = ("bert", "decoder")
CHECKPOINTING = ("none", "mlp", "full")
# Options of each stem; those with a number per level, and how many more of them than halvings.
STEM_OPTIONS: dict[str, dict[str, int | None]] = {
    "linear": {},
    "light": {"features": 0, "depth_per_level": 0, "context": None, "overlap": None},
    "resnet": {"base_features": None, "depth_per_level": 0},
    "v2": {"base_features": None, "depth_per_level": 0},
    "v3": {"ch_per_level": 1, "depth_per_level": 0, "add_skips": None},
}
# Of these, the stem's own numbers are for tokens of 8 voxels, three halvings.
OF_THREE_HALVINGS = {"light": ("features", "depth_per_level"), "v3": ("ch_per_level",)}


@dataclass(frozen=True, kw_only=True)
class StemSettings(Settings):
    """Options of a stem (colipri.architectures.stems); None: the stem's own default."""

    base_features: int | None = entry(
        "channels of the first level of v2 and resnet", default=None, low=1
    )
    depth_per_level: list[int] | None = entry(
        "convolutions (light) or blocks (resnet, v2, v3) per halving", default=None, low=0
    )
    ch_per_level: list[int] | None = entry("channels per level of v3", default=None, low=1)
    add_skips: bool | None = entry("v3: features of all levels reach the tokens", default=None)
    features: list[int] | None = entry("channels after each halving of light", default=None, low=1)
    context: int | None = entry(
        "channels of one more level of light, at twice the size of a token", default=None, low=0
    )
    overlap: bool | None = entry(
        "strided convolutions of light are 3 x 3 x 3 and see beyond their place", default=None
    )


@dataclass(frozen=True, kw_only=True)
class LocalAttentionSettings(Settings):
    """Attention within windows (colipri.architectures.local_attention)."""

    window: list[int] = entry("edges of a window of attention", unit="tokens", length=3, low=1)
    global_blocks: int = entry("blocks that attend to all tokens", default=4, low=0)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(Settings):
    """Arguments of the image encoder; see colipri.architectures.primus.PrimusEncoder."""

    input_channels: int = entry("channels of an image", low=1)
    embed_dim: int = entry("width of a token, a multiple of 6 x num_heads", low=6)
    depth: int = entry("transformer blocks", low=1)
    num_heads: int = entry("attention heads", low=1)
    patch_embed_size: list[int] = entry(
        "edges of a token, powers of two", unit="voxels", factory=lambda: [8, 8, 8], length=3, low=1
    )
    stem: str = entry("layers before the transformer", default="linear", choices=STEMS)
    stem_kwargs: StemSettings | None = entry("options of the stem", factory=StemSettings)
    mlp_ratio: float = entry("hidden width of the MLP over embed_dim", default=8 / 3, above=0)
    drop_path_rate: float = entry(
        "stochastic depth of the last block, rising linearly from 0", default=0.0, low=0, below=1
    )
    init_values: float | None = entry(
        "start of LayerScale; null: no LayerScale", default=0.1, above=0
    )
    scale_attn_inner: bool = entry("normalise inside attention", default=True)
    num_register_tokens: int = entry("extra tokens without a position", default=0, low=0)
    position_grid: list[int] | None = entry(
        "grid of a learned absolute position embedding; null: none", default=None, length=3, low=1
    )
    activation_checkpointing: str = entry(
        "what is computed again in the backward pass", default="none", choices=CHECKPOINTING
    )
    final_norm: str = entry(
        "norm after the last block", default="layer", choices=("layer", "affine")
    )
    attention: LocalAttentionSettings | None = entry(
        "windows in which most blocks attend; null: all blocks attend to all tokens", default=None
    )

    def check(self) -> None:
        """Heads have room for rotary embeddings of three axes; not all blocks can be global."""
        if self.attention is not None and self.attention.global_blocks > self.depth:
            raise SettingsError(
                "attention.global_blocks",
                f"is {self.attention.global_blocks}: there are {self.depth} blocks",
            )
        if self.embed_dim % (6 * self.num_heads):
            raise SettingsError(
                "embed_dim",
                f"is {self.embed_dim} with num_heads {self.num_heads}: it must be a multiple of "
                "6 x num_heads (three axes of sine-cosine pairs)",
            )

    def check_stem(self) -> None:
        """The stem knows its options, and has numbers for each of its levels.

        Raises:
            SettingsError: it has not.
        """
        known, given = STEM_OPTIONS[self.stem], self.stem_options
        token = "x".join(map(str, self.patch_embed_size))
        if any(edge & (edge - 1) for edge in self.patch_embed_size):
            raise SettingsError("patch_embed_size", f"is {token}: powers of two are needed")
        levels = max(self.patch_embed_size).bit_length() - 1
        for name in OF_THREE_HALVINGS.get(self.stem, ()):
            if levels != 3 and name not in given:
                raise SettingsError(
                    f"stem_kwargs.{name}",
                    f"is not set: the stem '{self.stem}' has none for tokens of {token} voxels",
                )
        for name, value in given.items():
            if name not in known:
                options = ", ".join(known) or "it has none"
                raise SettingsError(
                    f"stem_kwargs.{name}", f"is no option of the stem '{self.stem}' ({options})"
                )
            more = known[name]
            if more is not None and len(value) != levels + more:
                raise SettingsError(
                    f"stem_kwargs.{name}",
                    f"has {len(value)} numbers: the stem '{self.stem}' needs {levels + more} for "
                    f"tokens of {token} voxels",
                )

    @property
    def stem_options(self) -> dict[str, Any]:
        """Keyword arguments of the stem."""
        return {} if self.stem_kwargs is None else self.stem_kwargs.to_dict()


@dataclass(frozen=True, kw_only=True)
class OtherEncoderSettings(EncoderSettings):
    """Arguments of an image encoder of another package: it may have more."""

    OPEN: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class ArchitecturePlan(Settings):
    """The image encoder in nnU-Net's form: an importable class and its arguments."""

    network_class_name: str = entry("importable class", default=PRIMUS, always=True)
    arch_kwargs: EncoderSettings = entry("arguments of the class")
    kw_requires_import: list[str] = entry(
        "arguments that name things to import (nnU-Net's entry)",
        factory=list,
        key="_kw_requires_import",
        always=True,
    )

    def check(self) -> None:
        """The stem fits the tokens; encoders of other packages know theirs."""
        if self.network_class_name == PRIMUS:
            try:
                self.arch_kwargs.check_stem()
            except SettingsError as error:
                raise error.inside("arch_kwargs") from error

    @classmethod
    def _read(cls, content: Any) -> Self:
        arguments = content.get("arch_kwargs") if isinstance(content, dict) else None
        if not isinstance(arguments, dict) or content.get("network_class_name", PRIMUS) == PRIMUS:
            return super()._read(content)
        known = {name: arguments[name] for name in entries(EncoderSettings) if name in arguments}
        plan = super()._read({**content, "arch_kwargs": known})
        return replace(plan, arch_kwargs=OtherEncoderSettings._read(arguments))


@dataclass(frozen=True, kw_only=True)
class GlobalTransformerPlan(Settings):
    """A small transformer over the image encoder's tokens, averaged in the cells of a coarse grid.

    It sees a whole scan at once, also where the encoder saw it in windows, and it is cheap enough
    to be trained on stored features.
    """

    cells_per_axis: int = entry("cells of the grid along each axis", default=6, low=1, always=True)
    num_layers: int = entry("transformer blocks; 0: the cells alone", default=2, low=0, always=True)
    num_heads: int = entry("attention heads", default=6, low=1, always=True)
    mlp_ratio: float = entry("hidden width of the MLP over the width", default=2.0, above=0)


@dataclass(frozen=True, kw_only=True)
class BertSettings(Settings):
    """Numbers of a BertConfig; other entries of it are passed on as they are."""

    OPEN: ClassVar[bool] = True

    hidden_size: int = entry("width", default=768, low=1, always=True)
    num_hidden_layers: int = entry("transformer blocks", default=12, low=0, always=True)
    num_attention_heads: int = entry("attention heads", default=12, low=1, always=True)
    intermediate_size: int = entry("hidden width of the MLP", default=3072, low=1, always=True)
    max_position_embeddings: int = entry(
        "longest text", unit="tokens", default=512, low=1, always=True
    )


@dataclass(frozen=True, kw_only=True)
class TextEncoderPlan(Settings):
    """The text encoder: a pretrained one, or a BERT from scratch."""

    source: str = entry("where its weights come from", choices=("pretrained", "scratch"))
    name_or_path: str | None = entry(
        "of a pretrained encoder: hub name or folder", default=None, always=True
    )
    vocabulary_size: int = entry("token types", unit="tokens", default=30_522, low=1, always=True)
    arch_kwargs: BertSettings | None = entry(
        "its sizes; null: those of the pretrained encoder", default=None
    )
    kind: str = entry(
        "bert: tokens see each other, and are pooled; decoder: a language model, whose state after "
        "the last token is taken",
        default="bert",
        choices=TEXT_KINDS,
    )
    lora_rank: int = entry(
        "rank of LoRA beside a pretrained encoder, whose own weights then stay; 0: none",
        default=0,
        low=0,
    )

    def check(self) -> None:
        """A pretrained encoder has a name."""
        if self.source == "pretrained" and not self.name_or_path:
            raise SettingsError("name_or_path", "must name a pretrained encoder")
        if self.source == "scratch" and self.kind == "decoder":
            raise SettingsError("kind", "decoder needs a pretrained language model")
        if self.source == "scratch" and self.lora_rank:
            raise SettingsError("lora_rank", "needs a pretrained encoder to stand beside")

    @property
    def bert(self) -> BertSettings:
        """Its sizes, BERT's own where the plan names none."""
        return self.arch_kwargs or BertSettings()
