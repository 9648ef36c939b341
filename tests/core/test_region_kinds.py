"""Regions with names and kinds: what is excluded is left out everywhere, and a cell counts once."""

from __future__ import annotations

import gzip
import json
import time

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2.errors import JobFailed
from napari_her2.export.geojson import drawn_geojson, write_drawn_regions
from napari_her2.inference.regions import (
    KINDS,
    Region,
    as_regions,
    inside_mask,
    joined,
    kind_of_class,
    labelled,
    read_named_regions,
    read_regions,
    region_names,
    region_words,
    tiles_inside,
)
from napari_her2.slide.grid import TileGrid
from napari_her2_training.cohort.outlines import tumour_share

TUMOUR = shapely.box(0, 0, 1000, 1000)
DCIS = shapely.box(200, 200, 400, 400)
TENTHS = st.integers(0, 1000).map(lambda value: value / 10)
NAMES = ["Tumor", "tumour", "TUMOUR", "Invasive carcinoma", "Region*", "", "Tissue", "Tumor: Positive"]


def annotation(polygon, name=None, kind=None, **more):
    properties = {"objectType": "annotation"} | more
    if name is not None:
        properties["name"] = name
    if kind is not None:
        properties["classification"] = {"name": kind, "color": [200, 0, 0]}
    return {"type": "Feature", "geometry": shapely.geometry.mapping(polygon), "properties": properties}


def written(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


# -- which kind a class is


@pytest.mark.parametrize("name", NAMES)
def test_tumour_and_what_is_not_known_are_read(name):
    assert kind_of_class(name) == "tumour"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("DCIS", "dcis"),
        ("dcis", "dcis"),
        ("In situ", "dcis"),
        ("Necrosis", "necrosis"),
        (" necrosis ", "necrosis"),
        ("Necrosis: Negative", "necrosis"),
        ("Control", "control"),
        ("Control: 3+", "control"),
        ("on-slide_control", "control"),
        ("Fold", "fold"),
        ("Artefact", "fold"),
        ("Ignore*", "other"),
        ("Ignored by me", "other"),
        ("Stroma", "other"),
        ("Immune cells", "other"),
        ("Other", "other"),
    ],
)
def test_classes_that_are_no_tumour_are_excluded(name, kind):
    assert kind_of_class(name) == kind
    assert not KINDS[kind].included


def test_every_kind_reads_back_from_the_class_it_is_written_as():
    assert next(iter(KINDS)) == "tumour"
    assert {kind_of_class(kind.qupath_class) for kind in KINDS.values()} == set(KINDS)
    assert len({kind.colour for kind in KINDS.values()}) == len(KINDS)
    assert [kind.name for kind in KINDS.values() if kind.included] == ["tumour"]


def test_a_kind_that_is_none_is_refused():
    with pytest.raises(JobFailed, match="no kind of region: choose one of tumour, dcis"):
        Region(TUMOUR, "", "metastasis")


# -- files


def test_names_and_classes_are_read_as_qupath_writes_them(tmp_path):
    path = written(
        tmp_path / "r.geojson",
        annotation(TUMOUR, "main", "Tumor"),
        annotation(DCIS, None, "DCIS"),
        annotation(shapely.box(1, 1, 2, 2)),
        annotation(shapely.box(1, 1, 2, 2), "3+", None, classification={"names": ["Control", "weak"]}),
        annotation(shapely.box(1, 1, 2, 2), None, None, classification={"names": ["Control", "3+"]}),
        annotation(shapely.box(1, 1, 2, 2), None, None, classification={"name": "Necrosis", "colorRGB": -1}),
        annotation(shapely.box(1, 1, 2, 2), None, None, classification="Fold"),
        annotation(shapely.box(1, 1, 2, 2), None, "Lobular carcinoma"),
        annotation(shapely.box(1, 1, 2, 2), "in the duct", "Ignore*"),
        annotation(  # before 0.4
            shapely.box(1, 1, 2, 2),
            classification={"name": "3+", "colorRGB": -1, "parentClass": {"name": "Control"}},
        ),
    )
    assert [(region.name, region.kind) for region in read_named_regions(path)] == [
        ("main", "tumour"),
        ("", "dcis"),
        ("", "tumour"),
        ("3+", "control"),
        ("3+", "control"),
        ("", "necrosis"),
        ("", "fold"),
        ("Lobular carcinoma", "tumour"),
        ("in the duct", "other"),
        ("3+", "control"),
    ]


