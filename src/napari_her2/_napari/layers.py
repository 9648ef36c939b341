"""Slides and results as napari layer data: pure functions, tested without a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from scipy.ndimage import binary_erosion

from napari_her2._napari.colormaps import (
    CORRUPT_COLOUR,
    TISSUE_COLOUR,
    TOP_TILE_COLOUR,
    attention_colormap,
    evidence_colormap,
    flag_colormap,
)
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.tags import METADATA_KEY, OverlayRole, OverlayTag, SlideTag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide

# napari's own form: data, keyword arguments of the layer, layer type.
LayerData: TypeAlias = tuple[Any, dict[str, Any], str]
AttentionScale = Literal["percentile", "raw"]

AXES = ("y", "x")
MICROMETRE = ("um", "um")
PIXEL = ("pixel", "pixel")
_MOST = {False: "most attended", True: "most weighted"}
MOST_TOP_TILES = 200  # shapes are slow: napari takes 2.5 s for 20,000 of them


@dataclass(frozen=True, slots=True)
class OverlayLook:
    """How a result is shown.

    Parameters
    ----------
    class_name : str or None
        Score whose evidence or Grad-CAM is shown; None takes the predicted one.
    attention_scale : str
        "percentile" or "raw".
    opacity : float
        Of the maps, in [0, 1].
    top_tiles : int
        How many of the most attended tiles are outlined.
    """

    class_name: str | None = None
    attention_scale: AttentionScale = "percentile"
    opacity: float = 0.6
    top_tiles: int = 12


def slide_layer(slide: Slide) -> LayerData:
    """Lazy pyramid of a slide, in µm; in pixels where the file does not say its µm/px.

    Parameters
    ----------
    slide : Slide

    Returns
    -------
    LayerData
    """
    known = slide.mpp is not None
    return (
        slide.pyramid(),
        {
            "name": one_line(slide.name),
            "rgb": True,
            "multiscale": True,
            "scale": slide.mpp or (1.0, 1.0),
            "units": MICROMETRE if known else PIXEL,
            "axis_labels": AXES,
            # napari keeps finished views of dask arrays under new keys each time, in a cache that all layers
            # share and that outlives them: two hundred slides filled it. What was shown last is kept by the
            # arrays themselves and goes with them (`napari_her2.slide.pyramid`).
            "cache": False,
            "metadata": {METADATA_KEY: SlideTag(slide, slide.slide_id)},
        },
        "image",
    )


def beside(layer: LayerData, left: Slide, gap: float = 0.05) -> LayerData:
    """Move a layer to the right of a slide.

    Parameters
    ----------
    layer : LayerData
    left : Slide
        Whose right edge it is put behind.
    gap : float
        Share of the width of ``left`` that stays free between them.
    """
    data, options, kind = layer
    width = left.shape[1] * (left.mpp[1] if left.mpp else 1.0)
    return data, {**options, "translate": (0.0, width * (1 + gap))}, kind


def scores_tiles(result: SlideResult) -> bool:
    """Whether each tile was scored by itself."""
    return result.table.probabilities is not None


def ranked_by(result: SlideResult) -> str:
    """Say what puts the tiles in order; empty where the method has no attention."""
    if result.table.attention is None:
        return ""
    return "weight in the score" if scores_tiles(result) else "attention"


def attention_map(result: SlideResult, scale: AttentionScale) -> TileMap | None:
    """Attention on the chosen scale; None where the method has none.

    Ranks that the model room took from the scores before the softmax are preferred: on a large
    slide the weights can be too small for float32 to tell apart.
    """
    maps = [tile_map for tile_map in result.maps if tile_map.kind == "attention"]
    if not maps:
        return None
    ranks = [tile_map for tile_map in maps if tile_map.unit == "percentile"]
    if scale == "percentile":
        return ranks[0] if ranks else maps[0].percentile()
    return next(tile_map for tile_map in maps if tile_map.unit != "percentile")


def limits_of(values: NDArray[np.float32], *, symmetric: bool = False) -> tuple[float, float]:
    """Contrast limits for a map: 1st and 99th percentile, or symmetric about zero.

    Parameters
    ----------
    values : (rows, columns) float32
        NaN is left out.
    symmetric : bool
        For signed maps: zero stays in the middle of the colours.

    Returns
    -------
    tuple of float
        Low, high; always low < high.
    """
    scored = values[np.isfinite(values)]
    if not scored.size:
        return (-1.0, 1.0) if symmetric else (0.0, 1.0)
    if symmetric:
        reach = float(np.percentile(np.abs(scored), 99)) or float(np.abs(scored).max()) or 1.0
        return -reach, reach
    low, high = (float(limit) for limit in np.percentile(scored, (1, 99)))
    return (low, high) if low < high else (low, low + (abs(low) or 1.0))


def attention_layer(result: SlideResult, look: OverlayLook) -> LayerData | None:
    """Attention of the model: which regions it used, never which regions are HER2-positive; None without.

    Of a model that scores each tile by itself it is the weight of the tile in the score of the slide, and
    not shown at first: what such a model says of a tile is its score.
    """
    by_tile = scores_tiles(result)
    tile_map = attention_map(result, look.attention_scale)
    if tile_map is None:
        return None
    values = tile_map.values
    limits = (0.0, 1.0) if look.attention_scale == "percentile" else limits_of(values)
    return map_layer(
        result,
        "attention",
        values,
        name="weight in the score" if by_tile else "attention (regions the model used)",
        colormap=attention_colormap(),
        contrast_limits=limits,
        opacity=look.opacity,
        visible=not by_tile,
    )


def evidence_layer(result: SlideResult, look: OverlayLook) -> LayerData | None:
    """Signed evidence for one score: orange speaks for it, blue against it; None where there is none."""
    if result.table.evidence is None:
        return None
    tile_map = evidence_map(result, look)
    return map_layer(
        result,
        "evidence",
        tile_map.values,
        name=f"evidence for {result.named(tile_map.class_name or '')}",
        colormap=evidence_colormap(),
        contrast_limits=limits_of(tile_map.values, symmetric=True),
        opacity=look.opacity,
        visible=False,
    )


def evidence_map(result: SlideResult, look: OverlayLook) -> TileMap:
    """Evidence map of the chosen score, of the predicted one where none is chosen."""
    return result.map("evidence", look.class_name or result.score)


def tissue_layer(result: SlideResult) -> LayerData | None:
    """Outline of what was taken for tissue; None where that is not known."""
    mask = result.tissue
    if mask is None:
        return None
    mpp = result.grid.slide_mpp
    downsample = mask.downsample
    options = _common(result, "tissue", "tissue outline") | _flag_options(TISSUE_COLOUR)
    options |= {
        "scale": (downsample[0] * mpp[0], downsample[1] * mpp[1]),
        # The centre of a mask pixel lies half a mask pixel, less half a slide pixel, from the edge.
        "translate": tuple((d - 1) / 2 * m for d, m in zip(downsample, mpp, strict=True)),
        "visible": False,
    }
    outline = mask.mask & ~binary_erosion(mask.mask, border_value=1)
    return outline.astype(np.uint8), options, "image"


def top_tiles_layer(result: SlideResult, look: OverlayLook) -> LayerData | None:
    """Frames around the most attended tiles, numbered from the first; None where nothing ranks the tiles.

    Tiles with scores of their own are so large that frames would hide what lies below: thin, on request.
    """
    by_tile = scores_tiles(result)
    order = top_tiles(result, look.top_tiles)
    weight = result.table.attention
    if not len(order) or weight is None:
        return None
    index = result.table.index[order]
    options = _on_grid(result, "top tiles", f"{len(order)} {_MOST[by_tile]} tiles")
    options |= {
        "shape_type": "rectangle",
        "edge_color": TOP_TILE_COLOUR,
        "face_color": "transparent",
        "edge_width": 0.02 if by_tile else 0.07,
        "opacity": 1.0,
        "visible": not by_tile,
        "features": {"rank": np.arange(1, len(order) + 1), "attention": weight[order]},
        "text": {
            "string": "{rank}",
            "size": 11,
            "color": TOP_TILE_COLOUR,
            "anchor": "upper_left",
            "translation": (-0.05, 0.0),
        },
    }
    return [_frame(row, col) for row, col in index], options, "shapes"


def top_tiles(result: SlideResult, count: int) -> NDArray[np.int64]:
    """Positions in the table of the most attended tiles, first one first, (count,) int64; none without."""
    percentiles = tile_percentiles(result)
    if percentiles is None:
        return np.empty(0, np.int64)
    count = min(count, MOST_TOP_TILES, len(result.table))
    # Stable, so that ties keep the order of scoring and the same slide shows the same tiles.
    return np.argsort(-percentiles, kind="stable")[:count].astype(np.int64)


def tile_percentiles(result: SlideResult) -> NDArray[np.float32] | None:
    """Attention percentile in (0, 1] of each tile of the table, (N,) float32; None without attention."""
    ranks = attention_map(result, "percentile")
    if ranks is None:
        return None
    index = result.table.index
    return ranks.values[index[:, 0], index[:, 1]]


def corrupt_layer(result: SlideResult) -> LayerData | None:
    """Tiles that were left out because the file is damaged there; None where it is whole."""
    if not len(result.corrupt):
        return None
    image = np.zeros(result.grid.shape, np.uint8)
    image[result.corrupt[:, 0], result.corrupt[:, 1]] = 1
    options = _on_grid(result, "corrupt", f"{len(result.corrupt)} damaged tiles (left out)")
    return image, options | _flag_options(CORRUPT_COLOUR), "image"


def tiles_layer(result: SlideResult) -> LayerData:
    """Clear layer with one label a tile, whose numbers napari shows in the status bar."""
    table = result.table
    # 16 bits where they suffice: for wider labels napari compiles code first, which takes seconds.
    image = np.zeros(result.grid.shape, np.uint16 if len(table) < 2**16 else np.int32)
    image[table.index[:, 0], table.index[:, 1]] = np.arange(1, len(table) + 1)
    options = _on_grid(result, "tiles", "tile values")
    # Clear by its opacity: a colormap of clear colours costs napari seconds of compiling at first use.
    return image, options | {"features": tile_features(result), "opacity": 0.0}, "labels"


def tile_features(result: SlideResult) -> dict[str, NDArray[np.generic]]:
    """Columns of numbers of each tile; row 0 speaks for the background label.

    Returns
    -------
    mapping of str to (N + 1,) array
    """
    table = result.table

    def column(values: NDArray[np.floating], digits: int) -> NDArray[np.float64]:
        return np.concatenate([[np.nan], np.round(values.astype(np.float64), digits)])

    def small(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.concatenate([[np.nan], _significant(values.astype(np.float64))])

    columns: dict[str, NDArray[np.generic]] = {"index": np.arange(len(table) + 1)}
    if table.probabilities is not None:
        names = np.array([one_line(result.named(name)) for name in result.classes], object)[
            table.probabilities.argmax(axis=1)
        ]
        columns["score of the tile"] = np.concatenate([np.array([None], object), names])
        columns["probability"] = column(table.probabilities.max(axis=1), 3)
        if table.confidence is not None:
            columns["confidence (learnt)"] = column(table.confidence, 3)
        if table.attention is not None:
            columns["weight in the score"] = small(table.attention)
        return columns
    percentiles = tile_percentiles(result)
    if table.attention is not None and percentiles is not None:
        columns["attention percentile"] = column(100 * percentiles, 1)
        columns["attention weight"] = small(table.attention)
    if table.evidence is not None:
        for position, name in enumerate(result.classes):
            columns[f"evidence {one_line(result.named(name))}"] = small(table.evidence[:, position])
    for tile_map in result.maps:
        if tile_map.kind == "signed Grad-CAM" and tile_map.class_name is not None:
            values = tile_map.values[table.index[:, 0], table.index[:, 1]]
            columns[f"Grad-CAM {one_line(result.named(tile_map.class_name))}"] = small(values)
    return columns


def _significant(values: NDArray[np.float64], digits: int = 3) -> NDArray[np.float64]:
    """Round to so many digits that say something: shares of one tile in thousands are small."""
    with np.errstate(divide="ignore"):
        power = digits - 1 - np.floor(np.log10(np.abs(values)))
    factor = 10.0 ** np.where(np.isfinite(power), power, 0)
    return np.asarray(np.round(values * factor) / factor, np.float64)


def map_layer(
    result: SlideResult,
    role: OverlayRole,
    values: NDArray[np.float32],
    *,
    name: str,
    **options: Any,  # noqa: ANN401 - arguments of napari's Image
) -> LayerData:
    """Image of one value a tile, exactly over the tiles.

    Parameters
    ----------
    result : SlideResult
    role : str
    values : (rows, columns) float32
        NaN is shown clear.
    name : str
        Behind that of the slide.
    **options
        Arguments of napari's Image.
    """
    common = _on_grid(result, role, name)
    return values, common | {"rgb": False, "interpolation2d": "nearest"} | options, "image"


def _flag_options(colour: str) -> dict[str, Any]:
    """Look of an image that is 1 where something is so, and 0 elsewhere."""
    return {
        "rgb": False,
        "interpolation2d": "nearest",
        "contrast_limits": (0, 1),
        "colormap": flag_colormap(colour),
        "opacity": 1.0,
    }


def _on_grid(result: SlideResult, role: OverlayRole, name: str) -> dict[str, Any]:
    grid: TileGrid = result.grid
    return _common(result, role, name) | {"scale": grid.layer_scale, "translate": grid.layer_translate}


def _common(result: SlideResult, role: OverlayRole, name: str) -> dict[str, Any]:
    return {
        "name": one_line(f"{name} · {result.slide}"),
        "units": MICROMETRE,
        "axis_labels": AXES,
        "blending": "translucent",
        "metadata": {METADATA_KEY: OverlayTag(role, result.slide_id)},
    }


def _frame(row: int, col: int) -> NDArray[np.float64]:
    """Corners of a tile in map pixels, whose centres are at whole numbers."""
    top, left = row - 0.5, col - 0.5
    return np.array([[top, left], [top, left + 1], [top + 1, left + 1], [top + 1, left]])
