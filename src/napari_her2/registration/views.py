"""Slides as they are compared: how dense the nuclei are, on a small picture of the tissue.

Haematoxylin is in H&E and in IHC alike, eosin and DAB each in one of them. Of the three colours red is
absorbed by haematoxylin most (0.65 of its optical density, 0.07 of that of eosin, 0.27 of that of DAB;
Ruifrok and Johnston 2001), so that the optical density of red is much the same picture in all stains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.slide.thumbnail import thumbnail_steps
from napari_her2.slide.tissue import tissue_mask

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.slide.thumbnail import Thumbnail
    from napari_her2.slide.tissue import TissueMask
    from napari_her2.slide.whole_slide import Slide

VIEW_PX = 1024
"""Longest side of the picture that the tissue of a slide is compared on."""
_LEVEL0_MPP = 0.25
"""Of the scanners that the limits of `tissue_mask` were made for."""
_RIM = 0.02
"""Width around the tissue that is compared with it, as a share of the picture: its edge is worth most."""
_GLASS, _DENSEST = 99.0, 99.0
"""Percentiles that stand for glass, and for the densest nuclei."""
_BEYOND = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The tissue of a slide on a small picture.

    Parameters
    ----------
    density : (h, w) float32
        How dense the nuclei are: 0 on glass, about 1 where they are densest.
    tissue : (h, w) bool
    matrix : (3, 3) float64
        From pixels (y, x, 1), the centre of the first one being (0, 0), to µm from the centre of the first
        level-0 pixel of the slide.
    """

    density: NDArray[np.float32]
    tissue: NDArray[np.bool_]
    matrix: NDArray[np.float64]

    @property
    def pixel_um(self) -> float:
        """µm per pixel, the mean of both axes."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:2, :2]))))


def common_mpp(slides: tuple[Slide, ...], tissues: tuple[TissueMask, ...]) -> float:
    """µm/px at which the tissue of every slide fits on `VIEW_PX` pixels, the largest exactly."""
    wanted: list[float] = []
    for slide, tissue in zip(slides, tissues, strict=True):
        box = tissue.box_px0()
        if box is not None:
            wanted += [(box[axis + 2] - box[axis]) * slide.known_mpp[axis] / VIEW_PX for axis in (0, 1)]
    return max(wanted) * (1 + 1e-6)


def view_steps(slide: Slide, tissue: TissueMask, mpp: float) -> Generator[tuple[int, int], None, View]:
    """Read the tissue of a slide.

    Parameters
    ----------
    slide : Slide
    tissue : TissueMask
    mpp : float
        µm per pixel, of `common_mpp`.

    Yields
    ------
    tuple of int
        Blocks read, and their number.

    Returns
    -------
    View

    Raises
    ------
    SlideError
        There is no tissue, or the slide states no µm/px.
    """
    (picture,) = yield from thumbnail_steps(slide, tissue, size_px=VIEW_PX, mode="fixed", mpp=mpp)
    return View(
        density_of(picture.rgb, _readable(picture)), _readable(picture), _matrix(picture, slide.known_mpp)
    )


def view_of_picture(rgb: NDArray[np.uint8], mpp: float, view_mpp: float) -> View:
    """Return the view of a picture that is at hand.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    mpp, view_mpp : float
        µm per pixel of the picture, and of the view.
    """
    height, width = (max(1, round(side * mpp / view_mpp)) for side in rgb.shape[:2])
    small = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    pixel = rgb.shape[0] / height, rgb.shape[1] / width
    matrix = np.diag([pixel[0] * mpp, pixel[1] * mpp, 1.0])
    matrix[:2, 2] = (0.5 * (pixel[0] - 1) * mpp, 0.5 * (pixel[1] - 1) * mpp)
    tissue = tissue_mask(small, max(1.0, view_mpp / _LEVEL0_MPP))
    return View(density_of(small, tissue), tissue, matrix)


def density_of(rgb: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How dense the nuclei are in each pixel, in units of the densest; 0 away from the tissue.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    tissue : (h, w) bool
        Ink, dust and labels outside it are not compared.

    Returns
    -------
    (h, w) float32
    """
    red = np.maximum(rgb[..., 0].astype(np.float32), 1.0)
    absorbed = np.maximum(-np.log(red / max(float(np.percentile(red, _GLASS)), 1.0)), 0.0)
    reach = 2 * max(1, round(_RIM * max(tissue.shape))) + 1
    near = cv2.dilate(tissue.astype(np.uint8), np.ones((reach, reach), np.uint8)).astype(np.bool_)
    absorbed[~near] = 0.0
    densest = float(np.percentile(absorbed[tissue], _DENSEST)) if tissue.any() else 0.0
    scaled = absorbed / densest if densest > 0 else absorbed
    return np.minimum(scaled, _BEYOND).astype(np.float32)


def _readable(picture: Thumbnail) -> NDArray[np.bool_]:
    return picture.tissue if picture.damaged is None else picture.tissue & ~picture.damaged


def _matrix(picture: Thumbnail, slide_mpp: tuple[float, float]) -> NDArray[np.float64]:
    matrix = np.eye(3)
    for axis in (0, 1):
        pixel, mpp = picture.pixel_px0[axis], slide_mpp[axis]
        # The centre of pixel i lies at origin + (i + 0.5) pixel - 0.5, counted from that of the first one.
        matrix[axis, axis] = pixel * mpp
        matrix[axis, 2] = (picture.origin_px0[axis] + 0.5 * pixel - 0.5) * mpp
    return matrix
