"""Grad-CAM of a model of low resolution, laid back from its images onto the tile grid of the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.maps import TileMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.thumbnail import Thumbnail

_SHOWS = (
    "Where the image spoke for {name} more than it did on average: regions that the model used, at a "
    "resolution that shows no membrane. It does not tell how much speaks for the class."
)
_SIGNED = "The same with what spoke less for {name} than the average, below 0."


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
    positive = tuple(
        TileMap(
            "Grad-CAM",
            grid.paint(index, np.maximum(values[:, number], 0)),
            grid,
            "logit",
            class_name=name,
            description=_SHOWS.format(name=name),
        )
        for number, name in enumerate(classes)
    )
    both = tuple(
        TileMap(
            "signed Grad-CAM",
            grid.paint(index, values[:, number]),
            grid,
            "logit",
            class_name=name,
            description=_SIGNED.format(name=name),
        )
        for number, name in enumerate(classes)
    )
    return positive + both


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
