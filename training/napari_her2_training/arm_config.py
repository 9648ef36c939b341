"""What the configurations of the low-resolution model and of all that it is compared with share.

The sections [model], [data], [measure] and [compute]: cases, classes, splits and measures are the same for
each, so that what is compared is the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from napari_her2.errors import JobFailed
from napari_her2.models.convnext import STRIDE
from napari_her2_training.classes import ClassMapping, class_mapping
from napari_her2_training.cohort.manifest import STAINS
from napari_her2_training.config import CasesRunConfig
from napari_her2_training.config_keys import key
from napari_her2_training.config_sections import CasesConfig, ModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2_training.cohort.manifest import Stain


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
class ArmConfig(CasesRunConfig):
    """What all arms share."""

    model: ArmModelConfig
    data: StainedCasesConfig

    @property
    def needed(self) -> tuple[Stain, ...]:
        """Slides that every row of the manifest must name."""
        return (self.data.column,)

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Check a configuration given as nested mappings; see `RunConfig.parse`."""
        config = cls._parse_sections(values)
        config.check()
        return config

    def check(self) -> None:
        """Refuse what would only be found after the slides were read.

        Raises
        ------
        JobFailed
        """
        self.data.mapping.number("2+")  # read here once: a mapping at fault is refused
        for section, name in (("image", "size_px"), ("patches", "tile_px")):
            side = getattr(getattr(self, section, None), name, STRIDE)
            if side % STRIDE:
                raise JobFailed(f"[{section}] {name} must be a multiple of {STRIDE}, not {side}.")
