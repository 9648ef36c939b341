"""The cells of a slide: stains fitted once, windows read ahead, cells measured and kept, with progress."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.windows import (
    FOCUS_PX,
    PIECE_PX,
    PixelGrid,
    joined_cells,
    measure_piece,
    read_windows,
    windows_of,
)
from napari_her2.errors import NotComputed, SlideChanged
from napari_her2.inference.cache import shrink_cache
from napari_her2.inference.cell_samples import SlideFit, fit_slide
from napari_her2.inference.cell_store import CellKey, CellStore
from napari_her2.inference.prefetch import prefetched
from napari_her2.inference.unchanged import identified, unchanged
from napari_her2.slide.tiles import usable_threads
from napari_her2.steps import Progress
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from napari_her2.cells.areas import Area
    from napari_her2.cells.table import Cells
    from napari_her2.cells.windows import Piece, Window
    from napari_her2.slide.tissue import Preset, TissueMask
    from napari_her2.slide.whole_slide import Slide

STAGE = "Reading cells"
_MOST_WORKERS = 4
_SQUARES = PIECE_PX // FOCUS_PX


@dataclass(frozen=True, slots=True, eq=False)
class ReadCells:
    """The cells of an area of a slide, and what was met on the way.

    Parameters
    ----------
    cells : Cells
        Those whose centre lies in the area, in raster order.
    fit : SlideFit
        Light and stains that they were measured with.
    focus : (rows, columns) float32
        Blur of each square of `square_um` over the slide, µm; NaN where nothing was read, or has an edge.
    square_um : tuple of float
        (y, x) side of a square.
    damaged : (K, 2) int64
        (row, column) of the squares that damage of the file reaches into.
    measured, kept : int
        Pieces of the slide that were measured now, and those that came from the disk.
    seconds : dict of str to float
        Seconds of the processor, of each step.
    problem : str
        Why nothing is kept on disk, for a person; empty where it is.
    """

    cells: Cells
    fit: SlideFit
    focus: NDArray[np.float32]
    square_um: tuple[float, float]
    damaged: NDArray[np.int64]
    measured: int
    kept: int
    seconds: dict[str, float] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredPieces:
    """All that was measured of a slide, piece by piece, whatever area a piece was measured for.

    Parameters
    ----------
    grid : PixelGrid
    places : (P, 2) int64
        (row, column) of the pieces.
    every : ReadCells
        Their cells, blur and damage.
    """

    grid: PixelGrid
    places: NDArray[np.int64]
    every: ReadCells

    def missing(self, area: Area) -> NDArray[np.int64]:
        """(row, column) of the pieces that an area has a part in, and that were not measured."""
        wanted = self.grid.pieces_in(area)
        lacking = np.zeros(np.concatenate([wanted, self.places, [[0, 0]]]).max(axis=0) + 1, np.bool_)
        lacking[tuple(wanted.T)] = True
        lacking[tuple(self.places.T)] = False
        return np.argwhere(lacking).astype(np.int64)

    def boxes_px0(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, 4) float64, (y0, x0, y1, x1) of pieces, level-0 pixels."""
        side = PIECE_PX * np.array(self.grid.pixel_px0)
        return np.concatenate([places * side, (places + 1) * side], axis=1)

    def within(self, area: Area, *, copied: bool = True) -> ReadCells:
        """Return the cells of an area, as if it alone had been read; as a part of them where not copied."""
        every, side = self.every, FOCUS_PX * np.array(self.grid.pixel_px0)
        rows, cols = every.focus.shape
        pieces = np.zeros((-(-rows // _SQUARES), -(-cols // _SQUARES)), np.bool_)
        pieces[tuple(self.grid.pieces_in(area).T)] = True
        inside = pieces.repeat(_SQUARES, axis=0)[:rows].repeat(_SQUARES, axis=1)[:, :cols]
        damaged = every.damaged
        boxes = np.concatenate([damaged * side, (damaged + 1) * side], axis=1)
        held = area.holds(every.cells.centre_um / np.array(self.grid.mpp0))
        return replace(
            every,
            cells=every.cells.pick(held) if copied else every.cells.part(held),
            focus=np.where(inside, every.focus, np.float32(np.nan)),
            damaged=damaged[area.meets(boxes)] if len(damaged) else damaged,
        )


def read_cells(
    slide: Slide,
    area: Area,
    *,
    preset: Preset = "auto",
    cache: bool = True,
    threads: int | None = None,
) -> Generator[Progress, None, ReadCells]:
    """Read the cells of an area, those that the cache lacks.

    Parameters
    ----------
    slide : Slide
    area : Area
        `napari_her2.cells.areas`: tissue, or what was drawn.
    preset : str
        Of the tissue mask, which light and stains are fitted to.
    cache : bool
        Whether cells are looked up and kept on disk.
    threads : int, optional
        That read and measure; by default the cores that may be used. Cells do not depend on it.

    Yields
    ------
    Progress
        After every window. Closing the generator stops, and leaves what was measured in the cache.

    Returns
    -------
    ReadCells

    Raises
    ------
    JobFailed, SlideChanged, SlideError
        As of `measured_pieces`.
    """
    steps = measured_pieces(slide, area, preset=preset, cache=cache, threads=threads)
    return (yield from steps).within(area)


def measured_pieces(
    slide: Slide,
    area: Area,
    *,
    preset: Preset = "auto",
    cache: bool = True,
    threads: int | None = None,
    stored_only: bool = False,
) -> Generator[Progress, None, MeasuredPieces]:
    """Measure all cells of the pieces of a slide that an area has a part in; see `read_cells`.

    Parameters
    ----------
    slide, area, preset, cache, threads
        As of `read_cells`.
    stored_only : bool
        Whether nothing is measured.

    Yields
    ------
    Progress

    Returns
    -------
    MeasuredPieces

    Raises
    ------
    JobFailed
        If there is neither tissue nor anything drawn on the slide; `NotComputed` if places are missing that
        must not be measured.
    SlideChanged
        If the file was changed meanwhile: what was measured is not kept.
    SlideError
        If the slide states no µm/px, or cannot be read.
    """
    yield from identified(slide)
    grid, tissue = PixelGrid.of(slide), slide.tissue(preset)
    wanted = {(row, col) for row, col in grid.pieces_in(area).tolist()}
    found = _Found(grid)
    # Without tissue the stains are those of what was drawn, and hold for nothing else.
    key = _key(slide, preset) if cache and tissue.mask.any() else None
    with CellStore(key) as store, _one_slide(slide, store):
        store.load(wanted.__contains__, found.add)
        kept = frozenset(found.places)
        if stored_only and len(kept) < len(wanted):
            raise NotComputed(
                f"The cells of {len(wanted) - len(kept):,} of {len(wanted):,} places are not kept on disk: "
                f"press Score to measure them."
            )
        fit = yield from _fitted(slide, tissue, area, store)
        windows = windows_of(wanted - kept)
        note = f"{len(kept):,} of {len(wanted):,} places from the cache" if kept else ""
        yield Progress(STAGE, 0, len(windows), "windows", note)
        with (
            _Workers(threads) as workers,
            prefetched(read_windows(slide, grid, windows, threads=threads), 1) as ahead,
        ):
            for number, window in enumerate(ahead, start=1):
                pieces = workers.measured(window, fit, grid)
                slide.identity.check_unchanged()
                store.keep(pieces)
                for piece in pieces:
                    found.add(piece)
                yield Progress(STAGE, number, len(windows), "windows", note)
        problem = store.problem
    if key is not None:
        shrink_cache()
    return found.read(fit, len(wanted) - len(kept), len(kept), workers.seconds(), problem)


def _key(slide: Slide, preset: Preset) -> CellKey:
    return CellKey(
        slide=slide.fingerprint,
        shape_px0=slide.shape,
        slide_mpp=slide.known_mpp,
        fitted_to=f"tissue, {preset}",
        reader=f"{slide.backend}, napari-her2 {__version__}",
    )


def _fitted(
    slide: Slide, tissue: TissueMask, area: Area, store: CellStore
) -> Generator[Progress, None, SlideFit]:
    """Light and stains of the slide, as they are kept, or fitted now and kept."""
    if store.fitted is not None:
        return SlideFit.from_values(store.fitted)
    yield Progress("Fitting stains")
    fit = fit_slide(slide, tissue, area)
    store.keep_fitted(fit.values())
    return fit


@contextmanager
def _one_slide(slide: Slide, store: CellStore) -> Iterator[None]:
    """Keep nothing of a slide that turns out to have changed since it was identified."""
    try:
        with unchanged(slide):
            yield
    except SlideChanged:
        store.take_back()
        raise


class _Workers:
    """Threads that measure the pieces of a window; what they find does not depend on their number.

    Parameters
    ----------
    threads : int or None
    """

    def __init__(self, threads: int | None) -> None:
        self._count = min(usable_threads(threads), _MOST_WORKERS)
        self._pool = ThreadPoolExecutor(self._count, "her2-cells") if self._count > 1 else None
        self._begun = time.process_time()
        self._measuring = 0.0
        self._steps: dict[str, float] = {}

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._begun = time.process_time() - self._begun

    def measured(self, window: Window, fit: SlideFit, grid: PixelGrid) -> list[Piece]:
        """Measure the wanted pieces of a window."""

        def measure(place: list[int]) -> tuple[Piece, float, dict[str, float]]:
            clock: dict[str, float] = {}
            begun = time.thread_time()
            piece = measure_piece(window, (place[0], place[1]), fit.stains, grid, clock)
            return piece, time.thread_time() - begun, clock

        places = window.pieces.tolist()
        found = []
        for piece, taken, clock in (map if self._pool is None else self._pool.map)(measure, places):
            found.append(piece)
            self._measuring += taken
            # Steps are told in seconds of all threads together: their shares count.
            every = sum(clock.values()) or 1.0
            for step, part in clock.items():
                self._steps[step] = self._steps.get(step, 0.0) + taken * part / every
        return found

    def seconds(self) -> dict[str, float]:
        """Seconds of the processor: reading, and each step of measuring; once all is done."""
        return {"read": max(self._begun - self._measuring, 0.0), **self._steps}


class _Found:
    """What was found so far."""

    def __init__(self, grid: PixelGrid) -> None:
        self.places: list[tuple[int, int]] = []
        self._grid = grid
        self._parts: list[Cells] = []
        self._focus = np.full(grid.focus_shape, np.nan, np.float32)
        self._damaged: list[NDArray[np.int64]] = []

    def add(self, piece: Piece) -> None:
        """Take a piece."""
        self.places.append(piece.place)
        self._parts.append(piece.cells)
        corner = np.array(piece.place) * _SQUARES
        rows, cols = (np.minimum(corner + _SQUARES, self._focus.shape) - corner).tolist()
        y, x = corner.tolist()
        self._focus[y : y + rows, x : x + cols] = piece.focus[:rows, :cols]
        if piece.damaged.any():
            self._damaged.append(np.argwhere(piece.damaged) + corner)

    def read(
        self, fit: SlideFit, measured: int, kept: int, seconds: dict[str, float], problem: str
    ) -> MeasuredPieces:
        """Put everything together; what was found is given away."""
        damaged = np.concatenate([np.empty((0, 2), np.int64), *self._damaged])
        every = ReadCells(
            cells=joined_cells(self._parts),
            fit=fit,
            focus=self._focus,
            square_um=(FOCUS_PX * self._grid.mpp[0], FOCUS_PX * self._grid.mpp[1]),
            damaged=damaged[np.lexsort((damaged[:, 1], damaged[:, 0]))],
            measured=measured,
            kept=kept,
            seconds=seconds,
            problem=problem,
        )
        return MeasuredPieces(self._grid, np.array(self.places, np.int64).reshape(-1, 2), every)
