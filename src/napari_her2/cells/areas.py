"""Where on a slide cells are read: in tissue, or inside what was drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import shapely

from napari_her2.cells.polygon_lattice import intersects_xy, squares_met

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.tissue import TissueMask


class Area(Protocol):
    """A part of a slide."""

    def meets(self, boxes_px0: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which boxes it has a part in, (N,); ``boxes_px0`` is (N, 4), (y0, x0, y1, x1), level-0 pixels."""

    def holds(self, points_px0: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which points lie in it, (N,); ``points_px0`` is (N, 2), (y, x), level-0 pixels."""

    def squares(self, shape: tuple[int, int], side_px0: tuple[float, float]) -> NDArray[np.bool_]:
        """Which squares of a lattice over the slide it has a part in, (rows, columns).

        ``shape`` is (rows, columns), and ``side_px0`` (y, x) of a square, level-0 pixels.
        """


@dataclass(frozen=True, slots=True, eq=False)
class TissueArea:
    """The tissue of a slide; what of it cannot be read counts too, so that it is met and told.

    Parameters
    ----------
    tissue : TissueMask
    """

    tissue: TissueMask

    @property
    def _mask(self) -> NDArray[np.bool_]:
        mask, unreadable = self.tissue.mask, self.tissue.unreadable
        return mask if unreadable is None else mask | unreadable

    def meets(self, boxes_px0: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which boxes hold any tissue; see `Area.meets`."""
        mask, down = self._mask, np.array(self.tissue.downsample * 2)
        total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
        total[1:, 1:] = mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        # Every pixel of the mask that a box has a part in.
        edges = boxes_px0 / down
        low = np.floor(edges[:, :2]).clip(0, mask.shape).astype(np.intp)
        high = np.ceil(edges[:, 2:]).clip(0, mask.shape).astype(np.intp)
        (y0, x0), (y1, x1) = low.T, high.T
        return np.asarray(total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0] > 0)

    def holds(self, points_px0: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which points lie on tissue; see `Area.holds`."""
        mask = self._mask
        at = np.floor(points_px0 / np.array(self.tissue.downsample)).astype(np.intp)
        inside = ((at >= 0) & (at < mask.shape)).all(axis=1)
        y, x = at.clip(0, np.array(mask.shape) - 1).T
        return np.asarray(inside & mask[y, x])

    def squares(self, shape: tuple[int, int], side_px0: tuple[float, float]) -> NDArray[np.bool_]:
        """Which squares of a lattice hold any tissue; see `Area.squares`."""
        every = np.argwhere(np.ones(shape, np.bool_))
        side = np.array(side_px0)
        return self.meets(np.concatenate([every * side, (every + 1) * side], axis=1)).reshape(shape)


class DrawnArea:
    """What was drawn.

    Parameters
    ----------
    polygons : shapely geometry
        Polygons of (x, y) in level-0 pixels, valid.
    """

    def __init__(self, polygons: Any) -> None:  # noqa: ANN401 - a shapely geometry
        self.polygons = polygons
        shapely.prepare(polygons)

    def meets(self, boxes_px0: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which boxes it has a part in; see `Area.meets`."""
        y0, x0, y1, x1 = boxes_px0.T
        return np.asarray(shapely.intersects(self.polygons, shapely.box(x0, y0, x1, y1)), np.bool_)

    def holds(self, points_px0: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which points lie inside, or on its border; see `Area.holds`."""
        y, x = np.asarray(points_px0, np.float64).T
        return intersects_xy(self.polygons, x, y)

    def squares(self, shape: tuple[int, int], side_px0: tuple[float, float]) -> NDArray[np.bool_]:
        """Which squares of a lattice it has a part in; see `Area.squares`."""
        return squares_met(self.polygons, shape, side_px0)
