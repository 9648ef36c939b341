"""Maps of a scoring that is not finished: what is known of each tile before anything is known of the slide.

Nothing here weighs tiles against each other: attention, and evidence weighed by it, are there once the bag is
whole. A map that is of a class is shown only of an answer that cannot be withheld.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.fields import SCORE
from napari_her2.explain.maps import TileMap
from napari_her2.explain.overlays import OverlayInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid

UNFINISHED = "scoring is not finished"
READ = OverlayInfo(
    "tiles so far",
    title="Tiles so far",
    layer_name=f"tiles looked at so far ({UNFINISHED})",
    meaning="Tiles that the model has looked at. The slide has no score yet.",
    unit="1 where the model has looked",
    colours="#ffb300",
    visible=True,
)
SCORE_SO_FAR = replace(
    SCORE,
    kind=READ.kind,
    title=READ.title,
    layer_name=f"score of each tile so far ({UNFINISHED})",
    meaning="The most probable class of each tile by itself. The slide has no score yet.",
)
VOTE_SO_FAR = OverlayInfo(
    READ.kind,
    title=READ.title,
    layer_name=f"evidence for {{class_name}} of each tile by itself ({UNFINISHED})",
    meaning=(
        "Orange tiles by themselves speak for {class_name} more than for other classes, blue ones less. How "
        "much each counts is not known before all are looked at. The slide has no score yet."
    ),
    unit="logit",
    colours="diverging",
    limits="symmetric",
    visible=True,
)


@dataclass(frozen=True, slots=True, eq=False)
class EarlyValues:
    """What is known of some tiles.

    Parameters
    ----------
    info : OverlayInfo
    values : (n,) float32
    class_name : str or None
        What they are of, where they are of a class.
    """

    info: OverlayInfo
    values: NDArray[np.float32]
    class_name: str | None = None


def looked_at(count: int) -> EarlyValues:
    """Say of tiles only that the model has looked at them."""
    return EarlyValues(READ, np.ones(count, np.float32))


def scores_so_far(probabilities: NDArray[np.floating], classes: Sequence[str]) -> EarlyValues:
    """Return the most probable class of each tile.

    Parameters
    ----------
    probabilities : (n, C) float
    classes : sequence of str
    """
    return EarlyValues(SCORE_SO_FAR.of_categories(classes), probabilities.argmax(axis=1).astype(np.float32))


def votes_so_far(votes: NDArray[np.floating], classes: Sequence[str]) -> EarlyValues:
    """Return what each tile by itself adds to the logit of the last class, against the mean of all classes.

    Parameters
    ----------
    votes : (n, C) float
        `napari_her2.models.aggregator.MILOutput.votes`.
    classes : sequence of str
        The last is the highest score.
    """
    values = votes[:, -1] - votes.mean(axis=1)
    return EarlyValues(VOTE_SO_FAR, values.astype(np.float32), classes[-1])


class EarlyMap:
    """A map that fills in.

    Parameters
    ----------
    grid : TileGrid
    total : int
        Tiles that it will hold.
    """

    def __init__(self, grid: TileGrid, total: int) -> None:
        self.grid, self.total, self.done = grid, total, 0
        self._values = np.full(grid.shape, np.nan, np.float32)
        self._info = READ
        self._class_name: str | None = None

    def put(self, index: NDArray[np.integer], found: EarlyValues) -> None:
        """Fill in tiles; ``index`` holds (row, column) of each."""
        self._info, self._class_name = found.info, found.class_name
        self._values[index[:, 0], index[:, 1]] = found.values
        self.done += len(index)

    def map(self) -> TileMap:
        """Return the map as it is now."""
        return TileMap(self._info, self._values.copy(), self.grid, self._class_name)