@pytest.mark.parametrize(
    "properties",
    [
        None,
        [],
        {"name": 5, "classification": 7},
        {"name": None, "classification": None},
        {"name": ["a"], "classification": {"name": {"a": 1}}},
        {"classification": {"names": [None, 3, []]}},
        {"classification": {"names": []}},
        {"classification": []},
    ],
)
def test_properties_that_make_no_sense_leave_a_tumour_region(tmp_path, properties):
    feature = {"type": "Feature", "geometry": shapely.geometry.mapping(TUMOUR), "properties": properties}
    (region,) = read_named_regions(written(tmp_path / "r.geojson", feature))
    assert (region.name, region.kind) == ("", "tumour")


def test_regions_drawn_across_themselves_are_written_valid(tmp_path):
    bow = Region(shapely.Polygon([(0, 0), (1000, 1000), (1000, 0), (0, 1000)]), "bow", "dcis")
    write_drawn_regions(tmp_path / "r.geojson", [Region(shapely.Polygon(), "nothing"), bow])
    (back,) = read_named_regions(tmp_path / "r.geojson")
    assert (back.name, back.kind, back.polygon.area) == ("bow", "dcis", 5e5)
    assert shapely.is_valid(shapely.from_geojson((tmp_path / "r.geojson").read_text()))


def test_names_are_short_and_can_be_shown(tmp_path):
    path = written(tmp_path / "r.geojson", annotation(TUMOUR, "\x1b[2J" + "x" * 5000, "Nec\nrosis"))
    (region,) = read_named_regions(path)
    assert region.name.isprintable()
    assert len(region.name) <= 120
    assert region.kind == "tumour"


def test_pieces_of_one_annotation_are_one_region(tmp_path):
    two = shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10)])
    path = written(tmp_path / "r.geojson", annotation(two, "a"), annotation(TUMOUR, "b"))
    regions = read_named_regions(path)
    assert [region.name for region in regions] == ["a", "b"]
    assert regions[0].polygon.area == 200
    assert sum(polygon.area for polygon in read_regions(path)) == 1_000_200


def test_written_regions_are_read_back_exactly(tmp_path):
    rng = np.random.default_rng(3)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 200))
    radius = rng.uniform(900, 1000, 200)
    outline = np.column_stack([5000 + radius * np.cos(angle), 5000 + radius * np.sin(angle)])
    regions = [
        Region(shapely.Polygon(outline, [outline[::-1] * 0.01 + 4950]), "Tumör, links", "tumour"),
        *(Region(shapely.box(n, 0, n + 0.1, 1 / 3), f"{n}", kind) for n, kind in enumerate(KINDS)),
        Region(shapely.MultiPolygon([TUMOUR, shapely.box(2000.1, 0, 2001, 1)]), "", "fold"),
    ]
    path = tmp_path / "regions.geojson"
    write_drawn_regions(path, regions)
    for source in (path, tmp_path / "regions.geojson.gz"):
        if source != path:
            source.write_bytes(gzip.compress(path.read_bytes()))
        back = read_named_regions(source)
        assert [(item.name, item.kind) for item in back] == [(item.name, item.kind) for item in regions]
        for one, other in zip(back, regions, strict=True):
            assert shapely.equals_identical(one.polygon, other.polygon)


def test_written_regions_have_the_keys_of_qupath():
    content = drawn_geojson([Region(TUMOUR, "", "other"), Region(DCIS, "in the duct", "dcis")])
    assert shapely.from_geojson(json.dumps(content)).area == TUMOUR.area + DCIS.area
    first, second = (feature["properties"] for feature in content["features"])
    assert first["objectType"] == second["objectType"] == "annotation"
    assert "name" not in first  # QuPath cannot read a name that is null
    assert second["name"] == "in the duct"
    assert first["classification"] == {"name": "Ignore*", "color": [180, 180, 180]}
    assert second["classification"]["name"] == "DCIS"


