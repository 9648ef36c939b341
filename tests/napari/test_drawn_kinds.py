"""Kinds and names of drawn regions, and their way between napari, the scoring and files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers.shapes._shapes_mouse_bindings import finish_drawing_shape, initiate_polygon_draw

from napari_her2._napari.colormaps import REGION_COLOUR
from napari_her2._napari.layers import slide_layer
from napari_her2._napari.region_files import loading_regions, saving_regions
from napari_her2._napari.region_kinds import (
    CHOICES,
    PROPOSED,
    accept,
    drawn_next,
    give_kinds,
    kinds_of,
    names_of,
    set_kind,
    set_name,
    summary,
)
from napari_her2._napari.regions import add_region_layer, drawn_regions, show_regions
from napari_her2._napari.rings import polygon_of, ring_of
from napari_her2.errors import JobFailed
from napari_her2.inference.regions import KINDS, Region, inside_mask, joined
from napari_her2.steps import finished
from scored import make_slide

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Image, Shapes

TUMOUR_RGB = tuple(bytes.fromhex(REGION_COLOUR[1:]))
SQUARE = np.array([[10, 20], [10, 60], [50, 60], [50, 20]], float)  # (y, x)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def slide(viewer: ViewerModel) -> Image:
    data, options, _ = slide_layer(make_slide())
    return viewer.add_image(data, **options)


@pytest.fixture
def layer(viewer: ViewerModel, slide: Image) -> Shapes:
    layer = add_region_layer(viewer, slide)
    layer.mode = "pan_zoom"
    return layer


def draw(layer: Shapes, shift: float = 0) -> None:
    layer.add(SQUARE + shift, shape_type="polygon")


@pytest.mark.parametrize("zoom", [0.01, 0.4, 30.0])
def test_outlines_stay_as_wide_on_the_screen(zoom: float, viewer: ViewerModel, layer: Shapes) -> None:
    """Also where two slides lie side by side, and a slide takes half of the screen."""
    draw(layer)
    viewer.scene.camera.zoom = zoom
    draw(layer, 100)
    on_screen = np.array(layer.edge_width) * layer.scale[-1] * zoom
    assert ((on_screen > 1.9) & (on_screen < 4.6)).all()
    assert np.ptp(on_screen) == 0
    viewer.layers.remove(layer)
    viewer.scene.camera.zoom = 7 * zoom  # nothing is left to follow
    assert np.array(layer.edge_width)[0] * layer.scale[-1] * zoom == on_screen[0]


def text_of(layer: Shapes) -> list[str]:
    return [str(value) for value in layer.text.values]


def colours(layer: Shapes) -> list[tuple[int, ...]]:
    return [tuple(int(part) for part in np.rint(rgba[:3] * 255)) for rgba in layer.edge_color]


def test_what_is_drawn_next_is_of_the_chosen_kind_and_gets_a_name(layer: Shapes) -> None:
    for kind, name in (("tumour", ""), ("dcis", ""), ("control", "3+"), ("control", "0"), ("tumour", "")):
        set_kind(layer, kind, name)
        assert drawn_next(layer) == (kind, name)
        draw(layer)
    assert kinds_of(layer) == ["tumour", "dcis", "control", "control", "tumour"]
    assert names_of(layer) == ["tumour 1", "DCIS 1", "3+", "0", "tumour 2"]
    assert text_of(layer) == ["tumour 1", "DCIS 1", "control tissue: 3+", "control tissue: 0", "tumour 2"]
    assert colours(layer)[1] == KINDS["dcis"].colour
    assert [fill > 0 for fill in layer.face_color[:, 3]] == [False, True, True, True, False]
    assert summary(layer) == "2 tumour regions; left out: 1 DCIS, 2 control tissue"


def test_kind_and_name_of_what_is_selected_change_and_those_of_others_stay(layer: Shapes) -> None:
    for _ in range(3):
        draw(layer)
    set_name(layer, "left lobe", [2])
    set_kind(layer, "necrosis", chosen=[0, 2])
    assert kinds_of(layer) == ["necrosis", "tumour", "necrosis"]
    assert names_of(layer) == ["necrosis 1", "tumour 2", "left lobe"]  # a name that a person gave stays
    assert colours(layer)[0] == colours(layer)[2] == KINDS["necrosis"].colour
    assert drawn_next(layer) == ("tumour", "")
    set_name(layer, "", [2])
    assert names_of(layer)[2] == "necrosis 2"


def test_colours_and_words_follow_the_table_of_napari(layer: Shapes) -> None:
    draw(layer)
    draw(layer)
    table = layer.features.copy()
    table.loc[1, "kind"] = "Necrosis"  # as a person types it
    layer.features = table
    assert drawn_next(layer) == ("tumour", "")  # napari alone would take kind and name of the last row
    assert kinds_of(layer) == ["tumour", "necrosis"]
    assert list(layer.features["kind"]) == ["tumour", "necrosis"]
    assert text_of(layer)[1] == "necrosis 1"
    layer.remove([0])
    assert text_of(layer) == ["necrosis 1"]
    assert colours(layer) == [KINDS["necrosis"].colour]


@pytest.mark.parametrize("kind", ["tumour", "dcis"])
def test_a_shape_that_is_given_up_while_drawing_leaves_nothing(layer: Shapes, kind: str) -> None:
    draw(layer)
    set_kind(layer, kind)
    layer.mode = "add_polygon"
    initiate_polygon_draw(layer, (5.0, 5.0))
    assert len(layer.features) == 2
    finish_drawing_shape(layer, None)  # a double click at once
    assert len(layer.features) == layer.nshapes == 1
    draw(layer)
    assert kinds_of(layer) == ["tumour", kind]
    assert names_of(layer)[1] == ("tumour 2" if kind == "tumour" else "DCIS 1")
    assert len(layer.features) == len(text_of(layer)) == 2
    wanted = TUMOUR_RGB if kind == "tumour" else KINDS["dcis"].colour
    assert colours(layer)[:2] == [TUMOUR_RGB, wanted]


def test_lines_count_as_no_region(layer: Shapes) -> None:
    draw(layer)
    layer.mode = "add_polygon"
    initiate_polygon_draw(layer, (5.0, 5.0))
    layer.mode = "pan_zoom"  # napari leaves a line of two points
    assert layer.nshapes == 2
    assert summary(layer) == "1 tumour region"


def test_other_columns_of_the_users_stay(viewer: ViewerModel) -> None:
    layer = viewer.add_shapes([SQUARE], shape_type="polygon", features={"reader": ["B"], "size": [3.5]})
    set_kind(layer, "fold", chosen=[0])
    draw(layer)
    assert list(layer.features["reader"]) == ["B", "B"]
    assert layer.features["size"].iloc[0] == 3.5
    assert kinds_of(layer) == ["fold", "tumour"]


def test_a_layer_without_kinds_is_tumour(viewer: ViewerModel, slide: Image) -> None:
    layer = viewer.add_shapes([SQUARE], shape_type="polygon", scale=slide.scale)
    (region,) = drawn_regions(layer, slide)
    assert (region.kind, region.included, region.name) == ("tumour", True, "")
    assert "kind" not in layer.features.columns  # and is not touched


def test_regions_go_to_a_scoring_with_their_kinds(layer: Shapes, slide: Image) -> None:
    # napari counts from the centres of pixels: whole pixels end at halves.
    layer.add(np.array([[10, 20], [10, 120], [90, 120], [90, 20]]) - 0.5, shape_type="polygon")
    set_kind(layer, "dcis")
    layer.add(np.array([[30, 40], [30, 80], [60, 80], [60, 40]]) - 0.5, shape_type="rectangle")
    set_kind(layer, "tumour")
    layer.add(np.array([[200, 200], [230, 260]]), shape_type="line")  # encloses nothing
    regions = drawn_regions(layer, slide)
    assert [(region.kind, region.name) for region in regions] == [("tumour", "tumour 1"), ("dcis", "DCIS 1")]
    mask = inside_mask(regions, (400, 600), (1.0, 1.0))
    assert mask.sum() == 80 * 100 - 30 * 40
    assert not mask[45, 60]
    assert mask[20, 30]


def test_proposals_count_for_nothing_until_they_are_accepted(viewer: ViewerModel, slide: Image) -> None:
    proposed = [Region(shapely.box(20, 20, 90, 60)), Region(shapely.box(100, 20, 150, 60))]
    layer = show_regions(viewer, slide, proposed, name="proposed", proposed=True)
    assert kinds_of(layer) == [PROPOSED] * 2
    assert text_of(layer) == ["proposed 1", "proposed 2"]
    with pytest.raises(JobFailed, match="only proposed"):
        drawn_regions(layer, slide)
    set_kind(layer, "tumour", chosen=[1])  # one of them, by hand
    (region,) = drawn_regions(layer, slide)
    assert region.polygon.bounds == pytest.approx((100, 20, 150, 60))
    assert accept(layer) == 1
    assert accept(layer) == 0
    layer.add(SQUARE + 200, shape_type="polygon")
    assert (kinds_of(layer)[2], names_of(layer)[2]) == ("tumour", "tumour 3")
    layer.remove([2])
    assert [region.name for region in drawn_regions(layer, slide)] == ["tumour 2", "tumour 1"]


def test_every_choice_names_a_kind() -> None:
    assert {kind for kind, _ in CHOICES} == set(KINDS)
    assert [name for kind, name in CHOICES if kind == "control"] == ["3+", "1+", "0"]


def test_regions_of_a_slide_that_lies_elsewhere_come_back_as_they_were(viewer: ViewerModel) -> None:
    data, options, _ = slide_layer(make_slide())
    slide = viewer.add_image(data, **options)
    slide.rotate, slide.translate = 25.0, (400.0, -90.0)
    with_hole = shapely.box(50, 50, 150, 120) - shapely.box(70, 70, 90, 100) - shapely.box(110, 60, 130, 90)
    given = [Region(with_hole, "A", "tumour"), Region(shapely.box(70, 70, 90, 100), "B", "necrosis")]
    back = drawn_regions(show_regions(viewer, slide, given), slide)
    assert [(region.name, region.kind) for region in back] == [("A", "tumour"), ("B", "necrosis")]
    for before, after in zip(given, back, strict=True):
        assert before.area.symmetric_difference(after.area).area < 1e-6


def test_a_file_of_regions_goes_there_and_back(viewer: ViewerModel, slide: Image, tmp_path: Path) -> None:
    given = [
        Region(shapely.box(50, 50, 150, 120) - shapely.box(70, 70, 90, 100), "Tumour <A>", "tumour"),
        Region(shapely.box(200, 50, 260, 90), "3+", "control"),
        Region(shapely.box(300, 50, 360, 90), "", "other"),
    ]
    layer = show_regions(viewer, slide, given)
    path = finished(saving_regions(drawn_regions(layer, slide), tmp_path / "regions.geojson"), None)
    # As QuPath reads it: by an independent parser.
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert [of["properties"]["classification"]["name"] for of in features] == ["Tumor", "Control", "Ignore*"]
    assert [of["properties"]["name"] for of in features] == ["Tumour <A>", "3+", "other 1"]
    assert [shapely.geometry.shape(of["geometry"]).area for of in features] == pytest.approx(
        [7000 - 600, 2400, 2400]
    )
    name, regions = finished(loading_regions(path), None)
    assert name == "regions · regions.geojson"
    again = drawn_regions(show_regions(viewer, slide, regions, name=name), slide)
    assert [region.kind for region in again] == ["tumour", "control", "other"]
    assert joined(again).symmetric_difference(joined(given)).area < 1e-6


def test_a_name_of_a_file_is_one_line_and_no_format(viewer: ViewerModel, slide: Image) -> None:
    layer = show_regions(viewer, slide, [Region(shapely.box(0, 0, 9, 9), "a\u202eb\nsecond {kind}")])
    assert text_of(layer) == ["tumour: a\ufffdb second {kind}"]


def test_a_copy_that_napari_makes_of_a_layer_keeps_its_kinds(layer: Shapes) -> None:
    set_kind(layer, "dcis")
    draw(layer)
    copy = type(layer).create(*layer.as_layer_data_tuple())
    give_kinds(copy)
    assert kinds_of(copy) == ["dcis"]
    set_kind(copy, "fold", chosen=[0])
    assert kinds_of(layer) == ["dcis"]


@st.composite
def _holed(draw: st.DrawFn) -> shapely.Polygon:
    """A disc with holes anywhere in it, some of them running into one another."""
    polygon = shapely.Point(0, 0).buffer(100, 8)
    places = draw(
        st.lists(st.tuples(st.integers(-70, 70), st.integers(-70, 70), st.integers(3, 20)), max_size=7)
    )
    for x, y, radius in places:
        polygon = polygon - shapely.Point(x, y).buffer(radius, 4)
    return max(shapely.get_parts(polygon), key=lambda part: part.area)


@settings(max_examples=60, deadline=None)
@given(_holed())
def test_a_polygon_with_holes_is_one_ring_and_back(polygon: shapely.Polygon) -> None:
    ring = ring_of(polygon)
    assert polygon_of(ring).symmetric_difference(polygon).area < 1e-6 * polygon.area
    # napari fills what the signed area of the ring says: bridges there and back cancel.
    x, y = ring.T
    signed = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
    assert signed == pytest.approx(polygon.area)
    corners = {tuple(corner) for corner in shapely.get_coordinates(polygon)}
    assert corners <= {tuple(corner) for corner in ring}
