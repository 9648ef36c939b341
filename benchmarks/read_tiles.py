"""Reading tiles, side by side with other readers: speed, equal pixels, safety under threads.

Every figure compares the same patches of the same file on the same machine, warm cache,
interleaved, median of several rounds with its spread. Our own reader decodes each stored tile once
for a whole raster of patches; the others are called a patch at a time, as their users do.

    python benchmarks/read_tiles.py                  # 32,768 px slide, made once and kept; ten minutes
    python benchmarks/read_tiles.py --quick          # small slide, few rounds
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2 import Slide, open_slide
from napari_her2.slide.tiles import usable_threads
from peers import open_peers
from slides import make_slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from peers import Patch

    Runs = dict[str, Callable[[int], int]]  # number of the round -> patches read

PATCH_PX = 256
UNALIGNED_PX = 100
OURS = "napari-her2"


def block_of(cells: tuple[int, int], count: int, number: int) -> NDArray[np.int64]:
    """(row, column) of a square block of a grid, in raster order; another block for each round.

    Another block, so that no reader answers from what it decoded in the round before.
    """
    side = min(round(count**0.5), *cells)
    down, across = cells[0] // side, cells[1] // side
    corner = np.array(divmod(number % (down * across), across)) * side
    return corner + np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)


def origins_of(shape: tuple[int, int], count: int, number: int) -> NDArray[np.int64]:
    """(y, x) of level-0 patches of one round, not aligned to stored tiles."""
    cells = ((shape[0] - UNALIGNED_PX) // PATCH_PX, (shape[1] - UNALIGNED_PX) // PATCH_PX)
    return block_of(cells, count, number) * PATCH_PX + UNALIGNED_PX


def interleaved(runs: Runs, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Patches a second of each run, every round in turn, after one round to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            patches = run(number)
            if number:
                rates[name].append(patches / (clock() - start))
    return rates


def table(title: str, rates: dict[str, list[float]], skipped: dict[str, str]) -> None:
    ours = statistics.median(rates[OURS])
    print(f"\n### {title}\n\n| reader | patches/s, median (min to max) | ours is |\n|---|---|---|")
    for name, values in sorted(rates.items(), key=lambda item: -statistics.median(item[1])):
        middle = statistics.median(values)
        ratio = "" if name == OURS else f"{ours / middle:.2f} x"
        print(f"| {name} | {middle:,.0f} ({min(values):,.0f} to {max(values):,.0f}) | {ratio} |")
    for name, reason in skipped.items():
        print(f"| {name} | left out: {reason} | |")


def count_regions(slide: Slide, origins: NDArray[np.int64], threads: int) -> int:
    return sum(
        len(batch.images)
        for batch in slide.regions(0, origins, (PATCH_PX, PATCH_PX), batch_size=64, threads=threads)
    )


def read_speed(path: Path, title: str, count: int, rounds: int, clock: Callable[[], float]) -> None:
    """Unaligned 256 px patches at level 0, one thread; then how many of them are equal."""
    peers, skipped = open_peers(path)
    with open_slide(path) as slide:

        def ours(number: int) -> int:
            return count_regions(slide, origins_of(slide.shape, count, number), 1)

        def per_patch(patch: Patch) -> Callable[[int], int]:
            def run(number: int) -> int:
                places = origins_of(slide.shape, count, number).tolist()
                for y, x in places:
                    patch(y, x, PATCH_PX)
                return len(places)

            return run

        runs: Runs = {OURS: ours} | {name: per_patch(patch) for name, patch in peers.items()}
        rates = interleaved(runs, rounds, clock)
        table(f"{title}, unaligned {PATCH_PX} px, 1 thread, {ours(0)} patches a round", rates, skipped)
        equal_pixels(slide, peers, title, min(count, 100))


def equal_pixels(slide: Slide, peers: dict[str, Patch], title: str, count: int) -> None:
    """How many patches equal those of each peer, pixel for pixel."""
    print(f"\n### {title}: equal pixels\n\n| reader | equal patches |\n|---|---|")
    origins = origins_of(slide.shape, count, 1)
    ours = np.concatenate([batch.images for batch in slide.regions(0, origins, (PATCH_PX, PATCH_PX))])
    for name, patch in peers.items():
        equal = sum(
            np.array_equal(image, patch(y, x, PATCH_PX))
            for image, (y, x) in zip(ours, origins.tolist(), strict=True)
        )
        print(f"| {name} | {equal} of {len(ours)} |")


def batch_speed(path: Path, count: int, rounds: int, threads: int, clock: Callable[[], float]) -> None:
    """256 px patches at 0.5 µm/px from a slide of 0.25 µm/px, as ready uint8 batches, all in threads."""
    import openslide

    other = openslide.OpenSlide(str(path))
    side = 2 * PATCH_PX

    def openslide_one(place: tuple[int, int]) -> NDArray[np.uint8]:
        row, col = place
        pixels = np.asarray(other.read_region((col * side, row * side), 0, (side, side)))[..., :3]
        return cv2.resize(pixels, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA)

    with open_slide(path) as slide, ThreadPoolExecutor(threads) as pool:
        grid = slide.tile_grid(PATCH_PX, 0.5)

        def ours(number: int) -> int:
            keep = np.zeros(grid.shape, np.bool_)
            keep[tuple(block_of(grid.shape, count, number).T)] = True
            batches = slide.tiles(tile_px=PATCH_PX, mpp=0.5, keep=keep, batch_size=64, threads=threads)
            return sum(len(batch.images) for batch in batches)

        def theirs(number: int) -> int:
            places = block_of(grid.shape, count, number).tolist()
            for start in range(0, len(places), 64):
                np.stack(list(pool.map(openslide_one, places[start : start + 64])))
            return len(places)

        rates = interleaved(
            {OURS: ours, f"openslide-python {openslide.__version__} + cv2": theirs}, rounds, clock
        )
        patches = ours(0)
    table(f"Batches of {PATCH_PX} px at 0.5 µm/px, {threads} threads, {patches} patches a round", rates, {})


def wrong_reads(source: Path, reads: int, threads: int) -> None:
    """Random windows read by many threads at once against pixels that another library decoded alone."""
    import tiffslide

    with tiffslide.TiffSlide(str(source)) as other:
        truth = other.read_region((0, 0), 0, other.dimensions, as_array=True)
    rng = np.random.default_rng(0)
    places = rng.integers(0, np.array(truth.shape[:2]) - 64, (reads, 2))
    sides = rng.integers(16, 64, reads)

    with open_slide(source) as slide:

        def wrong(number: int) -> bool:
            (y, x), side = places[number].tolist(), int(sides[number])
            return not np.array_equal(slide.read(0, y, x, side, side), truth[y : y + side, x : x + side])

        with ThreadPoolExecutor(threads) as pool:
            count = sum(pool.map(wrong, range(reads), chunksize=64))
    print(f"\n### Safety under threads\n\n{count} wrong of {reads:,} reads by {threads} threads at once.")


def options() -> argparse.Namespace:
    data = Path(os.environ.get("NAPARI_HER2_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--source", type=Path, default=data / "slides" / "cmu1_small_region.svs")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "napari-her2-benchmarks")
    parser.add_argument("--size", type=int, default=32768, help="side of the JPEG slide, pixels")
    parser.add_argument("--size-jpeg2000", type=int, default=8192, help="side of the JPEG 2000 slide, pixels")
    parser.add_argument("--tile", type=int, default=240, help="side of a stored tile, pixels")
    parser.add_argument("--patches", type=int, default=3600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_threads(None))
    parser.add_argument("--reads", type=int, default=100_000, help="reads of the check under threads")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu counts the time of all threads of this process: for a machine that is busy with other work",
    )
    parser.add_argument("--quick", action="store_true", help="small slides, few rounds")
    found = parser.parse_args()
    if found.quick:
        found.size, found.size_jpeg2000, found.patches, found.rounds, found.reads = 8192, 4096, 100, 3, 2000
    return found


def main() -> None:
    chosen = options()
    if not chosen.source.exists():
        sys.exit(f"There is no slide {chosen.source}: set NAPARI_HER2_TEST_DATA or give --source.")
    chosen.cache.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)  # peers and we alike: one core a thread
    jpeg = make_slide(
        chosen.source,
        chosen.cache / f"jpeg-{chosen.size}-{chosen.tile}.svs",
        size_px=chosen.size,
        tile_px=chosen.tile,
    )
    jpeg2000 = make_slide(
        chosen.source,
        chosen.cache / f"jpeg2000-{chosen.size_jpeg2000}.svs",
        size_px=chosen.size_jpeg2000,
        codec="jpeg2000",
    )
    print(f"{platform.platform()}, Python {platform.python_version()}, {usable_threads(None)} cores")
    print(f"JPEG Q80 slide {chosen.size} px of tiles of {chosen.tile} px, made from {chosen.source.name}")
    clock = time.perf_counter if chosen.clock == "wall" else time.process_time
    print(f"Seconds of {chosen.clock} time")
    read_speed(jpeg, "JPEG", chosen.patches, chosen.rounds, clock)
    batch_speed(jpeg, min(chosen.patches, 900), chosen.rounds, chosen.threads, clock)
    read_speed(jpeg2000, "JPEG 2000", min(chosen.patches // 2, 196), max(3, chosen.rounds // 2), clock)
    wrong_reads(chosen.source, chosen.reads, 8)


if __name__ == "__main__":
    main()
