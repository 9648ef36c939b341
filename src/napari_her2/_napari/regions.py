"""Regions drawn in napari: their layer, and what they are in level-0 pixels of the slide."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.colormaps import REGION_COLOUR
from napari_her2._napari.layers import AXES
from napari_her2._napari.placement import place_of
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.region_kinds import CLOSED, PROPOSED, give_kinds, kinds_of, names_of
from napari_her2._napari.rings import polygon_of, ring_of
from napari_her2._napari.tags import METADATA_KEY, RegionTag, slide_tag, tag_of
from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Shapes
    from numpy.typing import NDArray

    from napari_her2.inference.regions import Region

OF_FILE = "of file"
"""Column of the features: what the file says of a region beyond kind and name."""
WIDTH_PX = 3.0
"""Of an outline on the screen, about."""
_WIDTH_OFF = 1.5
_ELLIPSE_CORNERS = 72
_FAR = 2.0**14  # of points that an affine is found by: far apart, so that no digits are lost


@dataclass(frozen=True, slots=True)
class FromFile:
    """What a file says of a region that napari does not show.

    Parameters
    ----------
    number : int
        Of the region in the file: a region of several parts is several shapes.
    kind, class_name, colour, locked
        As of `napari_her2.inference.regions.Region`.
    """

    number: int
    kind: str
    class_name: str
    colour: tuple[int, int, int] | None
    locked: bool

    @classmethod
    def of(cls, region: Region, number: int) -> FromFile:
        """Note what a region has."""
        return cls(number, region.kind, region.class_name, region.colour, region.locked)


def from_files(layer: Shapes) -> list[FromFile | None]:
    """Return what the file has of each shape; None of those that were drawn."""
    held = list(layer.features[OF_FILE]) if OF_FILE in layer.features.columns else []
    padded = (held + [None] * layer.nshapes)[: layer.nshapes]
    return [of if isinstance(of, FromFile) else None for of in padded]


def region_layers(viewer: ViewerModel, slide_id: str) -> list[Shapes]:
    """Shapes layers that may hold regions of a slide: those drawn for it, and the user's own."""
    found: list[Shapes] = []
    for layer in viewer.layers:
        tag = tag_of(layer)
        ours = isinstance(tag, RegionTag) and tag.slide_id == slide_id
        if type(layer).__name__ == "Shapes" and (ours or tag is None):
            found.append(layer)
    return found


def add_region_layer(viewer: ViewerModel, slide_layer: Image) -> Shapes:
    """Add a layer to draw in, on the slide's own pixels, and start drawing.

    napari's own "new labels" would take the full resolution of the slide, gigabytes of it.
    """
    layer = _add_layer(viewer, slide_layer, f"regions · {slide_layer.name}")
    layer.mode = "add_polygon"
    return layer


def show_regions(
    viewer: ViewerModel,
    slide_layer: Image,
    regions: Sequence[Region],
    *,
    name: str = "",
    proposed: bool = False,
) -> Shapes:
    """Add a layer of regions that come from elsewhere, to be looked at and changed.

    Parameters
    ----------
    viewer : ViewerModel
    slide_layer : Image
    regions : sequence of Region
        On the slide of the layer.
    name : str
        Of the layer; by default that of any other layer of regions.
    proposed : bool
        Whether they count for nothing until a person accepts them.
    """
    layer = _add_layer(viewer, slide_layer, name or f"regions · {slide_layer.name}")
    # napari counts from the centre of the first pixel, and (y, x).
    drawn = [
        (ring_of(part)[:, ::-1] - 0.5, of, number)
        for number, of in enumerate(regions)
        for part in _parts(of.area)
    ]
    if drawn:
        with layer.block_thumbnail_update():
            layer.add([ring for ring, _, _ in drawn], shape_type="polygon")
        layer.features = {
            "kind": np.array([PROPOSED if proposed else of.kind for _, of, _ in drawn], object),
            "name": np.array([of.name for _, of, _ in drawn], object),
            OF_FILE: np.array([FromFile.of(of, number) for _, of, number in drawn], object),
        }
        give_kinds(layer)
        layer.selected_data = set()
    layer.mode = "pan_zoom"
    return layer


def add_region(layer: Shapes, region: Region) -> None:
    """Add a region to a layer of the slide that it is of; it is of the kind that is drawn next.

    Parameters
    ----------
    layer : Shapes
        With the slide's own pixels as its data, as `add_region_layer` makes it.
    region : Region
    """
    rings = [ring_of(part)[:, ::-1] - 0.5 for part in _parts(region.area)]
    with layer.block_thumbnail_update():
        layer.add(rings, shape_type="polygon")
    give_kinds(layer)


