"""The cells of a slide as arrays: where each lies, how far it reaches, and what its membrane shows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

SECTORS = 32
"""Rays of a cell, one every 11.25 degrees."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """N cells as measured; thresholds, gain and regions come later (`napari_her2.cells.rules`).

    Ray k leaves the centre at the angle 2π k / 32, counted from the x axis towards the y axis: to the right
    first, then down.

    Parameters
    ----------
    centre_um : (N, 2) float32
        (y, x) on the slide, from its upper left corner, µm; in raster order.
    border_um : (N, 32) float16
        From the centre to the border of the cell along each ray, µm.
    contrast : (N, 32) float16
        Of the membrane in each sector: the largest negative second derivative of DAB across it, OD.
    dab : (N, 32) float16
        Optical density of DAB there.
    mass : (N, 32) float16
        DAB above its surroundings, integrated across the membrane, OD·µm; without a gain.
    area_um2 : (N,) float32
    cytoplasm_dab : (N,) float32
        Mean optical density of DAB between nucleus and membrane.
    nucleus_h : (N,) float32
        Optical density of haematoxylin at the centre.
    nucleus_um2 : (N,) float32
        Area of the blue nucleus; 0 where there is none, as in many 3+ cells.
    nucleus_ratio : (N,) float32
        Longest over shortest axis of the blue nucleus; 1 where there is none.
    """

    centre_um: NDArray[np.float32]
    border_um: NDArray[np.float16]
    contrast: NDArray[np.float16]
    dab: NDArray[np.float16]
    mass: NDArray[np.float16]
    area_um2: NDArray[np.float32]
    cytoplasm_dab: NDArray[np.float32]
    nucleus_h: NDArray[np.float32]
    nucleus_um2: NDArray[np.float32]
    nucleus_ratio: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.centre_um)

    @classmethod
    def none(cls) -> Cells:
        """Return a table without cells."""
        rays, one = np.zeros((0, SECTORS), np.float16), np.zeros(0, np.float32)
        return cls(np.zeros((0, 2), np.float32), rays, rays, rays, rays, one, one, one, one, one)

    @classmethod
    def joined(cls, parts: Iterable[Cells]) -> Cells:
        """Return all cells of several tables, in raster order whatever the order of the tables."""
        found = list(parts) or [cls.none()]
        together = cls(*(np.concatenate([getattr(part, of.name) for part in found]) for of in fields(cls)))
        return together.pick(np.lexsort((together.centre_um[:, 1], together.centre_um[:, 0])))

    def pick(self, chosen: NDArray[np.bool_] | NDArray[np.integer]) -> Cells:
        """Return the chosen cells, by mask or by number."""
        return Cells(*(getattr(self, of.name)[chosen] for of in fields(self)))

    def outlines_um(self, chosen: NDArray[np.bool_] | NDArray[np.integer] | slice) -> NDArray[np.float32]:
        """Borders of cells as polygons, (n, 32, 2) float32, (y, x) on the slide, µm."""
        reach = self.border_um[chosen].astype(np.float32)[..., None]
        return np.asarray(self.centre_um[chosen][:, None] + reach * ray_directions(), np.float32)


def ray_directions() -> NDArray[np.float32]:
    """Return unit vectors of the rays, (32, 2) float32, (y, x)."""
    angle = 2 * np.pi * np.arange(SECTORS) / SECTORS
    return np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
