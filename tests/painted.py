"""Slides painted by hand: a block of speckled tissue on glass."""

from __future__ import annotations

import numpy as np
import tifffile

BLUE, BROWN, PINK = (150, 150, 205), (150, 110, 80), (225, 130, 190)


def paint(path, shape=(1280, 1280), tissue=(150, 150, 1130, 1130), colours=(BLUE, BROWN), glass=245, mpp=0.5):
    """A slide with one block (y0, x0, y1, x1) of speckled tissue."""
    points = np.random.default_rng(1)
    image = np.full((*shape, 3), glass, np.uint8)
    y0, x0, y1, x1 = tissue
    inside = np.array(colours, np.uint8)[points.integers(0, len(colours), (y1 - y0, x1 - x0))]
    noise = points.integers(-12, 13, (*inside.shape[:2], 1))
    image[y0:y1, x0:x1] = np.clip(inside.astype(int) + noise, 0, 255)
    header = f"Aperio Image Library v1.0\n{shape[1]}x{shape[0]} (256x256)|AppMag = 20|MPP = {mpp}"
    tifffile.imwrite(
        path, image, tile=(256, 256), photometric="rgb", compression="zlib", description=header, metadata=None
    )
    return path
