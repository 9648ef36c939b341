"""Opening a slide: to the overview's pixels, to a field at full resolution, to the tissue mask.

    python benchmarks/open_slide.py                  # the phantom of 40,000 px of score_slide.py
    python benchmarks/open_slide.py --slide case.svs

Each figure is the median (with range) of rounds; fields lie at random places, the same for all readers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openslide
import tiffslide

from napari_her2 import Slide, open_slide
from score_slide import phantom_slide

if TYPE_CHECKING:
    from collections.abc import Callable

FIELD = (1080, 1920)


def seconds(work: Callable[[], object], rounds: int) -> list[float]:
    """Wall time of each round, after one that does not count."""
    work()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


def overview(path: Path) -> np.ndarray:
    with open_slide(path) as slide:
        return np.asarray(slide.pyramid()[-1])


def tissue(path: Path) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.tissue().mask


def fields(slide: Slide, path: Path, rounds: int) -> dict[str, list[float]]:
    """One new place a round for every reader."""
    rng = np.random.default_rng(0)
    places = [(int(y), int(x)) for y, x in rng.uniform(0.2, 0.7, (rounds + 1, 2)) * slide.shape]
    height, width = FIELD
    level0 = slide.pyramid()[0]
    readers: dict[str, Callable[[int, int], object]] = {
        "Slide.read": lambda y, x: slide.read(0, y, x, height, width),
        "the pyramid through dask": lambda y, x: level0[y : y + height, x : x + width].compute(),
    }
    with openslide.OpenSlide(path) as peer, tiffslide.TiffSlide(path) as other:
        readers["openslide-python"] = lambda y, x: np.asarray(peer.read_region((x, y), 0, (width, height)))
        readers["tiffslide"] = lambda y, x: other.read_region((x, y), 0, (width, height), as_array=True)
        found: dict[str, list[float]] = {name: [] for name in readers}
        for number, place in enumerate(places):
            for name, read in readers.items():
                start = time.perf_counter()
                read(*place)
                if number:
                    found[name].append(time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, help="by default a phantom")
    parser.add_argument("--size", type=int, default=40_000, help="side of the phantom, px")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    path = options.slide or phantom_slide(options.size)
    with open_slide(path) as slide:
        height, width = slide.shape
        shape = slide.tissue().mask.shape
        rows = {
            "open, to the overview's pixels": seconds(lambda: overview(path), options.rounds),
            f"open, to the tissue mask ({shape[1]} x {shape[0]} px)": seconds(
                lambda: tissue(path), options.rounds
            ),
        }
        for name, values in fields(slide, path, options.rounds).items():
            rows[f"field of {FIELD[1]} x {FIELD[0]} at level 0: {name}"] = values
    print(f"{path.name}, {width:,} x {height:,} px\n\n| what | ms, median (min to max) |\n|---|---|")
    for name, values in rows.items():
        low, high = min(values) * 1000, max(values) * 1000
        print(f"| {name} | {statistics.median(values) * 1000:.1f} ({low:.1f} to {high:.1f}) |")


if __name__ == "__main__":
    main()