def drawn_regions(layer: Shapes, slide_layer: Image) -> list[Region]:
    """Regions of a layer, those that are left out among them; of a layer without kinds all are tumour.

    Parameters
    ----------
    layer : Shapes
    slide_layer : Image

    Returns
    -------
    list of Region
        In level-0 pixels. What is only proposed is not there.

    Raises
    ------
    JobFailed
        If the layer holds no closed shape, or nothing but proposals.
    """
    outlines = _outlines(layer, slide_layer)
    if not outlines:
        raise JobFailed(
            f'The layer "{layer.name}" holds no closed region: draw one, or choose the whole slide.'
        )
    kinds, names, held = kinds_of(layer), names_of(layer), from_files(layer)
    counted = [(number, outline) for number, outline in outlines if kinds[number] != PROPOSED]
    if not counted:
        raise JobFailed(
            f'The regions of the layer "{layer.name}" are only proposed: check them, then accept them under '
            f"Region, or choose another layer."
        )
    regions: dict[object, list[Any]] = {}
    for number, outline in counted:
        known = held[number]
        # Parts of one region of a file are one again, as long as nothing else was made of one of them.
        key = (kinds[number], known.number) if known is not None else number
        regions.setdefault(key, []).append((number, polygon_of(outline[:, ::-1])))
    return [_joined(parts, kinds, names, held) for parts in regions.values()]


def _joined(
    parts: list[Any], kinds: Sequence[str], names: Sequence[str], held: Sequence[FromFile | None]
) -> Region:
    """Region of the shapes that are parts of it, as (number, polygon)."""
    import shapely

    from napari_her2.inference.regions import Region

    number, known = parts[0][0], held[parts[0][0]]
    area = parts[0][1]
    if len(parts) > 1:
        each = [piece for _, part in parts for piece in shapely.get_parts(part)]
        area = shapely.multipolygons(each)
        area = area if area.is_valid else shapely.union_all(each)
    if known is None or known.kind != kinds[number]:
        return Region(area, names[number], kinds[number])
    return Region(area, names[number], kinds[number], known.class_name, known.colour, known.locked)


def ellipse_outline(corners: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points on an ellipse that napari keeps as the corners of the box around it, (72, 2) float64."""
    corners = np.asarray(corners, np.float64)
    centre = corners.mean(axis=0)
    half_a, half_b = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)[:, None]
    outline: NDArray[np.float64] = centre + np.cos(angle) * half_a + np.sin(angle) * half_b
    return outline


def _add_layer(viewer: ViewerModel, slide_layer: Image, name: str) -> Shapes:
    tag = slide_tag(slide_layer)
    layer = viewer.add_shapes(
        name=one_line(name),
        ndim=2,
        scale=slide_layer.scale,
        units=slide_layer.units,
        affine=place_of(slide_layer),
        axis_labels=AXES,
        edge_color=REGION_COLOUR,
        face_color="transparent",
        edge_width=_width(viewer, slide_layer),
        opacity=1.0,
        metadata={METADATA_KEY: RegionTag(tag.slide_id)} if tag is not None else {},
    )
    give_kinds(layer)
    viewer.layers.selection.active = layer
    _follow_zoom(viewer, layer)
    return layer


def _width(viewer: ViewerModel, layer: Layer) -> float:
    """Width of outlines that are as thin on the screen at every zoom, in pixels of a layer."""
    return WIDTH_PX / (max(float(viewer.scene.camera.zoom), 1e-9) * float(np.asarray(layer.scale)[-1]))


def _follow_zoom(viewer: ViewerModel, layer: Shapes) -> None:
    """Keep outlines as wide on the screen, as long as the layer is there.

    Only where the width is off by a half: napari makes every outline anew, which takes time where there are
    many, and a wheel turns in small steps.
    """
    held = weakref.ref(layer)

    def on_zoom(event: object = None) -> None:
        shapes = held()
        if shapes is None or shapes not in viewer.layers:
            viewer.scene.camera.events.zoom.disconnect(on_zoom)
            return
        wanted = _width(viewer, shapes)
        if not 1 / _WIDTH_OFF < shapes.current_edge_width / wanted < _WIDTH_OFF:
            shapes.current_edge_width = wanted
            if shapes.nshapes:
                shapes.edge_width = wanted

    viewer.scene.camera.events.zoom.connect(on_zoom)


def _outlines(layer: Layer, slide_layer: Image) -> list[tuple[int, NDArray[np.float64]]]:
    """Return the number of each closed shape, and its outline as `outlines_px0` has it."""
    outlines = []
    matrix, shift = to_slide(layer, slide_layer)
    for number, (corners, kind) in enumerate(zip(layer.data, layer.shape_type, strict=True)):
        if kind in CLOSED:
            points = ellipse_outline(corners) if kind == "ellipse" else np.asarray(corners, np.float64)
            # napari counts from the centre of the first pixel.
            outlines.append((number, points[:, -2:] @ matrix.T + shift + 0.5))
    return outlines


def to_slide(layer: Layer, slide_layer: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From the data of a layer to that of the slide: both lie by affines.

    Parameters
    ----------
    layer : Layer
    slide_layer : Image

    Returns
    -------
    (2, 2) and (2,) float64
        Matrix and shift of (y, x).
    """
    far = np.pad(_FAR * np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]), ((0, 0), (layer.ndim - 2, 0)))
    there = np.array([slide_layer.world_to_data(layer.data_to_world(point))[-2:] for point in far])
    return (there[1:] - there[0]).T / _FAR, there[0]


def _parts(area: Any) -> list[Any]:  # noqa: ANN401 - a shapely geometry
    import shapely

    return [part for part in shapely.get_parts(area) if part.geom_type == "Polygon" and part.area > 0]
