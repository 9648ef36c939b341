"""Where a scored slide lies among what the model learnt from: its tiles described, and measured.

`napari_her2.inference.familiarity_verdict` says what follows from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.inference.appearance import VERSION, appearance_steps
from napari_her2.inference.doubt import Signature
from napari_her2.models.familiarity import APPEARANCE, FEATURES
from napari_her2.steps import finished

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.inference.job import ScoringJob
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.familiarity import Familiarity, PlacedTiles
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import TissueMask
    from napari_her2.steps import Progress

SIGNATURE_TILES = 256
"""Of which a slide's signature has features, at most."""
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What was scored of a slide.

    Parameters
    ----------
    slide : Slide
    stain : str
        What it was scored as.
    features : (N, D) float
        Of its tiles, or of the images that the model was shown, as the model takes or makes them.
    tissue : TissueMask
        What is scored.
    grid : TileGrid or None
    keep : (rows, columns) bool or None
        Tiles of it that were scored, where it was not all tissue.
    """

    slide: Slide
    stain: str
    features: NDArray[np.floating]
    tissue: TissueMask
    grid: TileGrid | None = None
    keep: NDArray[np.bool_] | None = None


def wants_features(job: ScoringJob) -> bool:
    """Whether a model of pixels has to give features beside its logits.

    Parameters
    ----------
    job : ScoringJob
    """
    known = job.bundle.familiarity
    kept = known is not None and any(kind == FEATURES for _, kind in known.spaces)
    return kept or job.signatures is not None


def placed_steps(job: ScoringJob, seen: Seen) -> Generator[Progress, None, dict[str, PlacedTiles]]:
    """Say where the tiles of a slide lie in the spaces of the model; note its signature where it is wanted.

    Parameters
    ----------
    job : ScoringJob
    seen : Seen

    Yields
    ------
    Progress
        While pixels are read, which is where the model compares them, or a signature is wanted.

    Returns
    -------
    dict of str to PlacedTiles
        By kind of space.
    """
    compared = describes_pixels(job.bundle, seen.stain)
    appearance = None
    if compared or job.signatures is not None:
        appearance = yield from appearance_steps(seen.slide, seen.tissue, grid=seen.grid, keep=seen.keep)
    if job.signatures is not None:
        job.signatures.append(
            Signature(seen.slide.name, seen.stain, drawn_features(seen.features), appearance)
        )
    pixels = appearance if compared else None
    return placed_in(job.bundle.familiarity, seen.stain, seen.features, pixels)


def placed_pixels(bundle: ModelBundle, seen: Seen) -> dict[str, PlacedTiles]:
    """Say where squares of a slide lie in the space of pixels: read now, from the tiles that are kept.

    Parameters
    ----------
    bundle : ModelBundle
        One that `describes_pixels`.
    seen : Seen
        Of which the features are not needed.
    """
    steps = appearance_steps(seen.slide, seen.tissue, grid=seen.grid, keep=seen.keep)
    return placed_in(bundle.familiarity, seen.stain, None, finished(steps))


def describes_pixels(bundle: ModelBundle, stain: str) -> bool:
    """Whether a model keeps what pixels look like, described as here and not by another version."""
    known, card = bundle.familiarity, bundle.card.familiarity
    kept = known is not None and APPEARANCE in known.of(stain)
    return kept and (card is None or card.appearance in (None, VERSION))


def drawn_features(
    features: NDArray[np.floating], count: int = SIGNATURE_TILES, seed: int = _SEED
) -> NDArray[np.float32]:
    """Draw features of tiles over a slide, in their order: the same ones for the same seed.

    Parameters
    ----------
    features : (N, D) float
    count : int
        At most so many.
    seed : int

    Returns
    -------
    (n, D) float32
    """
    if len(features) <= count:
        return features.astype(np.float32)
    chosen = np.random.default_rng(seed).choice(len(features), count, replace=False)
    return features[np.sort(chosen)].astype(np.float32)


def drawn_over(keep: NDArray[np.bool_], count: int = SIGNATURE_TILES, seed: int = _SEED) -> NDArray[np.bool_]:
    """Draw tiles over a slide: the same ones for the same seed.

    Parameters
    ----------
    keep : (rows, columns) bool
        Those that hold tissue.
    count : int
        At most so many.
    seed : int

    Returns
    -------
    (rows, columns) bool
    """
    places = np.flatnonzero(keep)
    if len(places) <= count:
        return keep
    drawn = np.zeros_like(keep)
    drawn.flat[np.random.default_rng(seed).choice(places, count, replace=False)] = True
    return drawn


def placed_in(
    familiarity: Familiarity | None,
    stain: str,
    features: NDArray[np.floating] | None,
    appearance: NDArray[np.floating] | None,
) -> dict[str, PlacedTiles]:
    """Say where tiles lie in the spaces of a model, by kind; what is not given is not there.

    Parameters
    ----------
    familiarity : Familiarity or None
        Of the model.
    stain : str
        What the slide was scored as.
    features : (N, D) float or None
        Of its tiles.
    appearance : (M, A) float or None
        Of squares drawn from it.

    Returns
    -------
    dict of str to PlacedTiles
        Empty where the model has no space of the stain, or nothing was described.
    """
    given = {FEATURES: features, APPEARANCE: appearance}
    kept = {} if familiarity is None else familiarity.of(stain)
    return {
        kind: space.placed(tiles)
        for kind, space in kept.items()
        if (tiles := given.get(kind)) is not None and len(tiles)
    }
