"""What a model has seen: where the tiles of its training slides lie, and how far from them others are.

A space describes tiles by numbers: the features that the model itself takes, or what the pixels look like
(`napari_her2.inference.appearance`). The covariance of the training tiles is kept as its first principal
directions and one variance for all the rest, which shrinks it (Tipping and Bishop 1999, probabilistic PCA,
doi:10.1111/1467-9868.00196); in the whitened directions the distance is that to the nearest of some hundred
representative training tiles, so that tissue of several kinds is no single cloud (as in Roth et al. 2022,
PatchCore, arXiv:2106.08265). It is measured in units of how far apart the training slides themselves lie
there (local density, as in Breunig et al. 2000, doi:10.1145/342009.335388): strong stains vary more than
faint ones, and would else set the limits for both.

Blur, or another scale, moves each tile less than tiles differ among themselves, but all of them the same way.
So a slide is compared as a whole too: the mean of its tiles with the means of the training slides, by a
Mahalanobis distance with the covariance between slides, shrunk (Ledoit and Wolf 2004,
doi:10.1016/S0047-259X(03)00096-4).

A slide is as unlike as it is as a whole, or as the median of its tiles is, and unlike in part by the upper
tenth of them. All are judged by the validation slides, which the model has not learnt from, with as many
tiles: familiarity is the share of slides like those that would look at least as strange, by a t distribution
of the logarithms with as many degrees of freedom as there are validation slides less one. Few slides give
wide limits, and so do few tiles.

No PyTorch: a familiarity is arrays and their arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_her2.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Verdict = Literal["familiar", "in part", "unlike", "not known"]
FAMILIAR: Verdict = "familiar"
IN_PART: Verdict = "in part"
UNLIKE: Verdict = "unlike"
NOT_KNOWN: Verdict = "not known"
"""As `result.json` has them. "not known" is said of models that keep nothing of what they saw."""
FEATURES, APPEARANCE = "features", "appearance"
"""Kinds of spaces."""
QUANTILES = (0.5, 0.9)
"""Of the distances of the tiles of a slide: the first makes it unlike, the second unlike in part."""
LEAST_FAMILIARITY = 0.01
"""Below it an answer is withheld, unless the user says otherwise."""
LEAST_SLIDES = 3
"""With fewer validation slides a space has no limits: nothing is said."""
TILE_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""With how many of their tiles validation slides are measured, for slides that have no more."""
NEIGHBOURS = 3
"""Training slides that a slide is compared with, the nearest ones."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideSpace:
    """Where the training slides lie as wholes.

    Parameters
    ----------
    turn : (k, k) float32
        Turns whitened tiles so that the means of the training slides have a covariance of one.
    places : (L, k) float32
        Those means, turned; at least one.
    known : (S, len(TILE_COUNTS), 1 + len(QUANTILES)) float32
        Of each validation slide, by as many of its tiles: its distance, and `QUANTILES` of those of the
        tiles.
    """

    turn: NDArray[np.float32]
    places: NDArray[np.float32]
    known: NDArray[np.float32]

    def distance(self, mean: NDArray[np.floating]) -> float:
        """Measure how far a slide is from the training slides nearest to it.

        Parameters
        ----------
        mean : (k,) float
            Of its tiles, whitened.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            away = self.places - mean @ self.turn
            nearest = np.sort(np.sqrt((away**2).sum(axis=1)))[:NEIGHBOURS]
        return float(_bounded(nearest).mean())


