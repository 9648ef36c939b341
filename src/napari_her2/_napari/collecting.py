"""Layers are taken out without searching the whole process for garbage each time."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
