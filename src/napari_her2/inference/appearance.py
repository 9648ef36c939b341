"""What the pixels of a slide look like, independent of any model: colour, sharpness and texture.

A model may be blind to what it never needed: one that learnt from a single scanner need not notice blur. So
beside its own features, familiarity also compares these numbers of small squares of tissue, read at one
µm/px whatever the model takes:

- colour: optical densities against white (Beer and Lambert) of what is stained, how they spread, and the
  directions in which they lie, in which Macenko et al. (2009, doi:10.1109/ISBI.2009.5193250) find stains:
  these tell stains, scanners and inverted pictures apart;
- sharpness and texture: the energy of each octave of a Laplacian pyramid (Burt and Adelson 1983,
  doi:10.1109/TCOM.1983.1095851) of the total density and of its colour, against the contrast of the square,
  and how few pixels hold it: blur takes it from the fine octaves, and a wrong µm/px shifts all of them.

Bare glass takes no part in the colours, and in the textures only as far as tissue ends there.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from napari_her2.slide.ink import brightest
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tiles import RegionBatch
    from napari_her2.slide.tissue import TissueMask

VERSION = 1
"""Rises with every change of the numbers: what was learnt with another one cannot be compared."""
MPP = 0.5
SIDE_PX = 192
TILES = 64
"""Squares of 96 µm that describe a slide, at most."""
SEED = 0
STAINED = 0.06
"""Mean optical density of the channels from which a pixel counts as stained; tinted glass is below."""
LEAST_STAINED = 0.1
"""Share of a square that has to be stained for it to be described."""
BLACK = 20
"""Below this in every channel nothing was scanned."""
MOST_BLACK = 0.5
OCTAVES = 6
_STAGE = "Looking at colours and sharpness"
_MOST_CELLS = 1024
_TINY = 1e-4
_EVERY = 3
"""Colours need fewer pixels than textures."""


def appearance_of(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describe what squares of tissue look like.

    Parameters
    ----------
    tiles : (M, h, w, 3) uint8
        RGB at `MPP`; see `describable` for those that should be left out.

    Returns
    -------
    (M, A) float32
        Finite; of a square without any stain too, though it means little.
    """
    return np.stack([_described(tile) for tile in tiles]) if len(tiles) else np.empty((0, LENGTH), np.float32)


