"""The configurations of the low-resolution model, of what it is compared with, and of the comparison.

All arms share the sections [model], [data], [measure] and [compute]: cases, classes, splits and measures are
the same for each, so that what is compared is the method. The comparison has the sections of all arms.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self, TypeVar

from napari_her2.errors import JobFailed
from napari_her2.models.convnext import STRIDE, VARIANTS
from napari_her2_training.classes import ClassMapping, class_mapping
from napari_her2_training.config import (
    CasesConfig,
    CasesRunConfig,
    DataConfig,
    EncoderConfig,
    ModelConfig,
    RunConfig,
)
from napari_her2_training.config_keys import key
from napari_her2_training.manifest import STAINS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2_training.manifest import Stain

AGGREGATORS = ("attention-mil", "abmil-plain", "abmil", "clam-sb", "clam-mb", "transmil", "dsmil")
"""Slide models on frozen features; "abmil" is the gated one."""
ARMS = ("low-resolution", "patches", *AGGREGATORS)
Part = TypeVar("Part", bound="ArmConfig")


@dataclass(frozen=True, slots=True)
class ArmModelConfig(ModelConfig):
    """[model]: the texts of the card; the task is that of the stain unless it is given."""

    task: str = key("")


@dataclass(frozen=True, slots=True)
class StainedCasesConfig(CasesConfig):
    """[data]: cases, which of their slides, classes and splits.

    Parameters
    ----------
    stain : str
        "ihc" or "he": the column of the manifest.
    classes : str
        "low" (0, Low, High), "scores", "binary", or each score with its class: "0: 0, 1+: Low, ...".
    ish : bool
        Whether a 2+ whose column ``ish`` is positive belongs to the class of 3+.
    test : float
        Share of the cases that is never trained on.
    """

    stain: str = key("ihc", choices=("ihc", "he"))
    classes: str = key("low")
    ish: bool = key(False)
    validation: float = key(0.125, above=0.0, high=0.9)
    test: float = key(0.2, low=0.0, high=0.9)
    stratified: bool = key(True)

    @property
    def mapping(self) -> ClassMapping:
        """Which scores make which class."""
        return class_mapping(self.classes, ish=self.ish)

    @property
    def column(self) -> Stain:
        """Column of the manifest."""
        return "he" if self.stain == "he" else "ihc"

    @property
    def stain_name(self) -> str:
        """Of the card: "H&E" or "IHC"."""
        return STAINS[self.column]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """[image]: the whole slide as one small image.

    Parameters
    ----------
    size_px : int
        Side of the square.
    mode : str
        "fit": the tissue fills the square, each slide at its own µm/px. "fixed": the same µm/px for all, in
        several squares where the tissue is larger.
    mpp : float
        µm per pixel of "fixed".
    whiten : bool
        Whether what is no tissue becomes white.
    """

    size_px: int = key(1024, low=64, high=4096)
    mode: str = key("fit", choices=("fit", "fixed"))
    mpp: float = key(8.0, low=0.5, high=100.0)
    whiten: bool = key(False)


@dataclass(frozen=True, slots=True)
class PatchesConfig:
    """[patches]: tiles that each learn the class of their slide.

    Parameters
    ----------
    tile_px : int
    mpp : float
        µm per pixel.
    min_tissue : float
        Share of a tile that must be tissue.
    per_slide : int
        Tiles of a slide at most, drawn once; 0 takes all.
    fusion : str
        How the bundle joins its tiles, "mean" of the probabilities or majority "vote"; both are measured.
    epochs, batch_size : int
        In place of those of [learning], unless 0: tiles are many more than slides.
    """

    tile_px: int = key(512, low=64, high=4096)
    mpp: float = key(1.0, low=0.1, high=20.0)
    min_tissue: float = key(0.5, low=0.0, high=1.0)
    per_slide: int = key(50, low=0)
    fusion: str = key("mean", choices=("mean", "vote"))
    epochs: int = key(0, low=0, high=100_000)
    batch_size: int = key(0, low=0, high=4096)


@dataclass(frozen=True, slots=True)
class ConvNeXtConfig:
    """[network]: the ConvNeXt of the low-resolution and of the patch arm.

    Parameters
    ----------
    variant : str
        "tiny", "small", "base"; "atto" is small enough for a CPU.
    weights : str
        "random", "pretrained" (may download ImageNet weights through timm) or a .safetensors file.
    drop_path : float
        Share of residual branches left out while training, at the last block.
    """

    variant: str = key("tiny", choices=tuple(VARIANTS))
    weights: str = key("random")
    drop_path: float = key(0.1, low=0.0, high=0.9)


@dataclass(frozen=True, slots=True)
class LearningConfig:
    """[learning]: how a ConvNeXt learns (AdamW, warm-up, its rate falling along a cosine).

    Parameters
    ----------
    epochs : int
    batch_size, accumulate : int
        Images a batch, and batches a step of the optimiser.
    learning_rate : float
        Of the classifier.
    body_rate_factor : float
        Of the rate, for everything before the classifier.
    layer_decay : float
        The rate falls by this factor from block to block towards the pixels; 1: one rate.
    last_rate : float
        At the end of the cosine.
    weight_decay : float
    warmup_epochs : int
    label_smoothing : float
    balance : str
        "sampler": each class as often as the others; "weights": rare classes weigh more; "none".
    light : float
        Largest relative change of brightness and contrast. Hue and saturation stay: brown is the signal.
    turn_degrees, scale : float
        Largest turn, and largest relative change of size; white comes in at the edges.
    views : int
        8: slides are judged by the mean over turned and mirrored views; 1: as they lie.
    checkpointing : bool
        Less memory for more time.
    """

    epochs: int = key(30, low=1, high=100_000)
    batch_size: int = key(4, low=1, high=4096)
    accumulate: int = key(4, low=1, high=10_000)
    learning_rate: float = key(1e-4, above=0.0)
    body_rate_factor: float = key(0.5, above=0.0, high=1.0)
    layer_decay: float = key(0.7, above=0.0, high=1.0)
    last_rate: float = key(1e-6, low=0.0)
    weight_decay: float = key(0.05, low=0.0)
    warmup_epochs: int = key(2, low=0)
    label_smoothing: float = key(0.1, low=0.0, high=0.9)
    balance: str = key("sampler", choices=("sampler", "weights", "none"))
    light: float = key(0.1, low=0.0, high=0.5)
    turn_degrees: float = key(10.0, low=0.0, high=45.0)
    scale: float = key(0.1, low=0.0, high=0.5)
    views: int = key(8, low=1, high=8)
    checkpointing: bool = key(False)


@dataclass(frozen=True, slots=True)
class TilesConfig:
    """[tiles]: what the frozen encoder of the MIL arms sees.

    Parameters
    ----------
    tile_px : int
    mpp : float
        µm per pixel.
    min_tissue : float
        Share of a tile that must be tissue.
    """

    tile_px: int = key(256, low=8, high=4096)
    mpp: float = key(0.5, low=0.1, high=20.0)
    min_tissue: float = key(0.5, low=0.0, high=1.0)


@dataclass(frozen=True, slots=True)
class AggregatorConfig:
    """[head]: the slide model on frozen features, and how it learns (Adam, one slide at a time).

    Parameters
    ----------
    architecture : str
        One of `AGGREGATORS`; a comparison has its own list.
    width, hidden : int
        Units of the layer in front and of the attention, where the architecture has them; 0: as published.
    dropout : float
        Where the architecture has it.
    epochs : int
    accumulate : int
        Slides a step of the optimiser.
    max_tiles : int
        A slide is thinned to this many tiles, drawn anew each time it is learnt from; 0 takes all.
    learning_rate, weight_decay : float
    balance : str
        "sampler", "weights" or "none", as in [learning].
    """

    architecture: str = key("abmil", choices=AGGREGATORS)
    width: int = key(0, low=0, high=65536)
    hidden: int = key(0, low=0, high=65536)
    dropout: float = key(0.25, low=0.0, high=0.95)
    epochs: int = key(50, low=1, high=100_000)
    accumulate: int = key(4, low=1, high=10_000)
    max_tiles: int = key(0, low=0)
    learning_rate: float = key(2e-4, above=0.0)
    weight_decay: float = key(1e-5, low=0.0)
    balance: str = key("sampler", choices=("sampler", "weights", "none"))


@dataclass(frozen=True, slots=True)
class MILLossConfig:
    """[loss]: see `napari_her2_training.mil_losses.MILLossOptions`, for CLAM and DSMIL."""

    bag_weight: float = key(0.7, low=0.0, high=1.0)
    sampled: int = key(8, low=1)
    instance_loss: str = key("svm", choices=("svm", "cross-entropy"))
    stream_weight: float = key(0.5, low=0.0, high=1.0)


@dataclass(frozen=True, slots=True)
class ArmConfig(CasesRunConfig):
    """What all arms share."""

    model: ArmModelConfig
    data: StainedCasesConfig

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Check a configuration given as nested mappings; see `RunConfig.parse`."""
        config = cls._parse_sections(values)
        _check(config)
        return config


