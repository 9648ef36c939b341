"""Outlines in µm: Voronoi cells, walls between them, nuclei, walls with a width.

All functions are vectorised over cells; drawing (`layers.py`) only rounds and fills.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Voronoi

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Mosaic:
    """Voronoi cells of points.

    Attributes
    ----------
    polygons : tuple of (K, 2) float64
        One polygon (x, y) in µm a point, empty where the cell is open.
    pairs : (R, 2) int64
        The two points on either side of each wall.
    ends : (R, 2, 2) float64
        Its two ends (x, y) in µm.
    """

    polygons: tuple[Floats, ...]
    pairs: Ints
    ends: Floats


def mosaic(y_um: Floats, x_um: Floats) -> Mosaic:
    """Compute the Voronoi cells of points (N,); needs four points or more."""
    points = np.stack((x_um, y_um), axis=1)
    diagram = Voronoi(points)
    vertices = np.asarray(diagram.ridge_vertices, dtype=np.int64)
    pairs = np.asarray(diagram.ridge_points, dtype=np.int64)
    open_cell = np.zeros(len(points), dtype=bool)
    open_cell[pairs[(vertices < 0).any(axis=1)].ravel()] = True
    closed = (vertices >= 0).all(axis=1)
    vertices, pairs = vertices[closed], pairs[closed]
    ends = diagram.vertices[vertices]
    # Each wall gives each of its two cells two corners; sorted by angle they are the polygon.
    owner = np.repeat(pairs.ravel(), 2)
    corner = np.concatenate((ends, ends), axis=1).reshape(-1, 2)
    offset = corner - points[owner]
    order = np.lexsort((np.arctan2(offset[:, 1], offset[:, 0]), owner))
    corner = corner[order]
    bounds = np.searchsorted(owner[order], np.arange(len(points) + 1))
    polygons = tuple(
        corner[start:stop:2] if not is_open else corner[:0]
        for start, stop, is_open in zip(bounds[:-1], bounds[1:], open_cell, strict=True)
    )
    return Mosaic(polygons, pairs, ends)


def rounded(polygon: Floats, margin_um: float) -> Floats:
    """Shrink a convex polygon towards its centre and round it (two steps of corner cutting)."""
    centre = polygon.mean(axis=0)
    offset = polygon - centre
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    polygon = centre + offset * np.maximum(1 - margin_um / np.maximum(distance, 1e-6), 0)
    for _ in range(2):
        following = np.roll(polygon, -1, axis=0)
        polygon = np.stack((0.75 * polygon + 0.25 * following, 0.25 * polygon + 0.75 * following), axis=1)
        polygon = polygon.reshape(-1, 2)
    return polygon


def walls(ends: Floats, half_um: Floats) -> Floats:
    """Turn segments (R, 2, 2) with half widths (R,) into (R, 4, 2) quadrilaterals.

    The ends reach half a width further, so that walls meet without a notch.
    """
    along = ends[:, 1] - ends[:, 0]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    along *= half_um[:, None]
    across = np.stack((-along[:, 1], along[:, 0]), axis=1)
    first, last = ends[:, 0] - 0.6 * along, ends[:, 1] + 0.6 * along
    return np.stack((first + across, last + across, last - across, first - across), axis=1)


def ovals(
    x_um: Floats, y_um: Floats, radius_um: Floats, aspect: Floats, angle: Floats, waves: Floats, corners: int
) -> Floats:
    """Outlines (N, corners, 2) of ellipses of one area each, with low-order bumps.

    Parameters
    ----------
    x_um, y_um, radius_um, aspect, angle : (N,) float64
        Centre, radius of the circle of the same area, long over short axis, direction in radians.
    waves : (N, 4) float64
        Relative amplitudes: cosine and sine of two and three bumps around.
    corners : int
        Number of corners.
    """
    t = np.arange(corners) * (2 * np.pi / corners)
    bumps = 1 + waves @ np.stack((np.cos(2 * t), np.sin(2 * t), np.cos(3 * t), np.sin(3 * t)))
    long = (radius_um * np.sqrt(aspect))[:, None] * np.cos(t) * bumps
    short = (radius_um / np.sqrt(aspect))[:, None] * np.sin(t) * bumps
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack(
        (x_um[:, None] + long * cos - short * sin, y_um[:, None] + long * sin + short * cos), axis=2
    )
