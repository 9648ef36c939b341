"""What tests of layers do with results made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scored import make_tissue

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult


def with_tissue(result: SlideResult) -> SlideResult:
    """The same result, with tissue in the middle of each slide."""
    slides = [replace(slide, tissue=make_tissue(slide.grid.slide_shape_px0)) for slide in result.slides]
    return replace(result, slides=tuple(slides))
