"""Plans: a JSON file in nnU-Net's layout that people edit by hand, checked when it is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.common.settings import Settings, SettingsError, entry
from colipri.paths import preprocessed_folder
from colipri.plans.architecture import (
    CHECKPOINTING,
    POOLS,
    ArchitecturePlan,
    EncoderSettings,
    GlobalTransformerPlan,
    TextEncoderPlan,
)
from colipri.plans.augmentation import AugmentationSettings
from colipri.plans.training import TrainingPlan
from colipri.text.prompts.captions import CaptionSettings

if TYPE_CHECKING:
    from typing import Self

PLANS_VERSION = 1
CT_SCHEME = "CTNormalization"  # nnU-Net's class for Hounsfield units
REORIENTING_READER = "NibabelIOWithReorient"  # nnU-Net's reader that returns images in our axes


@dataclass(frozen=True, kw_only=True)
class Intensities(Settings):
    """Numbers of one channel that nnU-Net's normalisation classes use."""

    mean: float = entry("mean")
    median: float | None = entry("median", default=None)
    std: float = entry("standard deviation", low=0)
    min: float | None = entry("smallest value", default=None)
    max: float | None = entry("largest value", default=None)
    percentile_00_5: float = entry("0.5th percentile: values below are clipped")
    percentile_99_5: float = entry("99.5th percentile: values above are clipped")


@dataclass(frozen=True, kw_only=True)
class ResamplingArguments(Settings):
    """Arguments of nnU-Net's resample_data_or_seg_to_shape."""

    OPEN: ClassVar[bool] = True

    is_seg: bool = entry("segmentations keep their labels", default=False, always=True)
    order: int = entry("of the spline", default=3, low=0, high=5, always=True)
    order_z: int = entry("along thick slices", default=0, low=0, high=5, always=True)
    force_separate_z: bool | None = entry(
        "thick slices by themselves; null: where they are thick", default=None, always=True
    )


@dataclass(frozen=True, kw_only=True)
class MemoryReport(Settings):
    """What the planner predicted; nothing depends on it."""

    OPEN: ClassVar[bool] = True

    total_in_gb: float = entry("of a training step", unit="GiB", default=0.0, low=0)
    parameters_in_gb: float = entry("weights and optimiser", unit="GiB", default=0.0, low=0)
    overhead_in_gb: float = entry("context and workspaces", unit="GiB", default=0.0, low=0)
    per_sample_in_gb: float = entry("activations of a pair", unit="GiB", default=0.0, low=0)
    live_in_gb: float = entry("recomputed at a time, per pair", unit="GiB", default=0.0, low=0)
    tokens_per_sample: int = entry("image tokens of a pair that are counted", default=0, low=0)
    parts_of_a_sample_in_gb: dict[str, float] = entry(
        "where a pair's activations arise", unit="GiB", factory=dict, low=0
    )
    planned_for_in_gb: float = entry("the memory target", unit="GiB", default=0.0, low=0)
    precision: str = entry("of the training that was planned for", default="bf16")


@dataclass(frozen=True, kw_only=True)
class ComputeReport(Settings):
    """Arithmetic and time that the planner predicted; nothing depends on it."""

    OPEN: ClassVar[bool] = True

    tokens_per_image: int = entry("tokens of a patch", default=0, low=0)
    kept_tokens_per_image: int = entry("tokens that hold body, as expected", default=0, low=0)
    tflop_per_step: float = entry("arithmetic of a step", unit="TFLOP", default=0.0, low=0)
    steps: int = entry("of the whole training", default=0, low=0)
    utilisation: float = entry("share of the peak that is reached", default=0.0, low=0)
    hours: dict[str, float] = entry("per device", unit="h", factory=dict, low=0)


