"""Cells as layers: what a view of them takes at every zoom, and until other rules are seen.

    python benchmarks/cell_layers.py [--cells 500000 2000000] [--rounds 7]

Cells are invented: a jittered lattice of 10 µm, ten thousand a square millimetre, which is denser than most
tumours. Times are those of the processor, medians over the rounds. "1920 x 1080" is a window of so many
pixels of the level; "screen" what napari reads for a canvas of that size just before it takes the next level,
widened to its chunks. Other rules are seen when cells are judged, maps made, all layers changed in place,
and the cells in view drawn again; the docks and the graphics card come on top.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from napari.components import ViewerModel

from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.session import session_of
from napari_her2._napari.tags import METADATA_KEY, SlideTag
from napari_her2.cells.reading import CellReading
from napari_her2.cells.rules import CLASSES, Rules
from napari_her2.cells.table import SECTORS, Cells
from napari_her2.explain.cell_levels import CLEAR_UM, FINEST_UM, CellLevels
from napari_her2.explain.cells import CELLS, CellBorders, cell_grid, cell_maps, tiles_with_cells
from napari_her2.inference.result import SlideResult
from napari_her2.inference.scored_slide import ScoredSlide, TileTable

if TYPE_CHECKING:
    from collections.abc import Callable

SPACING_UM, CANVAS, MPP = 10.0, (1080, 1920), (0.25, 0.25)


def lattice(count: int) -> CellReading:
    """Invent cells of all classes, mixed, a tenth of them not counted."""
    rng = np.random.default_rng(0)
    columns = int(np.ceil(np.sqrt(count)))
    place = np.stack(np.divmod(np.arange(count), columns), axis=1) + rng.uniform(0.3, 0.7, (count, 2))
    share, strength = rng.random((2, count, 1), np.float32)
    stained = (np.arange(SECTORS) + rng.integers(0, SECTORS, (count, 1))) % SECTORS < SECTORS * share
    contrast = np.where(stained, np.float16(0.4), np.float16(0.02))
    one = np.ones(count, np.float32)
    cells = Cells(
        centre_um=(SPACING_UM * place).astype(np.float32),
        border_um=rng.uniform(4.0, 6.0, (count, SECTORS)).astype(np.float16),
        contrast=contrast,
        dab=contrast,
        mass=np.broadcast_to(strength, (count, SECTORS)).astype(np.float16),
        area_um2=78 * one,
        cytoplasm_dab=0.1 * one,
        nucleus_h=0.3 * one,
        nucleus_um2=30 * one,
        nucleus_ratio=one,
    )
    return CellReading(cells, np.zeros(count, np.int16), ("tumour",), rng.random(count) < 0.1)


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """Time of the processor, median."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return 1e3 * median(taken)


def views(reading: CellReading, rounds: int) -> None:
    """Print what views take, level by level."""
    start = time.process_time()
    levels = CellLevels(reading)
    print(f"sorted and ready in {time.process_time() - start:.2f} s, once")
    print(f"{'µm/px':>6} {'1920 x 1080':>12} {'screen':>8}  ms")
    whole_um = levels.levels[0].shape[0] * FINEST_UM
    sizes = [whole_um / level.shape[0] for level in levels.levels]
    for level, size, coarser in zip(levels.levels, sizes, sizes[1:], strict=False):
        taken = []
        chunk = level.chunks[0]
        screen = (chunk * (1 + int(np.ceil(side * coarser / size / chunk))) for side in CANVAS)
        for sides in (CANVAS, tuple(screen)):
            height, width = (min(a, b) for a, b in zip(sides, level.shape, strict=False))
            y, x = (level.shape[0] - height) // 2, (level.shape[1] - width) // 2
            part = (slice(y, y + height), slice(x, x + width))
            taken.append(milliseconds(lambda level=level, part=part: level[part], rounds))
        print(f"{size:6.2f} {taken[0]:12.1f} {taken[1]:8.1f}")
        if size >= CLEAR_UM * 0.9:
            break


def result_of(reading: CellReading) -> SlideResult:
    """Put a reading into a result, as a method does."""
    side_px = int(reading.cells.centre_um.max() / MPP[0]) + 100
    grid = cell_grid((side_px, side_px), MPP)
    index = tiles_with_cells(reading, grid)
    own = ScoredSlide(
        name="lattice",
        path=Path("lattice.tiff"),
        slide_id="lattice",
        fingerprint="",
        sha256_head="",
        stain="IHC",
        table=TileTable(index, grid.origins_px0(index), None, None),
        maps=cell_maps(reading, grid),
        grid=grid,
        tissue_mm2=0.0,
        corrupt=np.zeros((0, 2), np.int64),
        extras=(CellBorders(CELLS, reading),),
        cells=reading,
    )
    return SlideResult(
        slides=(own,),
        method="",
        model="",
        model_sha256="",
        task="",
        classes=CLASSES,
        probabilities={},
        score="2+",
        label="2+",
        abstained=False,
        uncertainty=None,
        device="cpu",
        seconds={},
        warnings=(),
        version="",
    )


def other_rules(reading: CellReading, rounds: int) -> None:
    """Print the time until other rules are seen, step by step."""
    viewer = ViewerModel()
    session, result = session_of(viewer), result_of(reading)
    side = result.grid.slide_shape_px0[0]
    slide = SlideTag(SimpleNamespace(mpp=MPP, close=lambda: None), "lattice")
    viewer.add_image(
        np.broadcast_to(np.uint8(230), (side, side, 3)), rgb=True, scale=MPP, metadata={METADATA_KEY: slide}
    )
    session.set_result(result, OverlayLook())
    borders = session.overlays("lattice").layer(CELLS.kind)
    centre = np.array([side, side]) * MPP[0] / 2
    half = np.array(CANVAS) / 2
    borders._update_draw(1.0, np.stack([centre - half, centre + half]), np.array(CANVAS))  # noqa: SLF001
    steps: dict[str, list[float]] = {"judge": [], "maps": [], "layers and view": []}
    for number in range(rounds):
        rules = Rules(mass=(0.18, 0.385, 0.5 + 0.01 * number))
        marks = [time.process_time()]
        judged = reading.judged_by(rules)
        _ = judged.classes
        marks.append(time.process_time())
        own = replace(
            result.slides[0],
            maps=cell_maps(judged, result.grid),
            extras=(CellBorders(CELLS, judged),),
            cells=judged,
        )
        marks.append(time.process_time())
        session.refresh_result(replace(result, slides=(own,)))
        marks.append(time.process_time())
        for name, taken in zip(steps, np.diff(marks), strict=True):
            steps[name].append(1e3 * taken)
    total = median(np.sum(list(steps.values()), axis=0))
    parts = ", ".join(f"{name} {median(taken):.0f}" for name, taken in steps.items())
    print(f"other rules are seen after {total:.0f} ms ({parts}), at 1 µm a screen pixel")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[500_000, 2_000_000])
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    for count in chosen.cells:
        print(f"\n{count:,} cells")
        reading = lattice(count)
        views(reading, chosen.rounds)
        other_rules(reading, chosen.rounds)


if __name__ == "__main__":
    main()
