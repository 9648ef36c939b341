"""Cells made by hand, plausible and in any number, for tests of what judges, shows and writes them."""

from __future__ import annotations

import numpy as np

from napari_her2.cells.reading import CellReading
from napari_her2.cells.rules import Rules
from napari_her2.cells.table import SECTORS, Cells, ray_directions

SPACING_UM = 12.0  # of the lattice: cells of about 5.5 µm hardly touch

# Of each class: least and most share of stained sectors, least and most mean membrane mass, OD·µm.
_LOOKS = ((0.0, 0.3, 0.01, 0.15), (0.35, 0.58, 0.2, 0.37), (0.6, 0.9, 0.4, 0.7), (0.66, 1.0, 0.74, 1.3))


def cells_by_hand(
    n: int,
    seed: int = 0,
    *,
    shares: tuple[float, float, float, float] = (0.3, 0.3, 0.25, 0.15),
    origin_um: tuple[float, float] = (10.0, 10.0),
    columns: int = 0,
) -> tuple[Cells, np.ndarray]:
    """Cells on a jittered lattice, in raster order, and the class that each was made as.

    Parameters
    ----------
    n, seed : int
    shares : tuple of 4 float
        Of cells made as 0, 1+, 2+ and 3+ (by the rules of the specification and a gain of 1); of each class
        as many as the shares say, to one cell.
    origin_um : tuple of float
        (y, x) of the upper left corner of the lattice, whose spacing is `SPACING_UM`.
    columns : int
        Of the lattice; 0 for a square one.

    Returns
    -------
    Cells, (n,) uint8
    """
    rng = np.random.default_rng(seed)
    columns = columns or int(np.ceil(np.sqrt(max(n, 1))))
    lattice = np.stack(np.divmod(np.arange(n), columns), axis=1) + 0.5
    centre = np.asarray(origin_um) + SPACING_UM * (lattice + rng.uniform(-0.15, 0.15, (n, 2)))
    made_as = np.searchsorted(np.cumsum(shares), (np.arange(n) + 0.5) / max(n, 1) * sum(shares))
    made_as = rng.permutation(np.minimum(made_as, 3)).astype(np.uint8)
    looks = np.asarray(_LOOKS)[made_as]

    share = rng.uniform(looks[:, 0], looks[:, 1])
    count = np.clip(np.rint(share * SECTORS), np.ceil(looks[:, 0] * SECTORS), np.floor(looks[:, 1] * SECTORS))
    start = rng.integers(SECTORS, size=n)
    stained = (np.arange(SECTORS) - start[:, None]) % SECTORS < count[:, None]  # one arc
    noise = rng.uniform(0.7, 1.3, (n, SECTORS)) * np.where(stained, 1.0, 0.15)
    mean = rng.uniform(looks[:, 2], looks[:, 3])
    mass = noise * (mean / np.maximum(noise.mean(axis=1), 1e-6))[:, None]
    contrast = np.where(stained, 0.12 + 0.5 * mass, 0.09 * rng.random((n, SECTORS)))

    angle = 2 * np.pi * np.arange(SECTORS) / SECTORS
    waves = sum(
        rng.uniform(0, 0.4, (n, 1)) * np.cos(of * angle + rng.uniform(0, 2 * np.pi, (n, 1))) for of in (2, 3)
    )
    border = (rng.uniform(4.6, 5.6, (n, 1)) + waves).astype(np.float16)
    blue = made_as < 3
    cells = Cells(
        centre_um=centre.astype(np.float32),
        border_um=border,
        contrast=contrast.astype(np.float16),
        dab=(contrast + 0.1 * rng.random((n, SECTORS))).astype(np.float16),
        mass=mass.astype(np.float16),
        area_um2=areas_um2(border),
        cytoplasm_dab=(0.05 + 0.1 * mean).astype(np.float32),
        nucleus_h=np.where(blue, rng.uniform(0.2, 0.6, n), 0.03).astype(np.float32),
        nucleus_um2=np.where(blue, rng.uniform(18, 40, n), 0).astype(np.float32),
        nucleus_ratio=np.where(blue, rng.uniform(1, 2, n), 1).astype(np.float32),
    )
    order = np.lexsort((cells.centre_um[:, 1], cells.centre_um[:, 0]))
    return cells.pick(order), made_as[order]


def areas_um2(border_um: np.ndarray) -> np.ndarray:
    """Areas of the polygons that borders make, (N,) float32, by the shoelace formula."""
    y, x = np.moveaxis(border_um.astype(np.float32)[..., None] * ray_directions(), -1, 0)
    next_y, next_x = np.roll(y, -1, axis=1), np.roll(x, -1, axis=1)
    return np.asarray((x * next_y - next_x * y).sum(axis=1) / 2, np.float32)


def reading_by_hand(
    n: int,
    seed: int = 0,
    *,
    regions: tuple[str, ...] = ("tumour",),
    left_out: float = 0.05,
    outside: float = 0.0,
    rules: Rules | None = None,
    calibration: str = "",
    reasons: tuple[str, ...] = (),
    **made: object,
) -> CellReading:
    """A reading of `cells_by_hand`.

    Parameters
    ----------
    n, seed : int
    regions : tuple of str
        Names of the tumour regions, which share the cells from the top to the bottom; () for none drawn.
    left_out, outside : float
        Shares of all cells: left out as lymphocytes or stroma, and outside of all regions.
    rules : Rules
    calibration : str
    reasons : tuple of str
    **made
        For `cells_by_hand`.
    """
    cells, _ = cells_by_hand(n, seed, **made)
    rng = np.random.default_rng(seed + 1)
    region = (np.arange(n) * max(len(regions), 1) // max(n, 1)).astype(np.int16)
    region[rng.random(n) < outside] = -1
    return CellReading(
        cells,
        region,
        regions,
        rng.random(n) < left_out,
        rules or Rules(),
        calibration,
        reasons,
    )
