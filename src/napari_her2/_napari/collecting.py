"""The whole process is seldom searched for garbage, and not at all where layers are taken out."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from napari.layers import Layer

_YOUNG_SEARCHES = 100


def search_seldom() -> None:
    """Let Python search the whole process for garbage ten times less often than it does by itself.

    Such a search walks through every object of the process, holds all threads meanwhile, and takes 0.2 s and
    more with PyTorch loaded; whatever makes many objects at once, such as importing a library, sets one off.
    What has just been made is searched as often as always, and napari searches all whenever a layer is taken
    out, so that little waits for long.
    """
    youngest, young, old = gc.get_threshold()
    if youngest:  # else somebody has switched it off
        gc.set_threshold(youngest, young, max(old, _YOUNG_SEARCHES))


@contextmanager
def young_garbage() -> Iterator[None]:
    """Let Python look for garbage only among what was made since the beginning of the block.

    napari collects garbage whenever a layer is taken out, which walks through every object of the process:
    with PyTorch loaded that takes a fifth of a second a layer, and the window stands still. What has become
    garbage before is found by the next collection after the block, as always.
    """
    if gc.get_freeze_count():  # somebody else keeps objects out of collections, and decides for how long
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def take_out(viewer: ViewerModel, *layers: Layer | None) -> None:
    """Take layers out of the viewer, those that are still there, without searching the whole process.

    Parameters
    ----------
    viewer : ViewerModel
    *layers : Layer or None
        Not those of slides: what a slide that is closed had kept is to be freed at once.
    """
    with young_garbage():
        for layer in layers:
            # Whoever hears that one is gone may take out the others before this loop comes to them.
            if layer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)
