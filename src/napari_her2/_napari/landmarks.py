"""Places that the user marks on both slides of a pair, to align them by."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.collecting import take_out
from napari_her2._napari.colormaps import MARK_COLOUR
from napari_her2._napari.layers import AXES, MICROMETRE
from napari_her2._napari.placement import bounds, place_of
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.tags import METADATA_KEY, MarkTag
from napari_her2.registration.affine import POINTS, Alignment

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Points

    from napari_her2._napari.pairing import Pairing

NAMES = ("H&E", "IHC")


class Landmarks:
    """Three numbered points on each slide.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    pairing : Pairing
        Its slides are put side by side, so that it is plain which one a click is meant for.
    """

    def __init__(self, viewer: ViewerModel, pairing: Pairing) -> None:
        self._viewer = weakref.ref(viewer)
        self.pairing = pairing
        pairing.set_arrangement("side by side")
        pairing.marking = True
        self._marks: tuple[Points, ...] = ()
        layers = pairing.layers
        if layers is not None:
            active = viewer.layers.selection.active
            self._marks = tuple(
                viewer.add_layer(_mark_layer(layer, name, slide_id))
                for layer, name, slide_id in zip(layers, NAMES, pairing.ids, strict=True)
            )
            viewer.layers.selection.active = active  # a click is taken here, not by a layer

    @property
    def counts(self) -> tuple[int, ...]:
        """How many points there are on the H&E and on the IHC slide."""
        return tuple(len(layer.data) for layer in self._marks)

    @property
    def complete(self) -> bool:
        """Whether all points are there."""
        return bool(self._marks) and min(self.counts) >= POINTS

    def add(self, position: tuple[float, float]) -> bool:
        """Mark a place.

        Parameters
        ----------
        position : tuple of float
            (y, x) in the window.

        Returns
        -------
        bool
            Whether there is a slide that still lacks a point.
        """
        layers = self.pairing.layers
        if layers is None:
            return False
        for layer, mark in zip(layers, self._marks, strict=True):
            place = place_of(layer)
            low, high = bounds(layer, place)
            inside = bool((low <= position).all() and (position <= high).all())
            if inside and len(mark.data) < POINTS:
                mark.feature_defaults = {"number": len(mark.data) + 1}
                mark.add(np.asarray(mark.world_to_data(position))[-2:])
                return True
        return False

    def alignment(self) -> Alignment:
        """Return what the points say.

        Raises
        ------
        JobFailed
            If there are too few, or they lie almost on one line.
        """
        he, ihc = (np.asarray(mark.data)[:, -2:] for mark in self._marks)
        return Alignment.from_points(ihc, he, names=("the IHC slide", "the H&E slide"))

    def clear(self) -> None:
        """Take the points away and start anew."""
        for mark in self._marks:
            mark.data = np.zeros((0, 2))

    def remove(self) -> None:
        """Take the layers of the points away."""
        self.pairing.marking = False
        viewer = self._viewer()
        if viewer is not None:
            take_out(viewer, *self._marks)
        self._marks = ()


def _mark_layer(slide_layer: Image, name: str, slide_id: str) -> Points:
    from napari.layers import Points

    size = _size_um(slide_layer)
    # In µm on the slide, so that the points are what the alignment is computed from.
    layer = Points(
        np.zeros((0, 2)),
        ndim=2,
        name=one_line(f"points to align by ({name}) · {slide_layer.name}"),
        features={"number": np.zeros(0, int)},
        text={
            "string": "{number}",
            "size": 16,
            "color": MARK_COLOUR,
            "translation": (-0.6 * size, 0.6 * size),
        },
        units=MICROMETRE,
        axis_labels=AXES,
        affine=place_of(slide_layer),
        metadata={METADATA_KEY: MarkTag(slide_id)},
    )
    # Of a layer without points napari takes the look from here alone.
    layer.current_size = size
    layer.current_symbol = "cross"
    layer.current_face_color = MARK_COLOUR
    layer.current_border_width = 0
    return layer


def _size_um(slide_layer: Image) -> float:
    low, high = bounds(slide_layer, np.eye(3))
    return float((high - low).max()) / 40
