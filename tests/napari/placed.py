"""What tests of layers do with results made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2._napari.layers import OverlayLook, result_layers
from napari_her2._napari.tags import METADATA_KEY
from scored import make_tissue

if TYPE_CHECKING:
    from napari_her2._napari.layers import LayerData
    from napari_her2.inference.result import SlideResult


def drawn(result: SlideResult, kind: str, look: OverlayLook | None = None) -> LayerData | None:
    """Layer data of one overlay of a result; None where it has none."""
    layers = result_layers(result, look or OverlayLook())
    return next((data for data in layers if data[1]["metadata"][METADATA_KEY].kind == kind), None)


def with_tissue(result: SlideResult) -> SlideResult:
    """The same result, with tissue in the middle of each slide."""
    slides = [replace(slide, tissue=make_tissue(slide.grid.slide_shape_px0)) for slide in result.slides]
    return replace(result, slides=tuple(slides))