# -- what is read


def test_what_is_excluded_is_left_out_of_tiles_and_images():
    grid = TileGrid((1000, 1000), (0.5, 0.5), 100, 0.5)
    plain = tiles_inside([TUMOUR], grid)
    without = tiles_inside([TUMOUR, Region(DCIS, "", "dcis")], grid)
    assert plain.all()
    assert np.argwhere(plain & ~without).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    assert joined([Region(DCIS, "", "dcis"), TUMOUR]).area == 1e6 - 4e4
    mask = inside_mask([TUMOUR, Region(DCIS, "", "necrosis")], (10, 10), (100, 100))
    assert mask.sum() == 96


def test_a_file_excludes_as_the_same_regions_do(tmp_path):
    path = written(tmp_path / "r.geojson", annotation(TUMOUR, "t", "Tumor"), annotation(DCIS, "", "DCIS"))
    grid = TileGrid((1000, 1000), (0.5, 0.5), 100, 0.5)
    assert tiles_inside(path, grid).sum() == 96
    assert tumour_share(path, grid).sum() == pytest.approx(96)
    assert labelled(np.array([[300.0, 300.0], [500.0, 500.0]]), path).tolist() == [-1, 0]


def test_excluded_regions_alone_leave_all_the_rest():
    fold = Region(DCIS, "", "fold")
    grid = TileGrid((1000, 1000), (0.5, 0.5), 100, 0.5)
    assert tiles_inside([fold], grid).sum() == 96
    points = np.array([[300.0, 300.0], [500.0, 500.0], [1e7, -1e7]])
    assert labelled(points, [fold]).tolist() == [-1, 0, 0]
    assert region_names([fold]) == ()


def test_regions_without_tumour_are_no_outline_to_learn_from(tmp_path):
    path = written(tmp_path / "r.geojson", annotation(DCIS, "", "Necrosis"))
    with pytest.raises(JobFailed, match="no tumour"):
        tumour_share(path, TileGrid((1000, 1000), (0.5, 0.5), 100, 0.5))


def test_tumour_that_is_excluded_whole_is_empty():
    area = joined([TUMOUR, Region(shapely.box(-10, -10, 2000, 2000), "", "necrosis")])
    assert area.is_empty
    assert not inside_mask([TUMOUR, Region(TUMOUR, "", "fold")], (10, 10), (100, 100)).any()
    assert as_regions([]) == ()
    assert joined([]).is_empty


# -- the region of each point


def test_sixteen_regions_over_each_other_count_a_cell_once():
    rng = np.random.default_rng(1)
    regions = [
        Region(shapely.Point(rng.uniform(300, 700, 2)).buffer(rng.uniform(100, 300)), f"r{n}")
        for n in range(16)
    ]
    points = rng.uniform(0, 1000, (20_000, 2))
    found = labelled(points, regions)
    assert found.dtype == np.int16
    union = shapely.contains_xy(joined(regions), points[:, 1], points[:, 0])
    assert ((found >= 0) == union).all()
    assert sum(int((found == number).sum()) for number in range(16)) == union.sum()
    for number, region in enumerate(regions):  # the first that holds a point has it
        inside = shapely.contains_xy(region.polygon, points[:, 1], points[:, 0])
        before = shapely.union_all([held.polygon for held in regions[:number]])
        first = inside & ~shapely.contains_xy(before, points[:, 1], points[:, 0])
        assert ((found == number) == first).all()


def test_a_region_that_crosses_itself_holds_what_it_goes_around():
    bow = Region(shapely.Polygon([(0, 0), (1000, 1000), (1000, 0), (0, 1000)]), "bow")
    assert bow.area.area == 5e5
    points = np.array([[500.0, 100.0], [100.0, 500.0], [500.0, 900.0]])  # (y, x)
    assert labelled(points, [bow]).tolist() == [0, -1, 0]
    without = labelled(points, [TUMOUR, Region(bow.polygon, "", "necrosis")])
    assert without.tolist() == [-1, 0, -1]


