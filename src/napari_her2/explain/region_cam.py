"""Grad-CAM over a region or a whole slide: maps of overlapping fields, blended without seams.

Fields lie on one lattice over the slide, each shifted by a part of its side. The map of a field counts most
in the middle of the field and next to nothing at its edge, where the padding of a network shows: weights are
a raised cosine along both sides, and what lies in several fields is their weighted mean. Where all
fields agree, so does the blend, whatever the overlap.

All fields share one scale: the raw values of `napari_her2.explain.gradcam`, in logits. Scaling each
field to [0, 1] by itself, as single images are commonly shown, would paint the faintest evidence of an
empty field as brightly as the strongest of the slide, and no blending could hide the steps between. Limits
for display come from the whole map (`CamMap.contrast_limits`).

The lattice begins at the corner of the slide, not of the region. So a place has the same value in whichever
region it is looked at, and fields beside a region that reach into it are computed too.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from napari_her2.errors import JobFailed
from napari_her2.explain.fields import REGION_CAM
from napari_her2.explain.geometries import PlacedImage
from napari_her2.explain.gradcam import grad_cam, upsample_maps
from napari_her2.explain.maps import limits_of
from napari_her2.models.shortage import Portions

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from napari_her2.models.preprocessing import TilePreparation
    from napari_her2.models.tile_models import FieldHead
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.tiles import RegionBatch
    from napari_her2.slide.tissue import TissueMask
    from napari_her2.slide.whole_slide import Slide

CELLS = 64
OVERLAP = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class CamMap:
    """Grad-CAM of one class over a region.

    Parameters
    ----------
    values : (h, w) float32
        In logits, at least 0; NaN where nothing was computed.
    origin_px0 : tuple of float
        (y, x) corner of the map, level-0 pixels.
    pixel_px0 : tuple of float
        (y, x) level-0 pixels per pixel of the map.
    class_name : str
    layer_name : str
        The layer of the predictor.
    damaged_px0 : (K, 2) int64
        (y, x) corners, in level-0 pixels, of the fields left out because the file is damaged there.
    """

    values: NDArray[np.float32]
    origin_px0: tuple[float, float]
    pixel_px0: tuple[float, float]
    class_name: str
    layer_name: str
    damaged_px0: NDArray[np.int64]

    @property
    def name(self) -> str:
        """Short name for a layer or a file."""
        return f"Grad-CAM {self.class_name} ({self.layer_name})"

    @property
    def contrast_limits(self) -> tuple[float, float]:
        """0 and the 99.5th percentile of the whole map; (0, 1) where nothing is above 0."""
        return limits_of(self.values, REGION_CAM.limits)

    @property
    def drawing(self) -> PlacedImage:
        """The map as it is laid over its slide."""
        return PlacedImage(
            REGION_CAM, self.values, self.origin_px0, self.pixel_px0, self.class_name, self.layer_name
        )


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """Which overlapping fields a region needs.

    Parameters
    ----------
    lattice : TileGrid
        Its tiles are the pixels of the map.
    side : int
        Map pixels along the side of a field.
    step : int
        Map pixels from one field to the next, 1 to `side`.
    low, high : tuple of int
        (row, column) of the region's first map pixel, and behind its last.
    """

    lattice: TileGrid
    side: int
    step: int
    low: tuple[int, int]
    high: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the map."""
        return self.high[0] - self.low[0], self.high[1] - self.low[1]

    def corners(self, tissue: TissueMask | None = None, min_tissue: float = 0.5) -> NDArray[np.int64]:
        """Map pixel at the corner of each field that lies whole on the slide and reaches into the region.

        Parameters
        ----------
        tissue : TissueMask, optional
            Leaves out fields without tissue.
        min_tissue : float, default 0.5
            Share of a field that must be tissue.

        Returns
        -------
        (N, 2) int64
            (row, column), in raster order.
        """
        rows, columns = (
            np.arange(
                max((low - self.side) // self.step + 1, 0),
                min((high - 1) // self.step, (length - self.side) // self.step) + 1,
                dtype=np.int64,
            )
            * self.step
            for low, high, length in zip(self.low, self.high, self.lattice.shape, strict=True)
        )
        corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        if tissue is None or not len(corners):
            return corners
        marked = tissue.keep(self.lattice).astype(np.int64)
        total = np.pad(marked, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
        y, x = corners.T
        below, right = y + self.side, x + self.side
        share = (total[below, right] - total[y, right] - total[below, x] + total[y, x]) / self.side**2
        kept: NDArray[np.int64] = corners[(share > 0) & (share >= min_tissue)]
        return kept


class Canvas:
    """Weighted mean of the maps of fields over a region.

    Parameters
    ----------
    layout : FieldLayout
    """

    def __init__(self, layout: FieldLayout) -> None:
        self._layout = layout
        across = np.sin(np.pi * (np.arange(layout.side) + 0.5) / layout.side) ** 2
        self._window = np.outer(across, across).astype(np.float32)
        self._sum = np.zeros(layout.shape, np.float32)
        self._weight = np.zeros(layout.shape, np.float32)

    def add(self, corner: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add a field; what of it lies outside the region is left out.

        Parameters
        ----------
        corner : (2,) int64
            (row, column) of its first map pixel.
        values : (side, side) float32
        """
        begin = corner - self._layout.low
        first = np.maximum(-begin, 0)
        last = np.minimum(self._layout.shape - begin, self._layout.side)
        field = np.s_[first[0] : last[0], first[1] : last[1]]
        place = np.s_[begin[0] + first[0] : begin[0] + last[0], begin[1] + first[1] : begin[1] + last[1]]
        self._sum[place] += self._window[field] * values[field]
        self._weight[place] += self._window[field]

    def blended(self) -> NDArray[np.float32]:
        """(h, w) float32, NaN where there is no field."""
        empty = np.full_like(self._sum, np.nan)
        return np.divide(self._sum, self._weight, out=empty, where=self._weight > 0)


def lay_fields(
    slide: Slide,
    region_px0: tuple[float, float, float, float] | None,
    *,
    tile_px: int,
    mpp: float,
    overlap: float = OVERLAP,
    cells: int = CELLS,
) -> FieldLayout:
    """Lay overlapping fields over a region of a slide.

    Parameters
    ----------
    slide : Slide
    region_px0 : tuple of float or None
        (y, x, height, width), level-0 pixels; None is the whole slide.
    tile_px : int
        Side of a field, pixels.
    mpp : float
        µm per pixel of a field.
    overlap : float, default 0.5
        Part of a field's side that the next one covers too, 0 or more and below 1; rounded to whole map
        pixels.
    cells : int, default 64
        Map pixels along the side of a field; divides `tile_px`.

    Returns
    -------
    FieldLayout

    Raises
    ------
    SlideError
        If the slide states no µm/px.
    JobFailed
        If the region lies outside the slide or in its last map pixel, or the slide is smaller than one field.
    ValueError
        If `overlap` or `cells` cannot be.
    """
    if cells < 1 or tile_px % cells:
        raise ValueError(f"a field of {tile_px} px cannot become {cells} map pixels")
    if not 0 <= overlap < 1:
        raise ValueError(f"fields overlap by 0 or more and less than 1, not by {overlap}")
    lattice = slide.tile_grid(tile_px // cells, mpp)
    if min(lattice.shape) < cells:
        raise JobFailed(
            f"{slide.name} is smaller than one field of the model ({tile_px * mpp:.0f} µm): "
            f"there is nothing to explain, choose a larger slide."
        )
    y, x, height, width = (0, 0, *slide.shape) if region_px0 is None else region_px0
    edges = np.array([[y, x], [-(y + height), -(x + width)]], np.float64)
    (top, left), (bottom, right) = lattice.index_of_px0(edges).tolist()
    low = max(top, 0), max(left, 0)
    high = min(-bottom, lattice.shape[0]), min(-right, lattice.shape[1])
    if low[0] >= high[0] or low[1] >= high[1]:
        raise JobFailed(
            f"The region holds no part of {slide.name} that fields cover: choose one on the slide, "
            f"away from its lower and right edge."
        )
    return FieldLayout(lattice, cells, max(1, round(cells * (1 - overlap))), low, high)


def region_cam_steps(
    slide: Slide,
    model: FieldHead,
    preparation: TilePreparation,
    region_px0: tuple[float, float, float, float] | None,
    mpp: float,
    class_index: int,
    batch_size: int = 4,
    overlap: float = OVERLAP,
    *,
    classes: Sequence[str],
    layer: str | None = None,
    cells: int = CELLS,
    tissue: TissueMask | None = None,
    min_tissue: float = 0.5,
    threads: int | None = None,
) -> Generator[tuple[int, int], None, CamMap]:
    """Grad-CAM of a class over a region, in steps; closing the generator cancels.

    Parameters
    ----------
    slide : Slide
    model : FieldHead
    preparation : TilePreparation
        With the slide's stain transform, on the model's device.
    region_px0 : tuple of float or None
        (y, x, height, width), level-0 pixels; None is the whole slide.
    mpp : float
        µm per pixel of the tiles that `preparation` takes.
    class_index : int
    batch_size : int, default 4
        Fields at once.
    overlap : float, default 0.5
        As for `lay_fields`.
    classes : sequence of str
        Names in the order of the logits.
    layer : str, optional
        As for `grad_cam`.
    cells : int, default 64
        Map pixels along the side of a field.
    tissue : TissueMask, optional
        Fields without tissue are left out.
    min_tissue : float, default 0.5
        Share of a field that must be tissue.
    threads : int, optional
        That decode.

    Yields
    ------
    tuple of int
        Fields done, damaged ones among them, and fields in all.

    Returns
    -------
    CamMap
        Nothing is painted over damage: each field that reaches into it is left out.

    Raises
    ------
    ModelError
        As `grad_cam`.
    JobFailed, SlideError, ValueError
        As `lay_fields`.
    """
    tile_px = preparation.tile_px
    layout = lay_fields(slide, region_px0, tile_px=tile_px, mpp=mpp, overlap=overlap, cells=cells)
    corners = layout.corners(tissue, min_tissue)
    canvas = Canvas(layout)
    damaged = [np.empty(0, np.int64)]
    device = next(model.parameters()).device
    portions = Portions(
        lambda tiles: grad_cam(model, preparation(tiles), class_index, layer),
        "a single field",
    )
    done = 0
    yield done, len(corners)
    squares = slide.squares(corners / cells, tile_px=tile_px, mpp=mpp, batch_size=batch_size, threads=threads)
    with closing(cast("Generator[RegionBatch]", squares)) as batches:
        for batch in batches:
            if len(batch.images):
                tiles = torch.from_numpy(batch.images).to(device)
                values = upsample_maps(portions(tiles), (cells, cells)).cpu().numpy()
                for number, one in zip(batch.number, values, strict=True):
                    canvas.add(corners[number], one)
            damaged.append(batch.corrupt)
            done += len(batch.number) + len(batch.corrupt)
            yield done, len(corners)
    scale = layout.lattice.tile_px0
    return CamMap(
        values=canvas.blended(),
        origin_px0=(layout.low[0] * scale[0], layout.low[1] * scale[1]),
        pixel_px0=scale,
        class_name=classes[class_index],
        layer_name=model.predictor.cam_layer if layer is None else layer,
        damaged_px0=layout.lattice.origins_px0(corners[np.concatenate(damaged)]),
    )
