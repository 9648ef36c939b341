"""The configuration of the comparison: the sections of all arms."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

from napari_her2.errors import JobFailed
from napari_her2_training.arm_config import ArmConfig
from napari_her2_training.config import RunConfig
from napari_her2_training.config_keys import key
from napari_her2_training.config_sections import EncoderConfig
from napari_her2_training.low_resolution.config import (
    ConvNeXtConfig,
    ImageConfig,
    LearningConfig,
    PatchesConfig,
)
from napari_her2_training.mil.config import AGGREGATORS, AggregatorConfig, MILLossConfig, TilesConfig

ARMS = ("low-resolution", "patches", *AGGREGATORS)
Part = TypeVar("Part", bound=ArmConfig)


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

    def check(self) -> None:
        """Refuse what would only be found after the slides were read; see `ArmConfig.check`."""
        ArmConfig.check(self)
        unknown = [name for name in self.compare.names if name not in ARMS]
        if unknown or not self.compare.names:
            raise JobFailed(
                f"[compare] arms must be names from {', '.join(ARMS)}, with commas, not "
                f"{', '.join(map(repr, unknown)) or 'nothing'}."
            )
        for name in self.compare.names:
            if name in AGGREGATORS:
                replace(self.head, architecture=name).check()

    def digest(self) -> str:
        """SHA-256 of all values but the list of arms, which may grow; each arm has its own."""
        return RunConfig.digest(replace(self, compare=ComparisonConfig()))

    def of(self, kind: type[Part]) -> Part:
        """Return the sections of one arm as the configuration of its own run."""
        return kind(**{item.name: getattr(self, item.name) for item in fields(kind)})