def _check(config: ArmConfig) -> None:
    """Refuse what would only be found after the slides were read."""
    config.data.mapping.number("2+")  # read here once: a mapping at fault is refused
    for section, name in (("image", "size_px"), ("patches", "tile_px")):
        side = getattr(getattr(config, section, None), name, STRIDE)
        if side % STRIDE:
            raise JobFailed(f"[{section}] {name} must be a multiple of {STRIDE}, not {side}.")


@dataclass(frozen=True, slots=True)
class LowResolutionConfig(ArmConfig):
    """A training run of the low-resolution model."""

    image: ImageConfig
    network: ConvNeXtConfig
    learning: LearningConfig


@dataclass(frozen=True, slots=True)
class PatchArmConfig(ArmConfig):
    """A training run of a classifier of tiles."""

    patches: PatchesConfig
    network: ConvNeXtConfig
    learning: LearningConfig


@dataclass(frozen=True, slots=True)
class MILConfig(ArmConfig):
    """A training run of a slide model on frozen features."""

    tiles: TilesConfig
    encoder: EncoderConfig
    head: AggregatorConfig
    loss: MILLossConfig

    @property
    def embedding(self) -> DataConfig:
        """The sections [data] and [tiles] as one, which is what embedding slides needs to know."""
        data, tiles = self.data, self.tiles
        return _TileData(
            classes=data.classes,
            ish=data.ish,
            tile_px=tiles.tile_px,
            mpp=tiles.mpp,
            min_tissue=tiles.min_tissue,
        )


