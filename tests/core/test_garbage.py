"""How often Python searches the whole process for garbage."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_her2._napari.collecting import search_seldom, take_out

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("before", "after"),
    [((700, 10, 10), (700, 10, 100)), ((700, 10, 1000), (700, 10, 1000)), ((0, 10, 10), (0, 10, 10))],
)
def test_only_searches_of_all_become_rarer(before: tuple[int, int, int], after: tuple[int, int, int]) -> None:
    gc.set_threshold(*before)
    search_seldom()
    assert gc.get_threshold() == after
    search_seldom()
    assert gc.get_threshold() == after


class Ring:
    """Is garbage that only a search finds."""

    def __init__(self) -> None:
        self.itself = self


def test_layers_are_taken_out_without_searching_what_was_there_before() -> None:
    viewer = ViewerModel()
    layers = [viewer.add_image(np.zeros((2, 2))) for _ in range(3)]
    gc.disable()
    try:
        garbage = weakref.ref(Ring())
        viewer.layers.events.removed.connect(lambda: gc.collect())  # as napari's canvas does
        take_out(viewer, layers[0], None, layers[2], Image(np.zeros((2, 2))))
        assert list(viewer.layers) == [layers[1]]
        assert garbage() is not None
        viewer.layers.remove(layers[1])
        assert garbage() is None
    finally:
        gc.enable()
