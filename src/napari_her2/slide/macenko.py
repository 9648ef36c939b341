"""Macenko stain normalisation: fitted in NumPy once a slide, applied as one fixed affine map.

Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009,
https://doi.org/10.1109/ISBI.2009.5193250. Stained pixels lie, in optical density, close to a plane; the
extreme directions in it are the two stains, and a high percentile of their concentrations is how strongly
the slide was stained. Normalising replaces both by those of a reference. All of it is linear in optical
density, so a slide's normalisation is one 3 x 3 matrix and an offset on logarithms of grey values
(`StainTransform`), whatever the number of its tiles: the device applies it, and no tile is fitted by itself.

A fit never fails. Where there is nothing to fit, `MacenkoFit.fallback` says so and pixels stay as they are.

Immunohistochemistry is left as it is (`ihc_transform`): the strength of DAB is the very thing that is scored,
so it is never rescaled, and the H&E reference does not describe its colours.

Differences from the paper
--------------------------
- Natural logarithms, as in the public implementations. The threshold of 0.15 on optical density therefore
  means 0.065 in the paper's base of ten, and keeps fainter pixels.
- Light without tissue is 240, and 1 is added to a grey value before its logarithm and taken off again at the
  end, so that black stays finite and an image normalised onto itself keeps its grey values. Public
  implementations leave the 1 in and cut decimals off: their results are up to one grey level brighter.
- The plane is that of the covariance of optical densities (their mean taken off), as in the public
  implementations; the paper decomposes them as they are.
- What lies outside the plane of the two stains (pigment, tinted glass) is dropped, as in the public
  implementations. An image normalised onto its own fit therefore keeps its grey values as far as two dyes
  explain them: within 2 where they do; real H&E moves by 2 to 8 in the median, by 20 on tinted glass.
- One fit a slide or a collection instead of one a tile: a tile without nuclei has no haematoxylin to fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_her2.slide.ink import brightest, darkest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_her2.slide.whole_slide import Slide

Fallback = Literal["no stain", "one stain", "no stain colours", "too faint"]
Vector = tuple[float, float, float]

IO = 240.0
"""Grey value of light that met no tissue."""
ALPHA = 1.0
"""Percentile of the angle in the plane that counts as the extreme direction, and 100 minus it the other."""
BETA = 0.15
"""Optical density (natural logarithm) that every channel of a stained pixel reaches."""
STRONG = 99.0
"""Percentile of the concentrations that counts as the strongest."""
LEAST_PIXELS = 50
LEAST_ANGLE = 5.0
"""Degrees between two stains: real ones lie 17 to 40 apart, and the error of unmixing grows as 1 / sin."""
MOST_NEGATIVE = -0.15
"""No dye adds light: components of a stain below this come from something other than stain."""
LEAST_CONCENTRATION = 0.1
"""Weaker than this, raising it to the reference would mostly raise the noise of the camera."""
PIXELS_AN_IMAGE = 8192


@dataclass(frozen=True, slots=True)
class MacenkoFit:
    """Two stains and how strong they are.

    Parameters
    ----------
    stains : tuple of two (r, g, b)
        Optical density of each stain, of unit length; first the one that absorbs more red: haematoxylin.
    max_concentrations : tuple of float
        99th percentile of the concentration of each.
    io : float
        Grey value of light that met no tissue.
    fallback : str or None
        Why there was nothing to fit; stains and concentrations are then those of `HE_REFERENCE`, and no
        transform made from the fit changes a pixel. "no stain": too few stained pixels (white, unstained);
        "one stain": a single colour or a single stain; "no stain colours": directions that no dye has
        (noise, fluorescence); "too faint": a stain far weaker than the reference could be compared with.
    """

    stains: tuple[Vector, Vector]
    max_concentrations: tuple[float, float]
    io: float = IO
    fallback: Fallback | None = None

    def __post_init__(self) -> None:
        numbers = np.array([*self.stains[0], *self.stains[1], *self.max_concentrations, self.io])
        if not np.isfinite(numbers).all() or min(self.max_concentrations) <= 0 or not 0 < self.io <= 256:
            raise ValueError(f"these are no stains: {self.stains}, {self.max_concentrations}, {self.io}")


HE_REFERENCE = MacenkoFit(((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)), (1.9705, 1.0308))
"""H&E to which public implementations of the method normalise by default, for `IO`, `ALPHA` and `BETA`."""


@dataclass(frozen=True, slots=True, eq=False)
class StainTransform:
    """An affine map of log grey values: ``log(out + 1) = matrix @ log(in + 1) + offset``.

    Parameters
    ----------
    matrix : (3, 3) float64
    offset : (3,) float64
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def is_identity(self) -> bool:
        """Whether pixels stay as they are."""
        return bool(np.array_equal(self.matrix, np.eye(3)) and not self.offset.any())

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Normalise an image for display or storage; batches for a network go through the device instead.

        Parameters
        ----------
        rgb : (..., 3) uint8

        Returns
        -------
        (..., 3) uint8
            Rounded, clipped to what bytes hold.
        """
        if self.is_identity:
            return rgb.copy()
        density = _LOGARITHMS[rgb] @ self.matrix.T + self.offset
        # Beyond these limits the result is clipped anyway, and the exponential would overflow.
        light = np.exp(np.clip(density, 0, np.log(256))) - 1
        normalised: NDArray[np.uint8] = np.rint(light).astype(np.uint8)
        return normalised


IDENTITY = StainTransform(np.eye(3), np.zeros(3))
_LOGARITHMS = np.log1p(np.arange(256, dtype=np.float64))


def he_transform(fit: MacenkoFit, reference: MacenkoFit = HE_REFERENCE) -> StainTransform:
    """Bring H&E to the colours and the strength of a reference.

    Parameters
    ----------
    fit : MacenkoFit
        Of the slide, or of all images of one source together.
    reference : MacenkoFit

    Returns
    -------
    StainTransform
        `IDENTITY` where either has a fallback.
    """
    gain = np.array(reference.max_concentrations) / np.array(fit.max_concentrations)
    return _onto(fit, reference, gain)


def ihc_transform(source: MacenkoFit | None = None, reference: MacenkoFit | None = None) -> StainTransform:
    """Leave IHC as it is or, between two laboratories, turn its colours without touching its strength.

    Parameters
    ----------
    source : MacenkoFit, optional
        Of all IHC slides of a laboratory or a scanner together. Never of a single slide: where a slide is
        negative, its second stain is not DAB, and turning it into DAB would make a positive slide of it.
    reference : MacenkoFit, optional
        Of IHC training images.

    Returns
    -------
    StainTransform
        `IDENTITY` unless both are given and neither has a fallback. Concentrations are kept.
    """
    if source is None or reference is None:
        return IDENTITY
    return _onto(source, reference, np.ones(2))


def _onto(fit: MacenkoFit, reference: MacenkoFit, gain: NDArray[np.float64]) -> StainTransform:
    if fit.fallback is not None or reference.fallback is not None:
        return IDENTITY
    matrix = np.array(reference.stains).T @ (gain[:, None] * np.linalg.pinv(np.array(fit.stains).T))
    # log(out) = log(io') - matrix @ (log(io) - log(in)): what does not depend on the pixel is the offset.
    offset = np.log(reference.io) - matrix @ np.full(3, np.log(fit.io))
    return StainTransform(matrix, offset)


def fit_macenko(
    pixels: NDArray[np.uint8], *, io: float = IO, alpha: float = ALPHA, beta: float = BETA
) -> MacenkoFit:
    """Fit two stains to pixels: an image, a collection of images, a sample of a slide.

    Parameters
    ----------
    pixels : (..., 3) uint8
    io : float
        Grey value of light that met no tissue; public implementations use 240, some 255.
    alpha : float
        Percentile of the angles taken as extreme.
    beta : float
        Least optical density, natural logarithm, of a stained pixel in every channel.

    Returns
    -------
    MacenkoFit
        Finite for all pixels whatever; see `MacenkoFit.fallback`.
    """
    pixels = pixels.reshape(-1, 3)
    density_of = np.log(io) - _LOGARITHMS
    stained = density_of[pixels[density_of[brightest(pixels)] >= beta]]
    if len(stained) < LEAST_PIXELS:
        return _nothing_to_fit(io, "no stain")
    stains = _extreme_directions(stained, alpha)
    if np.degrees(np.arccos(np.clip(stains[:, 0] @ stains[:, 1], -1, 1))) < LEAST_ANGLE:
        return _nothing_to_fit(io, "one stain")
    if stains.min() < MOST_NEGATIVE:
        return _nothing_to_fit(io, "no stain colours")
    # Over all pixels, glass too, as published: whoever wants it otherwise leaves the glass out.
    concentrations = density_of[pixels] @ np.linalg.pinv(stains).T
    strongest = np.percentile(concentrations, STRONG, axis=0)
    if strongest.min() < LEAST_CONCENTRATION:
        return _nothing_to_fit(io, "too faint")
    first, second = stains.T.tolist()
    return MacenkoFit((tuple(first), tuple(second)), (float(strongest[0]), float(strongest[1])), io)


def _nothing_to_fit(io: float, why: Fallback) -> MacenkoFit:
    return MacenkoFit(HE_REFERENCE.stains, HE_REFERENCE.max_concentrations, io, why)


def _extreme_directions(stained: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """(3, 2): unit vectors at the extreme angles of the plane of the stained pixels, (N, 3)."""
    _, axes = np.linalg.eigh(np.cov(stained, rowvar=False))
    main, second = axes[:, 2], axes[:, 1]
    if (stained @ main).mean() < 0:
        main = -main  # else angles would wrap from pi to -pi in the middle of the pixels
    angles = np.arctan2(stained @ second, stained @ main)
    extremes = np.percentile(angles, [alpha, 100 - alpha])
    stains = np.outer(main, np.cos(extremes)) + np.outer(second, np.sin(extremes))
    return stains if stains[0, 0] > stains[0, 1] else stains[:, ::-1]


def sample_pixels(
    images: Iterable[NDArray[np.uint8]], *, io: float = IO, beta: float = BETA
) -> NDArray[np.uint8]:
    """Draw pixels evenly from many images, without the glass, for one fit of all of them.

    Parameters
    ----------
    images : iterable of (h, w, 3) uint8
    io, beta : float
        Glass is what stays below optical density `beta` in every channel.

    Returns
    -------
    (N, 3) uint8
        At most 8,192 an image, always the same ones.
    """
    thin = np.log(io) - _LOGARITHMS < beta
    drawn = [np.zeros((0, 3), np.uint8)]
    for image in images:
        pixels = image.reshape(-1, 3)
        if len(pixels) > PIXELS_AN_IMAGE:
            pixels = pixels[np.linspace(0, len(pixels) - 1, PIXELS_AN_IMAGE).astype(np.int64)]
        drawn.append(pixels[~thin[darkest(pixels)]])
    return np.concatenate(drawn)


def fit_slide(
    slide: Slide,
    *,
    mpp: float,
    tile_px: int = 256,
    tiles: int = 32,
    io: float = IO,
    alpha: float = ALPHA,
    beta: float = BETA,
) -> MacenkoFit:
    """Fit a slide once, from tiles spread over its tissue.

    Not from its thumbnail: averaging mixes nuclei with what surrounds them, so both stains come out
    weaker and closer to each other than in the tiles that are to be normalised.

    Parameters
    ----------
    slide : Slide
    mpp : float
        µm/px of the tiles that will be normalised.
    tile_px, tiles : int
        Side of the tiles to sample, and how many at most.
    io, alpha, beta : float
        See `fit_macenko`.

    Returns
    -------
    MacenkoFit
        With the fallback "no stain" where the slide shows no tissue or all of it is damaged.

    Raises
    ------
    SlideError
        The slide states no µm/px.
    """
    grid = slide.tile_grid(tile_px, mpp)
    tissue = slide.tissue()
    keep = tissue.keep(grid, 0.5)
    if not keep.any():
        keep = tissue.keep(grid, 0.0)
    candidates = np.flatnonzero(keep)
    chosen = np.zeros(keep.size, np.bool_)
    if len(candidates):
        spread = np.linspace(0, len(candidates) - 1, min(tiles, len(candidates)))
        chosen[candidates[np.rint(spread).astype(np.int64)]] = True
    batches = slide.tiles(tile_px=tile_px, mpp=mpp, keep=chosen.reshape(keep.shape))
    images = (image for batch in batches for image in batch.images)
    return fit_macenko(sample_pixels(images, io=io, beta=beta), io=io, alpha=alpha, beta=beta)
