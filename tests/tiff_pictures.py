"""A picture for TIFF files, and how it is read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2 import open_slide

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(13)


def picture(height: int = 256, width: int = 320) -> np.ndarray:
    """Bright, smooth and coloured, as stained tissue on glass is."""
    y, x = np.indices((height, width))
    waves = np.stack([np.sin(y / 17) + np.cos(x / 23), np.cos(y / 11 + x / 31), np.sin(x / 13)], axis=-1)
    return (180 + 30 * waves).clip(0, 255).astype(np.uint8)


IMAGE = picture()


def halved(image: np.ndarray, times: int = 1) -> np.ndarray:
    size = (image.shape[1] >> times, image.shape[0] >> times)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def whole(path: Path, level: int = 0) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.read(level, 0, 0, *slide.level_shapes[level])


def um(value: float) -> dict[str, object]:
    return {f"PhysicalSize{axis}{end}": v for axis in "XY" for end, v in (("", value), ("Unit", "µm"))}
