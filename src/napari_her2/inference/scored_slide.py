"""One slide of a result: what the model says of its tiles, and all that can be laid over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_her2.explain.geometries import TILES, TISSUE, Outline, TileValues, frames_of, images_seen
from napari_her2.explain.overlays import grouped
from napari_her2.inference.doubt import NOTHING_KNOWN, SlideFamiliarity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading
    from napari_her2.explain.maps import TileMap
    from napari_her2.explain.overlays import Drawing, Overlay, OverlayInfo
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.quality import Quality
    from napari_her2.slide.thumbnail import Thumbnail
    from napari_her2.slide.tissue import TissueMask


@dataclass(frozen=True, slots=True, eq=False)
class TileTable:
    """What the model says of each tile, in the order of scoring.

    Parameters
    ----------
    index : (N, 2) int64
        (row, column) on the grid.
    origins_px0 : (N, 2) int64
        (y, x) of the corner, level-0 pixels.
    attention : (N,) float32 or None
        Attention weights; they sum to (about) one over the slide. None where the method has none: then
        nothing ranks the tiles.
    evidence : (N, C) float32 or None
        Signed class evidence; its mean over the tiles plus the bias is the logit. None where the method
        cannot tell it.
    probabilities : (N, C) float32 or None
        Of each tile by itself, where the method scores tiles.
    confidence : (N,) float32 or None
        That the model has in its score of each tile, 0 to 1: learnt, not a probability of being right. None
        where it has learnt none.
    """

    index: NDArray[np.int64]
    origins_px0: NDArray[np.int64]
    attention: NDArray[np.float32] | None
    evidence: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None = None
    confidence: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredSlide:
    """One slide of a result: which tiles were scored, and the maps over it.

    Parameters
    ----------
    name : str
    path : Path
    slide_id : str
        Of the open slide (`Slide.slide_id`): the viewer lays the result over it.
    fingerprint : str
        Of all its content (`Slide.fingerprint`).
    sha256_head : str
        SHA-256 over the size and the first and last MiB of its file (`Identity.head`).
    stain : str
        What the slide was scored as: "H&E" or "IHC".
    looks_like : str
        The stain that its colours show: "H&E", "IHC" or "unknown"; empty where nobody looked.
    table : TileTable
    maps : tuple of TileMap
    grid : TileGrid
    tissue_mm2 : float
    corrupt : (K, 2) int64
        (row, column) of tiles left out because the file is damaged there.
    tissue : TissueMask or None
        What was taken for tissue.
    compared : int
        How many of the most and how many of the least attended tiles the method compares with those of
        the other slide; 0 where it compares none.
    thumbnails : tuple of Thumbnail
        The images that the model was shown, where it takes images of the whole tissue.
    mpp_source : str
        Where the µm/px of the slide come from, `Slide.mpp_source`; empty where nobody noted it.
    extras : tuple of Drawing
        What the method draws beside maps.
    tiles_info : OverlayInfo
        What a tile is called, and how one is described.
    cells : CellReading or None
        The cells that were read, where the method reads cells.
    familiarity : SlideFamiliarity
        How much the slide looks like what the model learnt from; "not known" where the model cannot tell.
    quality : Quality or None
        What is wrong with which tiles, and whether they were left out; None where nobody looked.
    alone : mapping of str to float
        Where several slides are one bag: the probabilities that the model gives this one by itself.
    bounds_px0 : tuple of float
        (y, x) of the level-0 pixel that QuPath counts from; see `napari_her2.slide.frame.SlideFrame`.
    smooth : tuple of TileMap
        Of overlapping tiles, each shown in place of that of ``maps`` of its kind, class and scale; empty
        unless they were asked for. See `napari_her2.explain.smooth`.
    """

    name: str
    path: Path
    slide_id: str
    fingerprint: str
    sha256_head: str
    stain: str
    table: TileTable
    maps: tuple[TileMap, ...]
    grid: TileGrid
    tissue_mm2: float
    corrupt: NDArray[np.int64]
    tissue: TissueMask | None = None
    compared: int = 0
    thumbnails: tuple[Thumbnail, ...] = ()
    looks_like: str = ""
    mpp_source: str = ""
    extras: tuple[Drawing, ...] = ()
    tiles_info: OverlayInfo = TILES
    cells: CellReading | None = None
    familiarity: SlideFamiliarity = NOTHING_KNOWN
    quality: Quality | None = None
    alone: Mapping[str, float] = field(default_factory=dict)
    bounds_px0: tuple[float, float] = (0.0, 0.0)
    smooth: tuple[TileMap, ...] = ()

    @property
    def shown_maps(self) -> tuple[TileMap, ...]:
        """The maps as they are looked at: where there is a smoother one, that."""
        smooth = {(of.kind, of.class_name, of.info.scale): of for of in self.smooth}
        return tuple(smooth.get((of.kind, of.class_name, of.info.scale), of) for of in self.maps)

    @property
    def ranks(self) -> TileMap | None:
        """The map that puts the tiles in order; None where the method has none."""
        return next((tile_map for tile_map in self.maps if tile_map.info.ranking is not None), None)

    @property
    def overlays(self) -> tuple[Overlay, ...]:
        """Everything that can be laid over the slide, in the order in which it is offered."""
        drawings: list[Drawing] = [of for of in self.shown_maps if of.info.is_map or of.holds_any]
        drawings += [*self.extras, *images_seen(self.thumbnails)]
        if self.ranks is not None and len(self.table):
            drawings.append(frames_of(self.ranks, self.table.index))
        if self.tissue is not None:
            drawings.append(Outline(TISSUE, self.tissue))
        drawings.append(TileValues(self.tiles_info, self.maps, self.table.index, self.grid))
        return grouped(drawings)
