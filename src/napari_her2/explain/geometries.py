"""What can be drawn over a slide beside a map on the tile grid; each with its description."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.overlays import OverlayInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap
    from napari_her2.explain.overlays import Ranking
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.thumbnail import Thumbnail
    from napari_her2.slide.tissue import TissueMask

TISSUE = OverlayInfo(
    "tissue",
    title="Tissue",
    layer_name="tissue outline",
    meaning="Outline of what was taken for tissue.",
    colours="#00c853",
    order=90,
    depth=0,
)
TOP_TILES = OverlayInfo(
    "top tiles",
    title="Top tiles",
    layer_name="{count} top tiles",
    meaning="Frames around the first tiles.",
    colours="#0033ff",
    order=80,
    depth=40,
)
TILES = OverlayInfo(
    "tiles",
    title="Tile",
    layer_name="tile values",
    meaning="What the model found in the tile under the cursor.",
    unit="tile",
    colours="",
    visible=True,
    depth=50,
)
SEEN = OverlayInfo(
    "images seen",
    layer_name="what the model saw{detail}",
    meaning="The slide as the model saw it, in its place; zoom in to compare it with the cells.",
    colours="",
    visible=True,
    on_request=True,
    depth=0,
)
MOST_FRAMES = 200  # shapes are slow: napari takes 2.5 s for 20,000 of them


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """Edge of a mask over the slide."""

    info: OverlayInfo
    mask: TissueMask
    class_name: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Frames around the first tiles by a map that ranks them, numbered from the first.

    Parameters
    ----------
    info : OverlayInfo
    ranks : TileMap
        Its description has a ranking.
    index : (N, 2) int64
        (row, column) of the tiles, in the order of scoring.
    """

    info: OverlayInfo
    ranks: TileMap
    index: NDArray[np.int64]
    class_name: str | None = None

    @property
    def ranking(self) -> Ranking:
        """How the order of the tiles is worded."""
        assert self.ranks.info.ranking is not None
        return self.ranks.info.ranking

    def first(self, count: int) -> NDArray[np.int64]:
        """Positions of the first tiles in the order of scoring, the very first one first, (count,) int64."""
        # Stable, so that ties keep the order of scoring and the same slide shows the same tiles.
        order = np.argsort(-self.ranks.at(self.index), kind="stable")
        return order[: min(count, MOST_FRAMES)].astype(np.int64)


def frames_of(ranks: TileMap, index: NDArray[np.int64]) -> Frames:
    """Describe frames around the first tiles by a map with a ranking."""
    ranking = ranks.info.ranking
    assert ranking is not None, f"{ranks.kind} ranks no tiles"
    most = f"most {ranking.adjective} tiles"
    info = replace(
        TOP_TILES,
        layer_name=f"{{count}} {most}",
        meaning=f"Frames around the {most}.",
        visible=ranking.framed,
    )
    return Frames(info, ranks, index)


@dataclass(frozen=True, slots=True, eq=False)
class TileValues:
    """The values of all maps at each tile, for whoever points at it.

    Parameters
    ----------
    info : OverlayInfo
        Its unit is what a tile is called. Its words open the description of a tile, and may hold "{short}",
        the one line about it.
    maps : sequence of TileMap
    index : (N, 2) int64
        (row, column) of the tiles, in the order of scoring.
    grid : TileGrid
    """

    info: OverlayInfo
    maps: Sequence[TileMap]
    index: NDArray[np.int64]
    grid: TileGrid
    class_name: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PlacedImage:
    """An image that lies anywhere over the slide: of values with colours and limits, or of colours.

    Parameters
    ----------
    info : OverlayInfo
    values : (h, w) float32 or (h, w, 3) uint8
        Of values NaN is clear.
    origin_px0 : tuple of float
        (y, x) corner, level-0 pixels.
    pixel_px0 : tuple of float
        (y, x) level-0 pixels per pixel of the image.
    class_name : str or None
    detail : str
        What the name of the layer tells beside the class.
    """

    info: OverlayInfo
    values: NDArray[np.float32] | NDArray[np.uint8]
    origin_px0: tuple[float, float]
    pixel_px0: tuple[float, float]
    class_name: str | None = None
    detail: str = ""


def images_seen(thumbnails: Sequence[Thumbnail]) -> list[PlacedImage]:
    """Describe the images that a model saw of a slide, each in its place."""
    count = len(thumbnails)
    of = [f" ({number} of {count})" if count > 1 else "" for number in range(1, count + 1)]
    return [
        PlacedImage(SEEN, seen.rgb, seen.origin_px0, seen.pixel_px0, detail=detail)
        for seen, detail in zip(thumbnails, of, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class OnRequest:
    """Something that a dock computes when it is asked to: until then there is nothing to draw."""

    info: OverlayInfo
    class_name: str | None = None
