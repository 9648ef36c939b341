"""Another slide of a case, beside the one or two that are scored together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_her2.inference.regions import Regions
    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True, eq=False)
class FurtherSlide:
    """Another slide of a case, which is scored in one bag with those of its stain.

    Parameters
    ----------
    slide : Slide
    stain : str
        "H&E" or "IHC".
    regions : Regions or None
        On it.
    """

    slide: Slide
    stain: str
    regions: Regions | None = None