@dataclass(frozen=True, slots=True)
class _TileData(DataConfig):
    ish: bool = key(False)

    @property
    def mapping(self) -> ClassMapping:
        """Which scores make which class."""
        return class_mapping(self.classes, ish=self.ish)


@dataclass(frozen=True, slots=True)
class ComparisonConfig:
    """[compare]: which arms.

    Parameters
    ----------
    arms : str
        Names from `ARMS`, with commas.
    """

    arms: str = key(", ".join(ARMS))

    @property
    def names(self) -> tuple[str, ...]:
        """The arms, in their order."""
        return tuple(dict.fromkeys(name.strip() for name in self.arms.split(",") if name.strip()))


@dataclass(frozen=True, slots=True)
class CompareConfig(ArmConfig):
    """A comparison of arms by one protocol."""

    compare: ComparisonConfig
    image: ImageConfig
    patches: PatchesConfig
    network: ConvNeXtConfig
    learning: LearningConfig
    tiles: TilesConfig
    encoder: EncoderConfig
    head: AggregatorConfig
    loss: MILLossConfig

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Check a configuration given as nested mappings; see `RunConfig.parse`."""
        config = cls._parse_sections(values)
        _check(config)
        unknown = [name for name in config.compare.names if name not in ARMS]
        if unknown or not config.compare.names:
            raise JobFailed(
                f"[compare] arms must be names from {', '.join(ARMS)}, with commas, not "
                f"{', '.join(map(repr, unknown)) or 'nothing'}."
            )
        return config

    def digest(self) -> str:
        """SHA-256 of all values but the list of arms, which may grow; each arm has its own."""
        return RunConfig.digest(replace(self, compare=ComparisonConfig()))

    def of(self, kind: type[Part]) -> Part:
        """Return the sections of one arm as the configuration of its own run."""
        return kind(**{item.name: getattr(self, item.name) for item in fields(kind)})