@dataclass(frozen=True, kw_only=True)
class Configuration(Settings):
    """One configuration of a plan: geometry, stored data, networks, training."""

    name: str = entry("3d_lowres", default="", stored=False)

    data_identifier: str = entry("folder of the preprocessed cases")
    preprocessor_name: str = entry(
        "class that prepares the cases", default="ColipriPreprocessor", always=True
    )
    spacing: list[float] = entry("of the plan's axes", unit="mm", length=3, above=0)
    patch_size: list[int] = entry("seen by the encoder", unit="voxels", length=3, above=0)
    token_patch_size: list[int] = entry("edges of a token", unit="voxels", length=3, above=0)
    batch_size: int = entry("pairs that the contrastive loss compares", unit="studies", low=1)
    micro_batch_size: int = entry("pairs that memory holds at once", unit="studies", low=1)
    activation_checkpointing: str = entry(
        "what is computed again in the backward pass", choices=CHECKPOINTING
    )
    normalization_schemes: list[str] = entry("nnU-Net's class per channel")
    use_mask_for_norm: list[bool] = entry("normalise within the body only, per channel")
    resampling_fn_data: str = entry("nnU-Net's resampling function")
    resampling_fn_data_kwargs: ResamplingArguments = entry("its arguments")
    storage_dtype: str = entry("of the stored voxels", choices=("int16", "float16"))
    hounsfield_range: list[float] | None = entry(
        "HU kept before resampling, the lower one pads; null: all", default=None, length=2
    )
    crop_to_body: bool = entry("cases are cropped to the body before resampling", default=True)
    architecture: ArchitecturePlan = entry("image encoder")
    pool_heads: int = entry("heads of the image pool", default=12, low=1, always=True)
    pool_queries: int = entry(
        "learned queries of the image pool; 0: the mean token", default=0, low=0, always=True
    )
    pool_add_max: bool = entry("the image pool adds the maximum over the tokens", default=False)
    pool: str = entry(
        "attention (pool_heads, pool_queries, pool_add_max), or mean and maximum over the tokens",
        default="attention",
        choices=POOLS,
    )
    global_transformer: GlobalTransformerPlan | None = entry(
        "transformer over cells of the image encoder's tokens; null: none", default=None
    )
    text_encoder: TextEncoderPlan = entry("text encoder")
    max_text_tokens: int = entry("longest text", unit="tokens", low=1)
    embed_dim: int = entry("width of the shared space", low=1)
    captions: CaptionSettings = entry("how captions vary", factory=CaptionSettings, always=True)
    training: TrainingPlan = entry("objectives, schedule, optimiser")
    augmentation: AugmentationSettings = entry("of images")
    memory_estimate: MemoryReport = entry("as planned", factory=MemoryReport)
    compute_estimate: ComputeReport = entry("as planned", factory=ComputeReport)
    rationale: dict[str, str] = entry(
        "entry -> why it was planned so", factory=dict, key="because", always=True
    )

    def check(self) -> None:
        """Numbers that stand in two places agree; sizes are multiples of each other."""
        if any(n % token for n, token in zip(self.patch_size, self.token_patch_size, strict=True)):
            raise SettingsError(
                "patch_size",
                f"{self.patch_size} must be multiples of the token patch {self.token_patch_size}",
            )
        encoder = self.encoder
        for outer, inner, one, other in (
            (
                "activation_checkpointing",
                "activation_checkpointing",
                self.activation_checkpointing,
                encoder.activation_checkpointing,
            ),
            (
                "token_patch_size",
                "patch_embed_size",
                self.token_patch_size,
                encoder.patch_embed_size,
            ),
        ):
            given = encoder.read_entries is None or inner in encoder.read_entries
            if given and one != other:
                raise SettingsError(
                    outer,
                    f"is {one}, architecture.arch_kwargs.{inner} is {other}; write the same in "
                    "both",
                )
        if self.embed_dim % self.pool_heads:
            raise SettingsError(
                "embed_dim", f"{self.embed_dim} is not a multiple of pool_heads {self.pool_heads}"
            )
        whole = self.global_transformer
        if whole is not None and self.encoder.embed_dim % whole.num_heads:
            raise SettingsError(
                "global_transformer.num_heads",
                f"{whole.num_heads} does not divide the image encoder's width "
                f"{self.encoder.embed_dim}",
            )
        longest = self.text_encoder.bert.max_position_embeddings
        if self.text_encoder.arch_kwargs is not None and self.max_text_tokens > longest:
            raise SettingsError(
                "max_text_tokens",
                f"{self.max_text_tokens} is more than the text encoder's max_position_embeddings "
                f"{longest}",
            )

    @property
    def encoder(self) -> EncoderSettings:
        """Sizes of the image encoder: short for ``architecture.arch_kwargs``."""
        return self.architecture.arch_kwargs

    def with_checkpointing(self, level: str) -> Configuration:
        """Return the same configuration with ``activation_checkpointing`` in both of its places."""
        encoder = replace(self.encoder, activation_checkpointing=level)
        return replace(
            self,
            activation_checkpointing=level,
            architecture=replace(self.architecture, arch_kwargs=encoder),
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of a whole patch, air included."""
        pairs = zip(self.patch_size, self.token_patch_size, strict=True)
        return prod(size // token for size, token in pairs)

    @cached_property
    def raw(self) -> dict[str, Any]:
        """Plain data."""
        return self.to_dict()


@dataclass(frozen=True, kw_only=True)
class Plans(Settings):
    """A whole plan.

    Attributes:
        source: named in error messages.
    """

    source: str = entry("a file", default="the plan", stored=False)

    colipri_plans_version: int = entry("of the layout", default=PLANS_VERSION, always=True)
    dataset_name: str = entry("Dataset101_ChestCT")
    plans_name: str = entry("name of the file")
    planner: str = entry("class that made it", default="ColipriPlanner", always=True)
    gpu_memory_target_in_gb: float = entry(
        "memory of one accelerator that was planned for", unit="GiB", default=24.0, always=True
    )
    num_gpus: int = entry("that share a batch, as planned for", default=1, low=1)
    image_reader_writer: str = entry("nnU-Net's reader", default=REORIENTING_READER, always=True)
    orientation: str = entry('where the array axes point: "SAR"')
    transpose_forward: list[int] = entry(
        "nnU-Net's entry", factory=lambda: [0, 1, 2], length=3, low=0, high=2, always=True
    )
    transpose_backward: list[int] = entry(
        "nnU-Net's entry", factory=lambda: [0, 1, 2], length=3, low=0, high=2, always=True
    )
    channel_names: dict[str, str] = entry("number of a channel -> its name")
    findings: list[str] = entry("that the data set's labels name")
    foreground_intensity_properties_per_channel: dict[str, Intensities] = entry(
        "number of a channel -> its intensities"
    )
    configurations: dict[str, Configuration] = entry("name -> configuration")
    like: str | None = entry("project whose images are imitated (--like)", default=None)
    left_out: dict[str, str] = entry(
        "case -> code of the error for which it is not preprocessed", factory=dict
    )

    def __post_init__(self) -> None:
        named = {
            name: one if one.name == name else replace(one, name=name)
            for name, one in self.configurations.items()
            if isinstance(one, Configuration)
        }
        if len(named) == len(self.configurations):
            object.__setattr__(self, "configurations", named)
        super().__post_init__()

    @classmethod
    def from_dict(cls, content: Any, where: str = "the plan") -> Self:
        """Read the content of a plans file.

        Args:
            content: plain data.
            where: the file, named in error messages.

        Raises:
            ColipriError: another version, something missing, unknown, or values that cannot be; the
                message names the entry.
        """
        version = content.get("colipri_plans_version") if isinstance(content, dict) else None
        if isinstance(content, dict) and version != PLANS_VERSION:
            raise ColipriError(
                f"{where} has plans version {version}, this colipri reads version {PLANS_VERSION}; "
                "plan again with colipri_plan_experiment"
            )
        return replace(super().from_dict(content, where), source=where)

    def check(self) -> None:
        """There is a configuration, and every channel has its entries."""
        if not self.configurations:
            raise SettingsError("", "has no configurations")
        for name, configuration in self.configurations.items():
            try:
                self._check_channels(configuration)
            except SettingsError as error:
                raise error.inside(f"configurations.{name}") from None

    def _check_channels(self, configuration: Configuration) -> None:
        channels = len(self.channel_names)
        for key in ("normalization_schemes", "use_mask_for_norm"):
            values = getattr(configuration, key)
            if len(values) != channels:
                raise SettingsError(key, f"has {len(values)} values for {channels} channel(s)")
        planned = configuration.encoder.input_channels
        if planned != channels:
            raise SettingsError(
                "architecture.arch_kwargs.input_channels",
                f"is {planned}, channel_names has {channels}",
            )

    def configuration(self, name: str) -> Configuration:
        """Return one configuration by name.

        Raises:
            ColipriError: no configuration has this name.
        """
        if name not in self.configurations:
            raise ColipriError(
                f"{self.source} has no configuration '{name}'; it has "
                f"{', '.join(self.configurations)}"
            )
        return self.configurations[name]

    def intensities(self, channel: int) -> Intensities:
        """Return the numbers of a channel."""
        return self.foreground_intensity_properties_per_channel[str(channel)]

    def with_configurations(self, changed: Iterable[Configuration]) -> Plans:
        """Return the same plan with configurations replaced by their names."""
        named = {configuration.name: configuration for configuration in changed}
        return replace(self, configurations={**self.configurations, **named})

    def to_json(self) -> dict[str, Any]:
        """Return plain data, as it is written to the file."""
        return self.to_dict()

    @cached_property
    def raw(self) -> dict[str, Any]:
        """Plain data."""
        return self.to_dict()


def load_plans(path_or_dataset: Path | str, plans_name: str = "colipriPlans") -> Plans:
    """Read and check a plan: a file, or a data set's by its name.

    Raises:
        ColipriError: no plan, or one that cannot be used.
    """
    path = Path(path_or_dataset)
    if path.suffix != ".json":
        path = preprocessed_folder() / str(path_or_dataset) / f"{plans_name}.json"
        if not path.is_file():
            raise ColipriError(
                f"there is no plan {path}; make it with colipri_plan_experiment -d "
                f"{path_or_dataset}"
            )
    return Plans.from_dict(read_json(path), str(path))
