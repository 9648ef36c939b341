"""Reading what a low-resolution model looks at: through the pyramid, against readers that start at level 0.

    python benchmarks/low_resolution.py                   # 100,000 px: 3 GB of disk, minutes for the others
    python benchmarks/low_resolution.py --size-px 8000    # a look at whether it runs
    python benchmarks/low_resolution.py --slide case.svs

All give the same image, the tissue of the slide averaged over areas: ours from the level just finer than
needed, ours forced to level 0 (its compressed tiles decoded once each, in the same threads), and tiffslide's
``read_region`` of level 0, region by region, shrunk by OpenCV. The slide is made of the compressed tiles of a
phantom, repeated, and has levels of 1, 4 and 16 times less, as scanners write them; it is removed at the end.
The file lies in the page cache for all readers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import tifffile
import tiffslide

from napari_her2 import open_slide
from napari_her2.slide.area import area_steps
from napari_her2.slide.thumbnail import read_thumbnails
from score_slide import kept_folder
from slides import STEPS, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_her2 import Slide
    from napari_her2.slide.thumbnail import Thumbnail

TILE_PX = 256
PERIOD_PX = TILE_PX * STEPS[-1]
"""The image repeats after a whole number of tiles at every level."""
REGION_PX = 4096
OURS, THEIRS = "ours from level 0", "tiffslide from level 0"


def repeated_slide(size_px: int) -> Path:
    """Write an Aperio-like pyramid of a phantom IHC slide, each of whose tiles is compressed once."""
    from napari_her2.phantom import make_pair

    target = kept_folder() / f"repeated-{size_px}.svs"
    if target.is_file():
        return target
    folder = kept_folder() / "phantom-ihc"
    found = folder / "case_IHC.svs"
    if not found.is_file():
        found = make_pair(folder, "case", score="2+", seed=1, size_px=PERIOD_PX // 2, mpp=0.25).ihc
    with open_slide(found) as slide:
        corner = slide.read(0, 0, 0, *slide.shape)
    upper = np.concatenate([corner, corner[:, ::-1]], axis=1)
    pixels = np.concatenate([upper, upper[::-1]])
    text = (
        f"Aperio Image Library v12.0.0\n{size_px}x{size_px} ({TILE_PX}x{TILE_PX}) jpeg Q=80"
        f"|AppMag = 40|MPP = 0.25"
    )
    partial = target.with_suffix(".partial")
    with tifffile.TiffWriter(partial, bigtiff=True) as writer:
        for step in STEPS:
            small = cv2.resize(pixels, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
            side = size_px // step
            writer.write(
                repeated_tiles(small, side),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(2, 2),
                description=text,
                metadata=None,
            )
            if step == 1:  # Aperio keeps a thumbnail in strips behind level 0
                thumbnail = cv2.resize(pixels, (768, 768), interpolation=cv2.INTER_AREA)
                writer.write(thumbnail, photometric="rgb", metadata=None, description=text)
    partial.rename(target)
    return target


def repeated_tiles(pixels: NDArray[np.uint8], side: int) -> Iterator[bytes]:
    """Compressed tiles of the repeated image, in raster order."""
    count = pixels.shape[0] // TILE_PX
    tiles = [
        [
            encode(
                np.ascontiguousarray(
                    pixels[row * TILE_PX : (row + 1) * TILE_PX, col * TILE_PX : (col + 1) * TILE_PX]
                ),
                "jpeg",
                80,
            )
            for col in range(count)
        ]
        for row in range(count)
    ]
    across = -(-side // TILE_PX)
    for number in range(across * across):
        yield tiles[number // across % count][number % across % count]


def from_level_0(slide: Slide, seen: Thumbnail, threads: int) -> NDArray[np.uint8]:
    """Read the crop of an image by our reader, had the file no other level."""
    corner, shape = crop(seen)
    steps = area_steps(slide, 0, corner, shape, seen.pixel_px0, threads=threads)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            rgb: NDArray[np.uint8] = end.value.rgb
            return rgb


def by_tiffslide(path: Path, seen: Thumbnail) -> NDArray[np.uint8]:
    """Read the same region by region, by tiffslide."""
    (top, left), (height, width) = crop(seen)
    pixel = seen.pixel_px0[0]
    per_region = max(1, int(REGION_PX // pixel))
    out = np.full((height, width, 3), 255, np.uint8)
    with tiffslide.TiffSlide(path) as slide:
        for row in range(0, height, per_region):
            for col in range(0, width, per_region):
                rows, cols = min(per_region, height - row), min(per_region, width - col)
                y, x = top + round(row * pixel), left + round(col * pixel)
                size = max(1, round(cols * pixel)), max(1, round(rows * pixel))
                region = np.asarray(slide.read_region((x, y), 0, size, as_array=True))[..., :3]
                out[row : row + rows, col : col + cols] = cv2.resize(
                    region, (cols, rows), interpolation=cv2.INTER_AREA
                )
    return out


def crop(seen: Thumbnail) -> tuple[tuple[int, int], tuple[int, int]]:
    """Corner in level-0 pixels and shape in pixels of what an image shows of the slide."""
    y0, x0, y1, x1 = seen.box_px0
    shape = round((y1 - y0) / seen.pixel_px0[0]), round((x1 - x0) / seen.pixel_px0[1])
    return (round(y0), round(x0)), shape


def timed(work: Callable[[], object], rounds: int) -> tuple[list[float], object]:
    """Seconds of each round, and what the last one gave."""
    found, given = [], None
    for _ in range(rounds):
        start = time.perf_counter()
        given = work()
        found.append(time.perf_counter() - start)
    return found, given


def whole_way(path: Path, image_px: int, threads: int) -> None:
    with open_slide(path) as slide:
        read_thumbnails(slide, slide.tissue(), size_px=image_px, threads=threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, help="by default one is made")
    parser.add_argument("--size-px", type=int, default=100_000, help="side of the slide that is made")
    parser.add_argument("--image-px", type=int, default=1024, help="side of the model's image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slow-rounds", type=int, default=1, help="of the readers that start at level 0")
    parser.add_argument("--keep", action="store_true", help="leave the slide in place")
    options = parser.parse_args()
    path = options.slide or repeated_slide(options.size_px)
    try:
        measure(path, options)
    finally:
        if options.slide is None and not options.keep:
            path.unlink()


def measure(path: Path, options: argparse.Namespace) -> None:
    threads, image_px = options.threads, options.image_px
    with open_slide(path) as slide:
        tissue = slide.tissue()
        (seen,) = read_thumbnails(slide, tissue, size_px=image_px, threads=threads)  # does not count
        made = {
            f"the image, from level {seen.level}": timed(
                lambda: read_thumbnails(slide, tissue, size_px=image_px, threads=threads), options.rounds
            ),
            "open, tissue and the image": timed(lambda: whole_way(path, image_px, threads), options.rounds),
            OURS: timed(lambda: from_level_0(slide, seen, threads), options.slow_rounds),
            THEIRS: timed(lambda: by_tiffslide(path, seen), options.slow_rounds),
        }
        rows = {name: seconds for name, (seconds, _) in made.items()}
        (top, left), (height, width) = crop(seen)
        start = np.rint(seen.from_px0(np.array([[top, left]], float))[0]).astype(int)
        ours = seen.rgb[start[0] : start[0] + height, start[1] : start[1] + width].astype(int)
        apart = [float(np.abs(ours - made[name][1]).mean()) for name in (OURS, THEIRS)]
        print(
            f"{path.name}, {slide.shape[1]:,} x {slide.shape[0]:,} px, {len(slide.level_shapes)} levels; an "
            f"image of {image_px} px at {seen.mpp:.3g} µm/px; {threads} threads\n"
        )
    fastest = statistics.median(next(iter(rows.values())))
    print("| what | s, median (min to max) | times the first |\n|---|---|---|")
    for name, values in rows.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.3f} ({min(values):.3f} to {max(values):.3f}) | {median / fastest:.1f} |")
    print(
        f"\nMean difference to the first image, grey values: {apart[0]:.2f} (ours from level 0), "
        f"{apart[1]:.2f} (tiffslide)."
    )


if __name__ == "__main__":
    main()
