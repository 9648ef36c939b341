"""The fit of a space: where the tiles of training slides lie, and how far from them those of others are.

Each slide weighs as much as any other, however many tiles it has. Directions and representative tiles come
from the training slides alone; the limits come from the validation slides, measured with the arrays as a
bundle keeps them.

Representative tiles are chosen one by one, each the tile that lies farthest from those chosen before (greedy
k-centre: Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5; as the core set of Roth et al. 2022, PatchCore,
arXiv:2106.08265). Each of them has a reach: how far from it the nearest tiles of other training slides lie,
by the root mean square of the nearest few.

The covariance between slides as wholes is shrunk by scikit-learn's Ledoit-Wolf estimate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from sklearn.covariance import ledoit_wolf

from napari_her2.errors import JobFailed
from napari_her2.models.familiarity import LEAST_SLIDES, QUANTILES, TILE_COUNTS, FeatureSpace, SlideSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DIRECTIONS = 64
"""Principal directions kept, at most: fewer of long descriptions, so that a bundle stays small."""
REFERENCES = 512
NEIGHBOURS = 5
"""Tiles of other training slides that say how far apart slides lie around a representative tile."""
PLACES = 512
"""Training slides that others are compared with as wholes, at most."""
TILE_QUANTILE = 0.99
"""Share of the tiles of validation slides that are familiar."""
_VALUES = 2**24
"""Numbers that directions and representatives are worked out from, at most: 128 MB."""
_COMPONENTS = 2**17
"""Numbers of all directions, at most: 256 KB."""
_SHORTEST = 0.1
"""Share of the median reach below which none lies: copies of a tile would make all others strange."""
_PAIRS = 2**23
"""Distances held at once, at most: 64 MB."""
_FLAT = 1e-3
"""Share of the standard deviation of all below which one direction counts as constant."""


class LimitsMissing(JobFailed):
    """There are too few slides to say what is strange: the model keeps no such space."""


def fit_space(
    train: Sequence[NDArray[np.floating]], validation: Sequence[NDArray[np.floating]], *, seed: int
) -> FeatureSpace:
    """Learn where the tiles of slides lie.

    Parameters
    ----------
    train, validation : sequence of (N, D) float
        The tiles of each slide, described. Slides without tiles are left out.
    seed : int
        Of the tile that representatives begin with.

    Returns
    -------
    FeatureSpace
        As a bundle gives it back: rounded before the limits are measured.

    Raises
    ------
    LimitsMissing
        If there is no training slide, or fewer than `napari_her2.models.familiarity.LEAST_SLIDES` validation
        slides, or all tiles are the same.
    JobFailed
        If slides are described by different numbers of values, or by values that are not numbers.
    """
    learnt, unseen = _with_tiles(train, "training"), _with_tiles(validation, "validation")
    if not learnt or len(unseen) < LEAST_SLIDES:
        raise LimitsMissing(
            f"What is strange cannot be said from {len(learnt)} training and {len(unseen)} validation slides "
            f"with tiles: at least 1 and {LEAST_SLIDES} are needed."
        )
    lengths = {slide.shape[1] for slide in (*learnt, *unseen)}
    if len(lengths) > 1:
        raise JobFailed(
            f"Slides are described by {' and '.join(str(each) for each in sorted(lengths))} values a tile: "
            f"describe all of them by the same model."
        )
    tiles, weights, slide = _drawn(learnt, seed)
    space = _directions(tiles, weights)
    white = space.whitened(tiles)
    chosen = _representatives(white, seed)
    residual = tiles - space.mean - (white * space.scale) @ space.components
    reach = _reach(white, (residual**2).sum(axis=1) / space.rest**2, slide, chosen)
    space = _limited(replace(space, references=_rounded(white[chosen]), reach=reach), unseen)
    return replace(space, whole=_as_wholes(space, learnt, unseen, seed))


def _with_tiles(slides: Sequence[NDArray[np.floating]], what: str) -> list[NDArray[np.floating]]:
    found = [slide for slide in slides if len(slide)]
    for number, slide in enumerate(found, start=1):
        if slide.ndim != 2 or not np.isfinite(slide).all():
            raise JobFailed(
                f"The {what} slide number {number} is described by values that are not numbers: the model "
                f"gives no usable features, train it again."
            )
    return found


def _drawn(
    slides: Sequence[NDArray[np.floating]], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Tiles of all slides, of each at most its share, how much each weighs, and the number of its slide."""
    share = max(_VALUES // (slides[0].shape[1] * len(slides)), 1)
    rng = np.random.default_rng(seed)
    parts = [
        slide if len(slide) <= share else slide[np.sort(rng.choice(len(slide), share, replace=False))]
        for slide in slides
    ]
    weights = np.concatenate([np.full(len(part), 1 / len(part) / len(parts)) for part in parts])
    slide = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.concatenate(parts).astype(np.float64), weights, slide


def _directions(tiles: NDArray[np.float64], weights: NDArray[np.float64]) -> FeatureSpace:
    """Mean, principal directions and what lies outside of them; neither references nor limits yet."""
    mean = (weights @ tiles).astype(np.float32)
    rows = (tiles - mean) * np.sqrt(weights)[:, None]
    total = float((rows**2).sum())
    few = len(rows) < rows.shape[1]
    values, vectors = np.linalg.eigh(rows @ rows.T if few else rows.T @ rows)
    values, vectors = values[::-1], vectors[:, ::-1]
    if not values[0] > 0:
        raise LimitsMissing("What is strange cannot be learnt from tiles that are all the same.")
    most = max(min(DIRECTIONS, _COMPONENTS // rows.shape[1]), 1)
    kept = int((values[:most] > _FLAT**2 * total).sum())
    scale = np.sqrt(values[:kept])
    directions = rows.T @ vectors[:, :kept] / scale if few else vectors[:, :kept]
    # Whether a direction or its opposite comes out depends on the library.
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(kept)])
    components = _rounded(directions.T)
    outside = rows - rows @ components.T @ components
    return FeatureSpace(
        mean=mean,
        components=components,
        scale=scale.astype(np.float32),
        rest=_single(np.sqrt(max(float((outside**2).sum()), _FLAT**2 * total))),
        references=np.zeros((1, kept), np.float32),
        reach=np.ones(1, np.float32),
        tile_limit=1.0,
        slides=np.zeros((0, len(QUANTILES)), np.float32),
    )


def _representatives(tiles: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """Choose tiles that lie far from each other, and so near to all: their numbers."""
    at = int(np.random.default_rng(seed).integers(len(tiles)))
    chosen: list[int] = []
    nearest = np.full(len(tiles), np.inf)
    while len(chosen) < REFERENCES and nearest[at] > 0:
        chosen.append(at)
        nearest = np.minimum(nearest, ((tiles - tiles[at]) ** 2).sum(axis=1))
        at = int(nearest.argmax())
    return np.array(chosen, np.int64)


def _reach(
    white: NDArray[np.float32],
    outside: NDArray[np.floating],
    slide: NDArray[np.int64],
    chosen: NDArray[np.int64],
) -> NDArray[np.float32]:
    """How far from representative tiles those of other slides lie; of a single slide, its other tiles."""
    found = np.empty(len(chosen))
    lengths = (white.astype(np.float64) ** 2).sum(axis=1)
    at_once = max(_PAIRS // len(white), 1)
    for first in range(0, len(chosen), at_once):
        part = chosen[first : first + at_once]
        squares = lengths[part][:, None] + (lengths + outside)[None] - 2 * white[part] @ white.T
        if slide.max() > 0:
            squares[slide[part][:, None] == slide[None]] = np.inf
        else:
            squares[np.arange(len(part)), part] = np.inf
        near = np.sort(np.partition(squares, min(NEIGHBOURS, len(white)) - 1, axis=1)[:, :NEIGHBOURS])
        near = np.where(np.isfinite(near), np.maximum(near, 0), np.nan)
        found[first : first + at_once] = np.sqrt(np.nanmean(near, axis=1)) if len(white) > 1 else 1.0
    usual = float(np.median(found))
    return np.maximum(found, _SHORTEST * usual if usual > 0 else 1.0).astype(np.float32)


def _limited(space: FeatureSpace, validation: Sequence[NDArray[np.floating]]) -> FeatureSpace:
    """Take limits from slides that nothing was learnt from."""
    distances = [space.distances(slide) for slide in validation]
    weights = np.concatenate([np.full(len(each), 1 / len(each)) for each in distances])
    limit = _single(_quantile(np.concatenate(distances), weights, TILE_QUANTILE))
    if not limit > 0:
        raise LimitsMissing("What is strange cannot be said: the tiles of all validation slides are alike.")
    known = [np.quantile(each, QUANTILES) / limit for each in distances]
    return replace(space, tile_limit=limit, slides=np.array(known, np.float32))


def _as_wholes(
    space: FeatureSpace,
    train: Sequence[NDArray[np.floating]],
    validation: Sequence[NDArray[np.floating]],
    seed: int,
) -> SlideSpace:
    """Compare the means of slides, and measure those of validation with few of their tiles too."""
    means = np.stack([space.whitened(slide).mean(axis=0, dtype=np.float64) for slide in train])
    turn = _turn(means)
    rng = np.random.default_rng(seed)
    places = means @ turn
    if len(places) > PLACES:
        places = places[np.sort(rng.choice(len(places), PLACES, replace=False))]
    whole = SlideSpace(
        turn=turn,
        places=_rounded(places),
        known=np.zeros((len(validation), len(TILE_COUNTS), 1 + len(QUANTILES)), np.float32),
    )
    for number, slide in enumerate(validation):
        distances, white = space.distances(slide), space.whitened(slide)
        for level, count in enumerate(TILE_COUNTS):
            part = rng.permutation(len(slide))[:count]
            whole.known[number, level] = (
                whole.distance(white[part].mean(axis=0, dtype=np.float64)),
                *np.quantile(distances[part].astype(np.float64), QUANTILES),
            )
    return whole


def _turn(means: NDArray[np.float64]) -> NDArray[np.float32]:
    if len(means) < 2:
        return np.eye(means.shape[1], dtype=np.float32)
    values, vectors = np.linalg.eigh(ledoit_wolf(means)[0])
    # Means that are all the same do not tell how slides differ.
    return _rounded(vectors / np.sqrt(np.maximum(values, _FLAT**2)))


def _quantile(values: NDArray[np.floating], weights: NDArray[np.floating], share: float) -> float:
    """Smallest value that this share of the weight lies at or below."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order[min(np.searchsorted(reached, share * reached[-1]), len(order) - 1)]])


def _rounded(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Round to float16, in which a bundle keeps large arrays."""
    return values.astype(np.float16).astype(np.float32)


def _single(value: float) -> float:
    return float(np.float32(value))
