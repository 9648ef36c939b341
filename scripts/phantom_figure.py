"""Draws the pictures of the phantom in the README: docs/images/phantom.png and phantom_scores.png.

phantom.png shows both stains of one 3+ case at three magnifications; phantom_scores.png shows a
field of the four scores, H&E above IHC. Run from the repository's root: python scripts/phantom_figure.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import tiffslide
from PIL import Image
from shapely.geometry import shape

from napari_her2.phantom import SCORES, make_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.phantom import PhantomPair

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MPP = 0.25
SIZE_UM = 2048.0
SEED = 5
GAP = 6


def field(path: Path, centre_um: tuple[float, float], side_um: float, side_px: int) -> NDArray[np.uint8]:
    """Cut a square field (side_px, side_px, 3) out of a slide; centre is (y, x)."""
    with tiffslide.TiffSlide(path) as slide:
        level = slide.get_best_level_for_downsample(max(1.0, side_um / MPP / side_px))
        down = slide.level_downsamples[level]
        corner = [round((at - side_um / 2) / MPP) for at in centre_um]
        side = round(side_um / MPP / down)
        image = np.asarray(slide.read_region((corner[1], corner[0]), level, (side, side)))[..., :3]
    method = cv2.INTER_AREA if side >= side_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (side_px, side_px), interpolation=method), dtype=np.uint8)


def place_in_the_largest_nest(pair: PhantomPair, depth_um: float) -> tuple[float, float]:
    """Return a place (y, x) in µm so deep within the largest nest, near the middle of the slide."""
    features = json.loads(pair.regions.read_text(encoding="utf-8"))["features"]
    nest = max((shape(feature["geometry"]) for feature in features), key=lambda polygon: polygon.area)
    core = nest.buffer(-depth_um / MPP)
    part = max(getattr(core, "geoms", [core]), key=lambda polygon: polygon.area)
    middle = SIZE_UM / MPP / 2
    x, y = min(part.exterior.coords, key=lambda at: (at[0] - middle) ** 2 + (at[1] - middle) ** 2)
    return y * MPP, x * MPP


def grid(panels: list[list[NDArray[np.uint8]]]) -> Image.Image:
    """Put panels side by side with white gaps, with few enough colours for a small file."""
    rows = []
    for row in panels:
        padded = [np.pad(panel, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for panel in row]
        rows.append(np.pad(np.hstack(padded), ((0, GAP), (0, 0), (0, 0)), constant_values=255))
    sheet = np.vstack(rows)[:-GAP, :-GAP]
    # By range, not by number: brown is rare, and must not be merged with violet.
    return Image.fromarray(sheet).quantize(200, Image.Quantize.MAXCOVERAGE, 2, dither=Image.Dither.NONE)


def main() -> None:
    """Make the cases in a temporary folder and draw both pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    side = round(SIZE_UM / MPP)
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            make_pair(folder, f"g{k}", score=s, seed=SEED, size_px=side, mpp=MPP)
            for k, s in enumerate(SCORES)
        ]
        pair = pairs[3]
        edge = place_in_the_largest_nest(pair, 15.0)
        inside = place_in_the_largest_nest(pair, 60.0)
        centre = (SIZE_UM / 2, SIZE_UM / 2)
        views = ((centre, SIZE_UM), (edge, 400.0), (edge, 110.0))
        grid([[field(path, at, um, 340) for at, um in views] for path in (pair.he, pair.ihc)]).save(
            IMAGES / "phantom.png", optimize=True
        )
        stains = ([pair.he for pair in pairs], [pair.ihc for pair in pairs])
        grid([[field(path, inside, 150.0, 230) for path in row] for row in stains]).save(
            IMAGES / "phantom_scores.png", optimize=True
        )


if __name__ == "__main__":
    main()