def test_a_region_outside_the_slide_holds_no_point_and_keeps_its_number():
    away = Region(shapely.box(-9000, -9000, -8000, -8000), "away")
    assert labelled(np.array([[5.0, 5.0]]), [away, TUMOUR]).tolist() == [1]
    assert labelled(np.array([[5.0, 5.0]]), [away]).tolist() == [-1]
    assert labelled(np.zeros((0, 2)), [away]).shape == (0,)
    assert labelled(np.array([[5.0, 5.0]]), [Region(shapely.Polygon(), "empty"), TUMOUR]).tolist() == [1]


def test_a_point_on_the_border_of_two_regions_is_in_one():
    left, right = shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10)
    assert labelled(np.array([[5.0, 10.0]]), [left, right]).tolist() == [0]


def test_y_comes_before_x():
    wide = Region(shapely.box(0, 0, 100, 10))
    assert labelled(np.array([[5.0, 50.0], [50.0, 5.0]]), [wide]).tolist() == [0, -1]


def test_more_regions_than_numbers_are_refused():
    with pytest.raises(JobFailed, match="at most 32,767"):
        labelled(np.zeros((1, 2)), [TUMOUR] * 32_768)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(TENTHS, TENTHS), min_size=3, max_size=8),
            st.sampled_from(sorted(KINDS)),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 2**32 - 1),
)
def test_points_are_labelled_as_the_joined_regions_say(drawn, seed):
    regions = [Region(shapely.Polygon(points), "", kind) for points, kind in drawn]
    points = np.random.default_rng(seed).uniform(0.01, 99.99, (200, 2))
    area = joined(regions)
    near = shapely.distance(shapely.boundary(area), shapely.points(points[:, ::-1])) < 1e-6
    inside = shapely.contains_xy(area, points[:, 1], points[:, 0])
    found = labelled(points, regions)
    assert ((found >= 0) == inside)[~near].all()
    assert found.max() < max(1, len(region_names(regions)))


def test_half_a_million_points_are_labelled_fast():
    """An upper bound of twenty times what it takes: it falls when each region is asked for all points."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100_000, (500_000, 2))
    angle = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    ragged = [
        Region(shapely.Polygon(np.column_stack([y + r * np.cos(angle), x + r * np.sin(angle)])))
        for y, x in rng.uniform(0, 100_000, (16, 2))
        for r in [rng.uniform(8000, 10_000, 5000)]
    ]
    small = [Region(shapely.Point(place).buffer(50)) for place in rng.uniform(0, 100_000, (3000, 2))]
    start = time.process_time()
    labelled(points, [*ragged, *small])
    assert time.process_time() - start < 20


# -- what a result says


def test_a_result_says_what_was_excluded(tmp_path):
    dcis, fold, necrosis = (Region(DCIS, "", kind) for kind in ("dcis", "fold", "necrosis"))
    assert region_words(None) is None
    assert region_words([TUMOUR]) == "1 drawn region"
    assert region_words([TUMOUR, TUMOUR]) == "2 drawn regions"
    assert region_words([TUMOUR, dcis]) == "1 drawn region, without 1 excluded region (DCIS)"
    words = region_words([necrosis, TUMOUR, dcis, dcis])
    assert words == "1 drawn region, without 3 excluded regions (DCIS, necrosis)"
    assert region_words([fold]) == "all but 1 excluded region (fold)"
    path = written(tmp_path / "r.geojson", annotation(TUMOUR), annotation(DCIS, "", "Necrosis"))
    assert region_words(path) == "r.geojson, without 1 excluded region (necrosis)"
    path = written(tmp_path / "only.geojson", annotation(DCIS, "", "Necrosis"))
    assert region_words(path) == "all but 1 excluded region (necrosis) of only.geojson"


def test_regions_without_a_name_are_called_by_their_number():
    regions = [Region(TUMOUR), Region(DCIS, "x", "dcis"), Region(TUMOUR, "main"), Region(TUMOUR)]
    assert region_names(regions) == ("tumour 1", "main", "tumour 3")
