"""How fast the score follows a region: from polygon to result, over slides of so many tiles, by demo model.

Cells are timed too, of invented cells all over such a slide, and images, of a phantom slide of 3072 px whose
image is read and scored anew.

Features are random numbers of the right width, and the tissue is a disc in the middle of a slide that has no
pixels. Timed is what happens while a vertex is dragged: tiles inside, head, familiarity, maps, result.

    python benchmarks/regions_follow.py [--tiles 5000 20000 50000] [--cells 500000] [--repeats 11]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import shapely
import torch

from napari_her2 import open_slide, score_steps
from napari_her2.cells.areas import DrawnArea
from napari_her2.cells.stains import Stains
from napari_her2.cells.table import Cells
from napari_her2.cells.windows import FOCUS_PX, PixelGrid
from napari_her2.explain.cells import cell_grid
from napari_her2.inference.cell_reading import MeasuredPieces, ReadCells
from napari_her2.inference.cell_samples import SlideFit
from napari_her2.inference.cell_scope import CellGround
from napari_her2.inference.device import choose_device
from napari_her2.inference.embeddings import Embeddings
from napari_her2.inference.familiarity import drawn_over, placed_in
from napari_her2.inference.kept_cells import KeptCells
from napari_her2.inference.kept_scoring import KeptScoring, KeptTiles, ReadSlide
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.regions import Region
from napari_her2.inference.selection import Chosen
from napari_her2.inference.slide_record import SlideRecord
from napari_her2.inference.terms import Terms
from napari_her2.methods.catalogue import method_of, model_named
from napari_her2.models.familiarity import APPEARANCE, FEATURES
from napari_her2.models.registry import list_models, load_model
from napari_her2.slide.grid import TileGrid
from napari_her2.slide.tissue import TissueMask
from napari_her2.steps import finished
from unseen import unseen_cases

SLIDE_MPP = 0.25
DOWNSAMPLE = 64.0


def chosen_tiles(tiles: int, tile_px: int, mpp: float, stain: str) -> Chosen:
    """Make a disc of tissue that holds about so many tiles, on a slide twice as large."""
    radius = np.sqrt(tiles / np.pi)
    side_px0 = int(np.ceil(2 * radius * 1.4)) * tile_px * mpp / SLIDE_MPP
    shape = (int(side_px0), int(side_px0))
    grid = TileGrid(shape, (SLIDE_MPP, SLIDE_MPP), tile_px, mpp)
    pixels = int(side_px0 / DOWNSAMPLE)
    y, x = np.mgrid[:pixels, :pixels]
    middle, far = pixels / 2, radius * tile_px * mpp / SLIDE_MPP / DOWNSAMPLE
    tissue = TissueMask(np.hypot(y - middle, x - middle) < far, (DOWNSAMPLE, DOWNSAMPLE))
    return Chosen(grid, tissue.keep(grid), tissue, tissue.fraction(grid), stain, stain, None, ())


def kept_scoring(model: str, tiles: int) -> KeptTiles:
    """Return what a scoring of random features would have kept."""
    bundle = load_model(model)
    card, method = bundle.card, method_of(bundle.card)
    stains = ("H&E", "IHC") if method.takes_pair else (card.stain,)
    terms = Terms(bundle, choose_device("cpu"), ScoringOptions())
    rng, read = np.random.default_rng(0), []
    for stain in stains:
        chosen = chosen_tiles(tiles, card.tile_px, card.mpp, stain)
        index = np.argwhere(chosen.keep)
        known = None if bundle.familiarity is None else bundle.familiarity.of(stain)
        width = card.encoder.dim if card.encoder is not None else 2 * (len(card.classes) + 1)
        features = rng.standard_normal((len(index), width), np.float32).astype(np.float16)
        embeddings = Embeddings(features, index, np.empty((0, 2), np.int64), 0, "", "", "float32")
        record = SlideRecord(
            f"slide {stain}", Path(f"{stain}.svs"), stain, stain, "0" * 64, (SLIDE_MPP,) * 2, "invented"
        )
        slide = ReadSlide(record, chosen, embeddings)
        placed = {}
        for kind, space in (known or {}).items():
            count = len(index) if kind == FEATURES else 64
            described = rng.standard_normal((count, len(space.mean)), np.float32) * 0.1 + space.mean
            given = {FEATURES: None, APPEARANCE: None} | {kind: described}
            placed |= placed_in(bundle.familiarity, stain, given[FEATURES], given[APPEARANCE])
        drawn = drawn_over(chosen.keep)[tuple(index.T)]
        over = {kind: of.pick(drawn) if kind == FEATURES else of for kind, of in placed.items()}
        slide = replace(slide, numbers=method.numbers(terms, slide), placed=placed, slide_placed=over)
        slide = replace(slide, alone=method.alone(terms, slide)).kept()
        read.append(slide.settled() if read else slide)
    nothing = tuple(lambda: None for _ in stains)
    return KeptTiles(terms, nothing, stains, whole=read[0].chosen, read=tuple(read))


def kept_cells(count: int) -> KeptCells:
    """Return what a reading of so many invented cells would have kept: 4,000 in each mm²."""
    rng, tiles = np.random.default_rng(0), round(count / 4000 / 0.048**2)
    chosen = chosen_tiles(tiles, 96, 0.5, "IHC")
    shape, mpp = chosen.grid.slide_shape_px0, (SLIDE_MPP, SLIDE_MPP)
    grid = PixelGrid(0, (2.0, 2.0), (0.5, 0.5), (shape[0] // 2, shape[1] // 2), mpp)
    index = np.argwhere(chosen.keep)[rng.integers(0, chosen.keep.sum(), count)]
    centre = (index + rng.random((count, 2))) * chosen.grid.tile_um
    none, columns = Cells.none(), {}
    for of in fields(Cells):
        like = getattr(none, of.name)
        columns[of.name] = rng.uniform(0.1, 1, (count, *like.shape[1:])).astype(like.dtype)
    columns["centre_um"] = centre.astype(np.float32)
    columns["area_um2"] = rng.uniform(60, 200, count).astype(np.float32)
    columns["nucleus_um2"] = rng.uniform(25, 60, count).astype(np.float32)
    stains = Stains(np.full(3, 240.0), np.array([0.65, 0.7, 0.29]), np.array([0.27, 0.57, 0.78]), 0.5)
    every = ReadCells(
        cells=Cells.joined([Cells(**columns)]),
        fit=SlideFit(stains, 0.3, 0.0),
        focus=np.full(grid.focus_shape, 0.5, np.float32),
        square_um=(FOCUS_PX * 0.5, FOCUS_PX * 0.5),
        damaged=np.empty((0, 2), np.int64),
        measured=0,
        kept=0,
    )
    record = SlideRecord("slide IHC", Path("IHC.svs"), "IHC", "IHC", "0" * 64, mpp, "invented")
    ground = CellGround(record, mpp, cell_grid(shape, mpp), chosen.tissue, "IHC", False, ())
    places = grid.pieces_in(DrawnArea(shapely.box(0, 0, shape[1], shape[0])))
    terms = Terms(model_named("ihc-rules"), choose_device("cpu"), ScoringOptions())
    return KeptCells(terms, (lambda: None,), ("IHC",), ground, MeasuredPieces(grid, places, every))


def timed(name: str, kept: KeptScoring, shape: tuple[int, int], held: str, repeats: int) -> None:
    """Drag a corner so often, and print the row of a table."""
    method = method_of(kept.terms.card)
    method.again(kept, dragged(shape, 0), pixels=False)  # what is imported and compiled once
    wall, cpu, count = [], [], 0
    for step in range(repeats):
        regions = dragged(shape, step + 1)
        began, busy = time.perf_counter(), time.process_time()
        result = method.again(kept, regions, pixels=False)
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - busy))
        cells = result.slides[0].cells
        count = len(result.table) if cells is None else len(cells.cells)
    print(
        f"| {name} | {held} | {count:,} | {np.median(wall):.0f} ({min(wall):.0f} to {max(wall):.0f}) | "
        f"{np.median(cpu):.0f} |",
        flush=True,
    )


def dragged(shape: tuple[int, int], step: int) -> list[Region]:
    """Draw 60 corners over most of the tissue, one of which has been dragged, without a square."""
    height, width = shape
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    far = np.full(60, 0.34 * width)
    far[7] *= 1 - 0.02 * step
    outline = np.stack([width / 2 + far * np.cos(angle), height / 2 + far * np.sin(angle)], axis=1)
    square = shapely.box(0.45 * width, 0.45 * height, 0.5 * width, 0.5 * height)
    return [Region(shapely.Polygon(outline), "tumour 1"), Region(square, kind="necrosis")]


def main() -> None:
    """Print the median and the spread for each model and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs="+", default=[5_000, 20_000, 50_000])
    parser.add_argument("--cells", type=int, nargs="*", default=[500_000])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{os.cpu_count()} cores, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    print("| model | tiles | in the region | ms, median (least to most) | processor ms, median |")
    print("|---|---|---|---|---|")
    for entry in list_models():
        if method_of(entry.card).takes not in ("tiles", "fields", "patches"):
            continue
        for tiles in options.tiles:
            kept = kept_scoring(entry.name, tiles)
            held = f"{len(kept.read[0].embeddings.index):,}"
            timed(entry.name, kept, kept.whole.grid.slide_shape_px0, held, options.repeats)
    for cells in options.cells:
        of_cells = kept_cells(cells)
        timed(
            "ihc-rules", of_cells, of_cells.ground.grid.slide_shape_px0, f"{cells:,} cells", options.repeats
        )
    with tempfile.TemporaryDirectory() as folder:
        images(Path(folder), options.repeats)


def images(folder: Path, repeats: int) -> None:
    """Time the model that takes an image of the whole slide, on a phantom."""
    found: list[KeptScoring] = []
    for case in unseen_cases(folder, 1, 1, 3072, mpp=(0.5,)):
        with open_slide(case.ihc) as slide:
            finished(score_steps(slide, "demo-low-resolution", kept=found, device="cpu"))
            timed("demo-low-resolution", found[0], slide.shape, "one image", repeats)


if __name__ == "__main__":
    main()
