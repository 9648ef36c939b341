"""Slides and overlays as napari layer data: pure functions, tested without a window.

There is one function for each geometry, and none for a kind of overlay: how one is called, coloured and
placed among the others stands in its description.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from napari_her2._napari.colormaps import colormap_of
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.tags import METADATA_KEY, OverlayTag, SlideTag
from napari_her2.explain.geometries import Frames, Outline, PlacedImage, TileValues
from napari_her2.explain.maps import TileMap, limits_of, tile_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from napari_her2.explain.overlays import Drawing, Overlay, OverlayInfo, OwnDrawing
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.reader import Slide

# napari's own form: data, keyword arguments of the layer, layer type.
LayerData: TypeAlias = tuple[Any, dict[str, Any], str]

AXES = ("y", "x")
MICROMETRE = ("um", "um")
PIXEL = ("pixel", "pixel")


@dataclass(frozen=True, slots=True)
class OverlayLook:
    """How a result is shown.

    Parameters
    ----------
    class_names, scales : mapping of str to str
        Kind of an overlay to the class, or the scale, that was chosen for it. Without a choice that is the
        predicted class, and the first scale.
    opacity : float
        Of the maps, in [0, 1].
    top_tiles : int
        How many of the first tiles are outlined.
    """

    class_names: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, str] = field(default_factory=dict)
    opacity: float = 0.6
    top_tiles: int = 12


@dataclass(frozen=True, slots=True)
class Over:
    """The slide that something is drawn over.

    Parameters
    ----------
    name, slide_id : str
    mpp : tuple of float
        (y, x) µm per level-0 pixel.
    named : callable
        How a class is called.
    """

    name: str
    slide_id: str
    mpp: tuple[float, float]
    named: Callable[[str], str] = str

    @classmethod
    def slide_of(cls, result: SlideResult) -> Over:
        """Return the first slide of a result; what lies over one whose answer is withheld says so."""
        name = f"{result.slide} · answer withheld" if result.doubt.withheld else result.slide
        return cls(name, result.slide_id, result.grid.slide_mpp, result.named)


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
        slide.display(),
        {
            "name": one_line(slide.name),
            "rgb": True,
            "multiscale": True,
            "scale": slide.mpp or (1.0, 1.0),
            "units": MICROMETRE if known else PIXEL,
            "axis_labels": AXES,
            # The arrays keep what was shown last, and take it with them; napari's own cache outlives its
            # layers (`napari_her2.slide.display`).
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


def chosen_drawing(overlay: Overlay, result: SlideResult, look: OverlayLook) -> Drawing:
    """Return what is shown of an overlay: of the chosen class and scale."""
    kind = overlay.kind
    return overlay.chosen(look.class_names.get(kind, result.score), look.scales.get(kind))


def result_layers(result: SlideResult, look: OverlayLook) -> list[LayerData]:
    """All overlays of a result that are drawn without being asked for, lowest first.

    Parameters
    ----------
    result : SlideResult
    look : OverlayLook

    Returns
    -------
    list of LayerData
    """
    over = Over.slide_of(result)
    return [draw(chosen_drawing(overlay, result, look), over, look) for overlay in drawn_from_below(result)]


def drawn_from_below(result: SlideResult) -> list[Overlay]:
    """Overlays of a result that are drawn without being asked for, lowest first."""
    drawn = [overlay for overlay in result.overlays if not overlay.info.on_request]
    return sorted(drawn, key=lambda overlay: (overlay.info.depth, -overlay.info.order))


@singledispatch
def draw(drawing: Drawing, over: Over, look: OverlayLook) -> LayerData:
    """Make layer data of a drawing; a geometry that is none of ours brings its own.

    Parameters
    ----------
    drawing : Drawing
    over : Over
    look : OverlayLook

    Returns
    -------
    LayerData
    """
    values, options, kind = cast("OwnDrawing", drawing).layer_data(over.mpp)
    info = drawing.info
    shown = {"opacity": look.opacity if info.is_map else 1.0, "visible": info.visible}
    return values, common_options(drawing, over) | shown | options, kind


@draw.register(TileMap)
def draw_map(drawing: TileMap, over: Over, look: OverlayLook) -> LayerData:
    """Image of one value a tile, exactly over the tiles; clear where there is no value."""
    options = common_options(drawing, over, count=int(np.isfinite(drawing.values).sum()))
    options |= {"scale": drawing.grid.layer_scale, "translate": drawing.grid.layer_translate}
    return drawing.values, options | _colours(drawing.info, drawing.values, look), "image"


@draw.register(Outline)
def draw_outline(drawing: Outline, over: Over, look: OverlayLook) -> LayerData:
    """Image of the pixels at the edge of a mask, each over the pixels of the slide that it stands for."""
    from scipy.ndimage import binary_erosion

    mask = drawing.mask
    outline = mask.mask & ~binary_erosion(mask.mask, border_value=1)
    options = common_options(drawing, over) | _place((0.0, 0.0), mask.downsample, over)
    return outline.astype(np.uint8), options | _colours(drawing.info, outline, look), "image"


@draw.register(Frames)
def draw_frames(drawing: Frames, over: Over, look: OverlayLook) -> LayerData:
    """Frames around tiles as shapes, numbered from the first."""
    order, grid = drawing.first(look.top_tiles), drawing.ranks.grid
    noun = drawing.ranking.noun
    options = common_options(drawing, over, count=len(order))
    options |= {
        "scale": grid.layer_scale,
        "translate": grid.layer_translate,
        "shape_type": "rectangle",
        "edge_color": drawing.info.colours,
        "face_color": "transparent",
        "edge_width": 0.07 if drawing.info.visible else 0.02,
        "opacity": 1.0,
        "visible": drawing.info.visible,
        "features": {"rank": np.arange(1, len(order) + 1), noun: drawing.ranks.at(drawing.index[order])},
        "text": {
            "string": "{rank}",
            "size": 11,
            "color": drawing.info.colours,
            "anchor": "upper_left",
            "translation": (-0.05, 0.0),
        },
    }
    return [_frame(row, col) for row, col in drawing.index[order]], options, "shapes"


@draw.register(TileValues)
def draw_values(drawing: TileValues, over: Over, look: OverlayLook) -> LayerData:
    """Clear layer with one label a tile, whose numbers napari shows in the status bar."""
    index, grid = drawing.index, drawing.grid
    # 16 bits where they suffice: for wider labels napari compiles code first, which takes seconds.
    image = np.zeros(grid.shape, np.uint16 if len(index) < 2**16 else np.int32)
    image[index[:, 0], index[:, 1]] = np.arange(1, len(index) + 1)
    options = common_options(drawing, over)
    options |= {"scale": grid.layer_scale, "translate": grid.layer_translate}
    # Clear by its opacity: a colormap of clear colours costs napari seconds of compiling at first use.
    return image, options | {"features": tile_features(drawing, over.named), "opacity": 0.0}, "labels"


@draw.register(PlacedImage)
def draw_image(drawing: PlacedImage, over: Over, look: OverlayLook) -> LayerData:
    """Image with pixels of any size at any place of the slide."""
    options = common_options(drawing, over, detail=drawing.detail)
    options |= _place(drawing.origin_px0, drawing.pixel_px0, over)
    if drawing.info.is_map:
        return drawing.values, options | _colours(drawing.info, drawing.values, look), "image"
    return drawing.values, options | {"rgb": True, "interpolation2d": "nearest"}, "image"


def tile_features(drawing: TileValues, named: Callable[[str], str] = str) -> dict[str, NDArray[np.generic]]:
    """Columns of numbers of each tile; row 0 is for the background label.

    Returns
    -------
    mapping of str to (N + 1,) array
    """
    columns: dict[str, NDArray[np.generic]] = {"index": np.arange(len(drawing.index) + 1)}
    found = tile_columns(
        drawing.maps, drawing.index, lambda info: info.hover, lambda name: one_line(named(name))
    )
    for of in found:
        if of.categories:
            # The last name stands for the background, and for tiles without a value.
            names = np.array([*(one_line(named(name)) for name in of.categories), None], object)
            numbers = np.where(np.isfinite(of.values), of.values, -1).astype(np.int64)
            columns[of.name] = names[np.concatenate([[-1], numbers])]
        else:
            columns[of.name] = np.concatenate([[np.nan], of.column.rounded(of.values)])
    return columns


def common_options(drawing: Drawing, over: Over, count: int = 0, detail: str = "") -> dict[str, Any]:
    """Options that every layer over a slide has.

    Parameters
    ----------
    drawing : Drawing
    over : Over
    count, detail
        What the name of the layer tells beside the class.
    """
    named = "" if drawing.class_name is None else over.named(drawing.class_name)
    name = drawing.info.layer_name.format(class_name=named, count=count, detail=detail)
    return {
        "name": one_line(f"{name} · {over.name}"),
        "units": MICROMETRE,
        "axis_labels": AXES,
        "blending": "translucent",
        "metadata": {METADATA_KEY: OverlayTag(drawing.info.kind, over.slide_id, drawing.info)},
    }


def _colours(info: OverlayInfo, values: NDArray[np.generic], look: OverlayLook) -> dict[str, Any]:
    """Options of an image of values."""
    return {
        "rgb": False,
        "interpolation2d": "nearest",
        "colormap": colormap_of(info),
        "contrast_limits": limits_of(np.asarray(values, np.float32), info.limits) if info.is_map else (0, 1),
        "opacity": look.opacity if info.is_map else 1.0,
        "visible": info.visible,
    }


def _place(origin_px0: tuple[float, float], pixel_px0: tuple[float, float], over: Over) -> dict[str, Any]:
    """Scale and place, µm, of an image whose pixels are ``pixel_px0`` level-0 pixels large."""
    pixel, origin, mpp = np.asarray(pixel_px0), np.asarray(origin_px0), np.asarray(over.mpp)
    # The centre of a pixel lies half a pixel, less half a slide pixel, from its corner.
    return {"scale": tuple(pixel * mpp), "translate": tuple((origin + (pixel - 1) / 2) * mpp)}


def _frame(row: int, col: int) -> NDArray[np.float64]:
    """Corners of a tile in map pixels, whose centres are at whole numbers."""
    top, left = row - 0.5, col - 0.5
    return np.array([[top, left], [top, left + 1], [top + 1, left + 1], [top + 1, left]])
