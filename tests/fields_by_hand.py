"""A pyramid of fields made by hand: what the viewer's side needs of one, without PyTorch."""

from __future__ import annotations

import threading

import numpy as np

from napari_her2._napari.correlated import Prepared
from napari_her2.explain.field_store import CorrelatedField, FieldKey

CHANNELS = 4


class HandPyramid:
    """Values tell where they are: channel 0 the row, 1 the column, 2 the level, 3 nothing."""

    channels = CHANNELS

    def __init__(self, slide=None, *, shape=(96, 128), field_px=16, pixel_um=2.0, damaged=()) -> None:
        self.slide = slide
        self.field_px = field_px
        self.pixel_um = pixel_um
        self.offset_um = (pixel_um / 2 - 0.25, pixel_um / 2 - 0.25)
        shapes = [shape]
        while max(shapes[-1]) > field_px:
            shapes.append((shapes[-1][0] // 2, shapes[-1][1] // 2))
        self.level_shapes = tuple(shapes)
        self.damaged = set(damaged)
        self.computed: list[tuple[FieldKey, str]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def whole(self, level: int) -> np.ndarray:
        """All values of a level, (4, h, w)."""
        y, x = np.indices(self.level_shapes[level])
        return np.stack([y, x, np.full_like(y, level), np.zeros_like(y)]).astype(np.float16)

    def field(self, key: FieldKey) -> CorrelatedField:
        assert self.go_on.wait(300)
        self.computed.append((key, threading.current_thread().name))
        side = self.field_px
        values = np.full((CHANNELS, side, side), np.nan, np.float16)
        part = self.whole(key.level)[
            :, key.row * side : (key.row + 1) * side, key.col * side : (key.col + 1) * side
        ]
        values[:, : part.shape[1], : part.shape[2]] = part
        hurt = key in self.damaged
        if hurt:
            values[:, :4] = np.nan
        return CorrelatedField(key, values, hurt)


def prepared_by_hand(pyramid: HandPyramid) -> Prepared:
    sample = pyramid.whole(0).reshape(CHANNELS, -1).T.astype(np.float32)
    return Prepared(pyramid, sample, "hand-model", "cpu (no CUDA or MPS device found)")
