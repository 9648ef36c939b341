"""The configuration of slide models on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from napari_her2.errors import JobFailed
from napari_her2_training.arm_config import ArmConfig
from napari_her2_training.classes import ClassMapping, class_mapping
from napari_her2_training.config_keys import key
from napari_her2_training.config_sections import DataConfig, EncoderConfig

TRANSMIL_HEADS = 8
AGGREGATORS = ("attention-mil", "abmil-plain", "abmil", "clam-sb", "clam-mb", "transmil", "dsmil")
"""Slide models on frozen features; "abmil" is the gated one."""


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
        Of ABMIL and CLAM. TransMIL has 0.1, as published; attention MIL and DSMIL have none.
    epochs : int
    accumulate : int
        Slides a step of the optimiser.
    max_tiles : int
        A slide is thinned to this many tiles, drawn anew each time it is learnt from; 0 takes all.
    learning_rate, weight_decay : float
    optimiser : str
        "adam", or "sgd" with a momentum of 0.9, as ABMIL learnt the classical sets.
    keep : str
        Which epoch is kept by the validation slides: that of the best "macro F1", a later one of equals, or
        that with the fewest wrong answers and of those the lowest loss, "error and loss" (ABMIL).
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
    optimiser: str = key("adam", choices=("adam", "sgd"))
    keep: str = key("macro F1", choices=("macro F1", "error and loss"))
    balance: str = key("sampler", choices=("sampler", "weights", "none"))

    def check(self) -> None:
        """Refuse what would only be found after the slides were embedded.

        Raises
        ------
        JobFailed
        """
        if self.architecture == "transmil" and self.width % TRANSMIL_HEADS:
            raise JobFailed(
                f"[head] width must be a multiple of {TRANSMIL_HEADS} for TransMIL, whose heads share it, "
                f"not {self.width}."
            )


@dataclass(frozen=True, slots=True)
class MILLossConfig:
    """[loss]: see `napari_her2_training.mil.losses.MILLossOptions`, for CLAM and DSMIL."""

    bag_weight: float = key(0.7, low=0.0, high=1.0)
    sampled: int = key(8, low=1)
    instance_loss: str = key("svm", choices=("svm", "cross-entropy"))
    stream_weight: float = key(0.5, low=0.0, high=1.0)


@dataclass(frozen=True, slots=True)
class MILConfig(ArmConfig):
    """A training run of a slide model on frozen features."""

    tiles: TilesConfig
    encoder: EncoderConfig
    head: AggregatorConfig
    loss: MILLossConfig
    joins_bags: ClassVar[bool] = True

    def check(self) -> None:
        """Refuse what would only be found after the slides were read; see `ArmConfig.check`."""
        ArmConfig.check(self)
        self.head.check()

    @property
    def embedding(self) -> DataConfig:
        """The sections [data] and [tiles] as one, which is what embedding slides needs to know."""
        data, tiles = self.data, self.tiles
        return _TileData(
            classes=data.classes,
            ish=data.ish,
            check_stains=data.check_stains,
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