@dataclass(frozen=True, slots=True, eq=False)
class PlacedTiles:
    """Where tiles lie in a space: all that judging a slide, or a choice of its tiles, needs of them.

    Parameters
    ----------
    distances : (N,) float32
        From what the model learnt from, in units of the limit of tiles.
    white : (N, k) float32
        By the principal directions, in standard deviations.
    """

    distances: NDArray[np.float32]
    white: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.distances)

    def pick(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> PlacedTiles:
        """Return some of them, (n,) numbers or (N,) marks."""
        return PlacedTiles(self.distances[rows], self.white[rows])


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSpace:
    """One way to describe tiles, and where those of the training slides lie.

    Parameters
    ----------
    mean : (D,) float32
    components : (k, D) float32
        Principal directions of the training tiles, orthonormal rows.
    scale : (k,) float32
        Standard deviation along each, above 0.
    rest : float
        Root mean square length of what lies outside of these directions, above 0.
    references : (M, k) float32
        Representative training tiles, whitened; at least one.
    reach : (M,) float32
        How far from each of them the nearest tiles of other training slides lie, above 0.
    tile_limit : float
        Distance that 99 % of the tiles of validation slides stay below, above 0.
    slides : (S, 2) float32
        `QUANTILES` of the distances of the tiles of each validation slide.
    whole : SlideSpace or None
        None where slides are compared by their tiles alone.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    scale: NDArray[np.float32]
    rest: float
    references: NDArray[np.float32]
    reach: NDArray[np.float32]
    tile_limit: float
    slides: NDArray[np.float32]
    whole: SlideSpace | None = None

    def distances(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Measure how far tiles are from what the model learnt from.

        Parameters
        ----------
        features : (N, D) float

        Returns
        -------
        (N,) float32
            In units of ``tile_limit``: beyond 1 a tile is unfamiliar.

        Raises
        ------
        ModelError
            If the features are not those of this space.
        """
        return self.placed(features).distances

    def placed(self, features: NDArray[np.floating]) -> PlacedTiles:
        """Say where tiles lie; see `distances`."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ModelError(
                f"The familiarity of the model describes a tile by {len(self.mean)} values, the slide has "
                f"features of shape {features.shape}: get the model again."
            )
        found = np.empty(len(features), np.float32)
        white = np.empty((len(features), len(self.scale)), np.float32)
        for first in range(0, len(features), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            found[part], white[part] = self._placed(features[part])
        return PlacedTiles(found, white)

    def _placed(self, features: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with np.errstate(over="ignore", invalid="ignore"):
            centred = features.astype(np.float32) - self.mean
            inside = centred @ self.components.T
            # The difference of two squares would be mostly their rounding.
            outside = ((centred - inside @ self.components) ** 2).sum(axis=1) / np.float32(self.rest) ** 2
            white = inside / self.scale
            squares = (white**2).sum(axis=1)[:, None] + (self.references**2).sum(axis=1)[None]
            apart = np.maximum(squares - 2 * white @ self.references.T, 0) + outside[:, None]
            found = np.sqrt((apart / self.reach**2).min(axis=1)) / np.float32(self.tile_limit)
        return np.asarray(_bounded(found), np.float32), np.asarray(white, np.float32)

    def whitened(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return tiles, or their mean, by the principal directions: (..., k), in standard deviations."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray((features - self.mean) @ self.components.T / self.scale, np.float32)

    def familiarity(
        self, distances: NDArray[np.floating], features: NDArray[np.floating] | None = None
    ) -> tuple[float, float]:
        """Say how many slides like those of validation would look at least as strange.

        Parameters
        ----------
        distances : (N,) float
            Of the tiles of a slide, at least one.
        features : (N, D) float, optional
            Of the same tiles; without them the slide is not compared as a whole.

        Returns
        -------
        whole, upper : float
            By the slide as a whole and the median of its tiles, and by their upper tenth; NaN where too few
            validation slides are known to say it.
        """
        own, known = self._measured(distances, self._mean(features))
        return self._familiarity(own, known)

    def times(
        self, distances: NDArray[np.floating], features: NDArray[np.floating] | None = None
    ) -> tuple[float, float]:
        """Say how many times as far off as a typical validation slide a slide is.

        Parameters
        ----------
        distances, features
            As of `familiarity`.

        Returns
        -------
        whole, upper : float
            By what ``familiarity`` goes by.
        """
        own, known = self._measured(distances, self._mean(features))
        return self._times(own, known)

    def judged(self, tiles: PlacedTiles) -> tuple[float, float, float, float]:
        """Judge a slide by its tiles: both of `familiarity`, then both of `times`.

        Parameters
        ----------
        tiles : PlacedTiles
            At least one.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            mean = tiles.white.mean(axis=0, dtype=np.float64)
        own, known = self._measured(tiles.distances, mean)
        return *self._familiarity(own, known), *self._times(own, known)

    def _mean(self, features: NDArray[np.floating] | None) -> NDArray[np.float32] | None:
        """Mean of tiles, whitened; a product of matrices, so that of whitened tiles is the same."""
        return None if features is None else self.whitened(features.mean(axis=0, dtype=np.float64))

    @staticmethod
    def _familiarity(own: NDArray[np.float64], known: NDArray[np.float32]) -> tuple[float, float]:
        if len(known) < LEAST_SLIDES:
            return float("nan"), float("nan")
        *whole, upper = (_share_beyond(value, known[:, at]) for at, value in enumerate(own))
        return min(1.0, len(whole) * min(whole)), upper  # looking twice does not make it strange (Bonferroni)

    @staticmethod
    def _times(own: NDArray[np.float64], known: NDArray[np.float32]) -> tuple[float, float]:
        *whole, upper = own / np.maximum(np.median(known, axis=0), _TINY) if len(known) else own
        if len(whole) > 1 and len(known) >= LEAST_SLIDES:
            shares = [_share_beyond(own[at], known[:, at]) for at in range(len(whole))]
            whole = [whole[int(np.argmin(shares))]]
        return float(whole[0]), float(upper)

    def _measured(
        self, distances: NDArray[np.floating], mean: NDArray[np.floating] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Numbers of a slide, the last by its upper tiles, and those of validation slides as large."""
        tiles = np.quantile(distances.astype(np.float64), QUANTILES)
        if self.whole is None or mean is None:
            return tiles, self.slides
        level = max(at for at, count in enumerate(TILE_COUNTS) if count <= len(distances))
        own = np.array([self.whole.distance(mean), *tiles])
        return own, self.whole.known[:, level]


@dataclass(frozen=True, slots=True, eq=False)
class Familiarity:
    """What a model keeps of what it has seen.

    Parameters
    ----------
    spaces : mapping of (str, str) to FeatureSpace
        By stain of the slides ("H&E", "IHC") and kind (`FEATURES`, `APPEARANCE`).
    """

    spaces: Mapping[tuple[str, str], FeatureSpace]

    def of(self, stain: str) -> dict[str, FeatureSpace]:
        """Return the spaces of the slides of a stain, by kind."""
        return {kind: space for (own, kind), space in self.spaces.items() if own == stain}


_AT_ONCE = 4096
_TINY = 1e-6
_FAR = 1e9


def _bounded(distances: NDArray[np.floating]) -> NDArray[np.floating]:
    """Put what is described by values that are not numbers as far off as anything."""
    return np.asarray(np.minimum(np.nan_to_num(distances, nan=_FAR), _FAR))


def _share_beyond(value: float, known: NDArray[np.floating]) -> float:
    """Share of further slides that would lie beyond a value, by a prediction interval of the logarithms."""
    from scipy.special import stdtr  # of which scipy.stats makes its t, after half a second of importing

    logs = np.log(np.maximum(known.astype(np.float64), _TINY))
    count = len(logs)
    spread = max(float(logs.std(ddof=1)), _TINY) * np.sqrt(1 + 1 / count)
    return float(stdtr(count - 1, -(np.log(max(value, _TINY)) - logs.mean()) / spread))
