"""The tiles of a slide that are most like what a model learnt from, and the strangest: why it is unlike."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_her2._qt.scoring.gallery import Strip
from napari_her2.models.familiarity import IN_PART, UNLIKE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2._napari.tile import TileLookup

_COUNT = 24


def strange_strips(lookups: Sequence[TileLookup]) -> list[Strip]:
    """Choose the strangest and the nearest tiles of each slide that is unlike, in part or whole.

    Parameters
    ----------
    lookups : sequence of TileLookup
        One a slide.

    Returns
    -------
    list of Strip
        Empty where all slides look familiar, or nobody can tell how far their tiles are off.
    """
    strips = []
    for lookup in lookups:
        slide = lookup.result.slides[0]
        distances = slide.familiarity.distances
        if distances is None or slide.familiarity.verdict not in (IN_PART, UNLIKE):
            continue
        if not 0 < len(distances) == len(slide.table):  # those of a model of images are of no tile
            continue
        order = np.argsort(distances, kind="stable")
        count = min(_COUNT, max(len(order) // 2, 1))  # in a small bag no tile is both
        of = f"{slide.stain} · " if len(lookups) > 1 else ""
        words = partial(distance_words, distances)
        strangest, nearest = order[::-1][:count], order[:count]
        strips.append(Strip(f"{of}strangest", lookup, strangest.tolist(), words))
        strips.append(Strip(f"{of}most like what the model learnt from", lookup, nearest.tolist(), words))
    return strips


def distance_words(distances: NDArray[np.floating], tile: int) -> str:
    """Say how far a tile is from what the model learnt from.

    Parameters
    ----------
    distances : (N,) float
        Of all tiles, in units of the limit; see `napari_her2.inference.doubt.SlideFamiliarity`.
    tile : int

    Examples
    --------
    >>> distance_words(np.array([0.5, 2.04]), 1)
    '2.0 times the distance that 99 % of the tiles of slides it was checked on stay below'
    """
    times = float(distances[tile])
    many = f"{times:.{1 if times < 10 else 0}f}"
    return f"{many} times the distance that 99 % of the tiles of slides it was checked on stay below"
