"""The cells of a slide as arrays: where each lies, how far it reaches, and what its membrane shows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from numpy.typing import NDArray

SECTORS = 32
"""Rays of a cell, one every 11.25 degrees."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
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

    def part(self, chosen: NDArray[np.bool_] | NDArray[np.integer]) -> Cells:
        """Return the chosen cells without copying them: each column is picked once somebody reads it."""
        return CellsPart(self, np.arange(len(self))[chosen])

    def outlines_um(self, chosen: NDArray[np.bool_] | NDArray[np.integer] | slice) -> NDArray[np.float32]:
        """Borders of cells as polygons, (n, 32, 2) float32, (y, x) on the slide, µm."""
        reach = self.border_um[chosen].astype(np.float32)[..., None]
        return np.asarray(self.centre_um[chosen][:, None] + reach * ray_directions(), np.float32)


class CellsPart(Cells):
    """Some of the cells of a table, whose columns are picked when they are read.

    A region that is being drawn holds most cells of a slide, again and again, and few of their columns are
    looked at before it has changed.

    Parameters
    ----------
    whole : Cells
    rows : (n,) int
    """

    __slots__ = ("_columns", "_rows", "_whole")
    _whole: Cells
    _rows: NDArray[np.integer]
    _columns: dict[str, Any]

    def __init__(self, whole: Cells, rows: NDArray[np.integer]) -> None:
        object.__setattr__(self, "_whole", whole)
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "_columns", {})

    def __len__(self) -> int:
        return len(self._rows)

    def pick(self, chosen: NDArray[np.bool_] | NDArray[np.integer]) -> Cells:
        """Return the chosen cells; see `Cells.pick`."""
        return self._whole.pick(self._rows[chosen])

    def part(self, chosen: NDArray[np.bool_] | NDArray[np.integer]) -> Cells:
        """Return the chosen cells without copying them; see `Cells.part`."""
        return self._whole.part(self._rows[chosen])

    def outlines_um(self, chosen: NDArray[np.bool_] | NDArray[np.integer] | slice) -> NDArray[np.float32]:
        """Borders of cells as polygons; see `Cells.outlines_um`."""
        return self._whole.outlines_um(self._rows[chosen])

    def copied(self) -> Cells:
        """Return the same cells as a table of their own."""
        return Cells(*(self._column(of.name) for of in fields(Cells)))

    def __reduce__(self) -> tuple[type[Cells], tuple[Any, ...]]:
        """Travel as a table of its own."""
        return Cells, tuple(self._column(of.name) for of in fields(Cells))

    def known(self, key: Hashable) -> Any:  # noqa: ANN401 - an array
        """Return what `of_each` knows of the whole table, for these cells; None where it is not known."""
        found = _KNOWN.get(self._whole, {}).get(key)
        return None if found is None else found[self._rows]

    def _column(self, name: str) -> Any:  # noqa: ANN401 - an array
        if name not in self._columns:
            self._columns[name] = getattr(self._whole, name)[self._rows]
        return self._columns[name]


def _picked(name: str) -> property:
    def column(self: CellsPart) -> Any:  # noqa: ANN401 - an array
        return self._column(name)

    return property(column)


for _of in fields(Cells):
    setattr(CellsPart, _of.name, _picked(_of.name))

_KNOWN: WeakKeyDictionary[Cells, dict[Hashable, Any]] = WeakKeyDictionary()
_MOST_KNOWN = 6


def of_each(cells: Cells, key: Hashable, make: Callable[[Cells], Any]) -> Any:  # noqa: ANN401 - an array
    """Return what follows of each cell by itself; made once for a table, and picked for its parts.

    Parameters
    ----------
    cells : Cells
    key : hashable
        What it is, with the thresholds that it is made by.
    make : callable
        Makes it of cells, (N, ...); the same of a cell whatever the other cells are.

    Returns
    -------
    ndarray
        Not to be written to. Of a part whose table is not known yet it is made for the part alone.
    """
    if isinstance(cells, CellsPart):
        found = cells.known(key)
        return make(cells) if found is None else found
    known = _KNOWN.setdefault(cells, {})
    found = known.get(key)
    if found is None:
        found = make(cells)
        found.flags.writeable = False
        known[key] = found
        while len(known) > _MOST_KNOWN:  # thresholds that were tried with a slider
            known.pop(next(iter(known)), None)
    return found


def ray_directions() -> NDArray[np.float32]:
    """Return unit vectors of the rays, (32, 2) float32, (y, x)."""
    angle = 2 * np.pi * np.arange(SECTORS) / SECTORS
    return np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
