"""Grad-CAM of a model of images, laid back from the images of a slide onto its tile grid."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.geometries import TILES
from napari_her2.explain.maps import DAMAGED, TileMap
from napari_her2.explain.overlays import Column, OverlayInfo, TileWords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.thumbnail import Thumbnail

CAM = OverlayInfo(
    "Grad-CAM",
    meaning=(
        "Regions the model used for {class_name}, not regions that are HER2-positive: where the image "
        "supports it more than on average, at a resolution that shows no membrane. It does not show how "
        "strong the support is."
    ),
    unit="logit",
)
SIGNED_CAM = replace(
    CAM,
    kind="signed Grad-CAM",
    title="Grad-CAM for",
    layer_name="Grad-CAM {class_name}: regions the model used",
    limits="above zero",  # with what supports the class less than on average, which is clear
    visible=True,
    hover=Column("Grad-CAM {class_name}", significant=3),
    words=TileWords(
        "{class_name} {value:+.2g}",
        before="Grad-CAM here: ",
        after=" (logits, against the mean of its image)",
    ),
)
WHITE = replace(
    DAMAGED,
    layer_name="{count} damaged tiles (white in the image)",
    meaning="Tiles of which the model saw a part in white because the file is damaged there.",
)
PLACES = replace(
    TILES,
    title="Place on the slide",
    unit="place",
    words=TileWords("The model scored the whole slide at once, not this place."),
)


def cam_maps(
    grid: TileGrid,
    index: NDArray[np.integer],
    thumbnails: Sequence[Thumbnail],
    signed: NDArray[np.floating],
    classes: Sequence[str],
) -> tuple[TileMap, ...]:
    """Grad-CAM of each class on a grid.

    Parameters
    ----------
    grid : TileGrid
    index : (N, 2) int
        (row, column) of the tiles that get a value: that at their centre, between pixels of the map
        linearly. A centre beside all images takes the nearest edge.
    thumbnails : sequence of K Thumbnail
    signed : (K, C, h, w) float
        Grad-CAM over each image, without ReLU.
    classes : sequence of str

    Returns
    -------
    tuple of TileMap
        "Grad-CAM" of each class, at least 0, then "signed Grad-CAM" of each.
    """
    values = sampled(grid, index, thumbnails, signed)
    found = ((CAM, np.maximum(values, 0)), (SIGNED_CAM, values))
    return tuple(
        TileMap(info, grid.paint(index, shown[:, number]), grid, name)
        for info, shown in found
        for number, name in enumerate(classes)
    )


def sampled(
    grid: TileGrid,
    index: NDArray[np.integer],
    thumbnails: Sequence[Thumbnail],
    signed: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Values of maps over images at the centres of tiles, (N, C) float32; arguments as for `cam_maps`."""
    centres_px0 = (np.asarray(index, np.float64).reshape(-1, 2) + 0.5) * grid.tile_px0
    places = np.stack([thumbnail.from_px0(centres_px0) for thumbnail in thumbnails])  # (K, N, 2)
    sides = np.array([thumbnail.size_px for thumbnail in thumbnails], np.float64)[:, None, None]
    beside = np.maximum(np.maximum(-places, places - sides), 0).max(axis=2)
    nearest = beside.argmin(axis=0)
    values = np.zeros((len(centres_px0), signed.shape[1]), np.float32)
    for number in range(len(thumbnails)):
        mine = nearest == number
        # The centre of pixel i of a map lies at (i + 0.5) pixels of it.
        at = places[number, mine] * (np.array(signed.shape[2:]) / sides[number, 0, 0]) - 0.5
        for channel in range(signed.shape[1]):
            values[mine, channel] = _bilinear(signed[number, channel], at)
    return values


def _bilinear(image: NDArray[np.floating], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values of an image at (N, 2) places (y, x), its edge repeated outside."""
    if not len(at):
        return np.zeros(0, np.float32)
    height, width = image.shape
    y, x = np.clip(at[:, 0], 0, height - 1), np.clip(at[:, 1], 0, width - 1)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    low, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    v, u = y - top, x - left
    upper = image[top, left] * (1 - u) + image[top, right] * u
    lower = image[low, left] * (1 - u) + image[low, right] * u
    return np.asarray(upper * (1 - v) + lower * v, np.float32)
