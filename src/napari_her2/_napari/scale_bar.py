"""The scale bar is there as soon as there is something to measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2._napari.tags import slide_tag

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


def is_measured(layer: Layer) -> bool:
    """Whether a layer is one of our slides, and its µm/px are known."""
    tag = slide_tag(layer)
    return tag is not None and tag.slide.mpp is not None


def show_scale_bar(viewer: ViewerModel) -> None:
    """Switch the scale bar on; napari takes its unit, µm, from the layers."""
    viewer.canvas.overlays.scale_bar.visible = True


def show_scale_bar_of_window() -> None:
    """Switch it on in the window that a slide is about to be opened in, if it is the first one there.

    A reader is not told for which viewer it reads; with other slides open the choice is the user's own.
    """
    try:
        from napari import current_viewer

        viewer = current_viewer()
    except ImportError:  # napari without a window system
        return
    if viewer is not None and not any(is_measured(layer) for layer in viewer.layers):
        show_scale_bar(viewer)
