"""The configurations of the low-resolution model and of the classifier of patches."""

from __future__ import annotations

from dataclasses import dataclass

from napari_her2.models.convnext import VARIANTS
from napari_her2_training.arm_config import ArmConfig
from napari_her2_training.config_keys import key


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
    checkpointing: bool = key(False)


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