def describable(tiles: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the squares that show tissue: neither blank nor black.

    Parameters
    ----------
    tiles : (M, h, w, 3) uint8

    Returns
    -------
    (M,) bool
    """
    found = np.zeros(len(tiles), np.bool_)
    for number, tile in enumerate(tiles):
        stained = _density(tile).mean(axis=2) > STAINED
        black = float((brightest(tile) < BLACK).mean())
        found[number] = stained.mean() >= LEAST_STAINED and black <= MOST_BLACK
    return found


def appearance_steps(
    slide: Slide,
    tissue: TissueMask,
    *,
    grid: TileGrid | None = None,
    keep: NDArray[np.bool_] | None = None,
    seed: int = SEED,
) -> Generator[Progress, None, NDArray[np.float32] | None]:
    """Describe what the scored tissue of a slide looks like, by squares drawn from it.

    Parameters
    ----------
    slide : Slide
        One coarser than `MPP` is enlarged, which makes it look unlike any that was not.
    tissue : TissueMask
        What is scored.
    grid : TileGrid, optional
    keep : (rows, columns) bool, optional
        Tiles of that grid which are scored, where it is not all tissue.
    seed : int
        The same slide and seed give the same squares.

    Yields
    ------
    Progress

    Returns
    -------
    (M, A) float32 or None
        At most `TILES`; None where the slide states no µm/px, or no square shows tissue.
    """
    if slide.mpp is None:
        return None
    places = _drawn(slide, tissue, grid, keep, seed)
    found: list[NDArray[np.float32]] = []
    done = 0
    yield Progress(_STAGE, 0, len(places), "squares")
    batches = cast("Generator[RegionBatch]", slide.squares(places, tile_px=SIDE_PX, mpp=MPP, batch_size=16))
    with closing(batches):
        for batch in batches:
            found.append(appearance_of(batch.images[describable(batch.images)]))
            done += len(batch.number) + len(batch.corrupt)
            yield Progress(_STAGE, done, len(places), "squares")
    described = np.concatenate([np.empty((0, LENGTH), np.float32), *found])
    return described if len(described) else None


def _drawn(
    slide: Slide,
    tissue: TissueMask,
    grid: TileGrid | None,
    keep: NDArray[np.bool_] | None,
    seed: int,
) -> NDArray[np.float64]:
    """(M, 2) rows and columns, in sides of a square, of squares of tissue on a lattice of half a side."""
    mpp = slide.known_mpp
    side_px0 = np.array([SIDE_PX * MPP / mpp[0], SIDE_PX * MPP / mpp[1]])
    room = np.maximum(np.array(slide.shape) / side_px0 - 1, 0)  # in sides
    # A square that hangs over the edge is moved inside; a slide smaller than a square is one square.
    step = max(0.5, float(room.max()) / _MOST_CELLS)
    rows, cols = (np.unique(np.minimum(np.arange(np.ceil(far / step) + 1) * step, far)) for far in room)
    places = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    share = _shares(tissue, places * side_px0, side_px0)
    if grid is not None and keep is not None:
        index = grid.index_of_px0((places + 0.5) * side_px0)
        inside = grid.contains(index)
        inside[inside] = keep[tuple(index[inside].T)]
        share = np.where(inside, share, 0)
    good = np.flatnonzero((share > 0) & (share >= min(0.5, share.max() / 2)))
    chosen = np.random.default_rng(seed).permutation(good)[:TILES]
    return np.asarray(places[np.sort(chosen)], np.float64)


def _shares(
    tissue: TissueMask, corners_px0: NDArray[np.float64], side_px0: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of tissue in squares, (M,): differences of the integral image at the nearest pixels."""
    total = cv2.integral(tissue.mask.astype(np.uint8)).astype(np.float64)
    limits = np.array(tissue.mask.shape)
    low = np.clip(np.rint(corners_px0 / tissue.downsample), 0, limits - 1).astype(np.int64)
    high = np.rint((corners_px0 + side_px0) / tissue.downsample).astype(np.int64)
    high = np.clip(high, low + 1, limits)
    (y0, x0), (y1, x1) = low.T, high.T
    area = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
    return np.asarray(area / ((y1 - y0) * (x1 - x0)), np.float64)


_LOGS = -np.log10(np.maximum(np.arange(256.0), 1) / 255).astype(np.float32)
_LOGS = np.ascontiguousarray(np.repeat(_LOGS[None, :, None], 3, axis=2))


def _density(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Optical density of each channel against pure white, (h, w, 3)."""
    return np.asarray(cv2.LUT(rgb, _LOGS), np.float32)


def _described(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    density = _density(rgb)
    total = density.mean(axis=2)
    stained = total > STAINED
    if stained.sum() < 16:
        stained = np.ones_like(stained)
    numbers = [*_colours(density[stained][::_EVERY], float(stained.mean()))]
    red_blue = density[..., 0] - density[..., 2]
    green = density[..., 1] - total
    for plane in (total, red_blue, green):
        numbers.extend(_texture(plane, stained))
    return np.array(numbers, np.float32)


def _colours(density: NDArray[np.float32], stained: float) -> list[float]:
    """Numbers of colour from the (N, 3) densities of stained pixels."""
    total = density.mean(axis=1)
    dark = density[total >= np.median(total)]
    shares = dark / np.maximum(dark.sum(axis=1, keepdims=True), _TINY)
    red_blue, green = shares[:, 0] - shares[:, 2], shares[:, 1]
    spread = np.linalg.eigvalsh(np.cov(density.T) + 1e-6 * np.eye(3))[::-1]
    return [
        np.sqrt(1 - stained),
        *np.log(np.maximum(density.mean(axis=0), _TINY)),
        *np.log(np.maximum(np.quantile(total, (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)), _TINY)),
        *np.quantile(red_blue, (0.05, 0.25, 0.5, 0.75, 0.95)),
        *np.quantile(green, (0.05, 0.25, 0.5, 0.75, 0.95)),
        *(0.5 * np.log(spread)),
    ]


def _texture(plane: NDArray[np.float32], stained: NDArray[np.bool_]) -> list[float]:
    """Energies of the octaves of a plane against its contrast, and how unevenly they lie."""
    weight = stained.astype(np.float32)
    contrast = float(plane[stained].std()) + _TINY
    numbers = []
    for _ in range(OCTAVES):
        coarser = cv2.pyrDown(plane)
        band = plane - cv2.pyrUp(coarser, dstsize=plane.shape[::-1])
        share, squares = weight / max(float(weight.sum()), _TINY), band * band
        second, third, fourth = (
            float(np.vdot(share, each)) for each in (squares, squares * band, squares**2)
        )
        sd = np.sqrt(second) + _TINY
        numbers += [np.log(sd / contrast), np.log(fourth / sd**4 + 1), np.arcsinh(third / sd**3)]
        plane, weight = coarser, cv2.pyrDown(weight)
    return numbers


LENGTH = 23 + 3 * 3 * OCTAVES
"""Numbers of a square."""
