"""Tiles of a scoring that is not finished, handed from the thread that computes to whoever shows them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.explain.early import EarlyMap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.explain.early import EarlyValues
    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.terms import Terms
    from napari_her2.slide.grid import TileGrid


@dataclass(frozen=True, slots=True, eq=False)
class SoFar:
    """How far a slide is.

    Parameters
    ----------
    slide_id : str
    tile_map : TileMap
    done, total : int
        Tiles.
    """

    slide_id: str
    tile_map: TileMap
    done: int
    total: int


class EarlyTiles:
    """What is known of the tiles of the slides of one scoring, while it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._maps: dict[str, EarlyMap] = {}
        self._changed: set[str] = set()

    def begin(self, slide_id: str, grid: TileGrid, total: int) -> None:
        """Begin with a slide, of which nothing is known.

        Parameters
        ----------
        slide_id : str
        grid : TileGrid
        total : int
            Tiles that will be looked at.
        """
        with self._lock:
            self._maps[slide_id] = EarlyMap(grid, total)

    def put(self, slide_id: str, index: NDArray[np.integer], found: EarlyValues) -> None:
        """Take what is known of tiles; ``index`` holds (row, column) of each.

        Before the first one that may be nothing: then the map is empty, and looks as it will.
        """
        with self._lock:
            self._maps[slide_id].put(index, found)
            self._changed.add(slide_id)

    def take(self) -> list[SoFar]:
        """Return the maps that hold more than the last time, and those that begin."""
        with self._lock:
            changed, self._changed = sorted(self._changed), set()
            return [SoFar(of, (held := self._maps[of]).map(), held.done, held.total) for of in changed]


def may_be_withheld(terms: Terms, stain: str) -> bool:
    """Whether the answer may yet be kept from sight, so that nothing of a class may be shown before it.

    Parameters
    ----------
    terms : Terms
    stain : str
        What the slide is scored as.
    """
    known, options = terms.bundle.familiarity, terms.options
    return bool(
        known is not None and known.of(stain) and options.min_familiarity > 0 and not options.show_withheld
    )
