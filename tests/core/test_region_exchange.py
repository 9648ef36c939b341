"""Regions as QuPath, ImageScope and NDP.view have them: places by hand, and files that are no regions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import shape

from napari_her2 import open_slide
from napari_her2.errors import JobFailed
from napari_her2.export.geojson import drawn_geojson, regions_geojson, write_drawn_regions
from napari_her2.export.tables import result_values
from napari_her2.inference.region_files import read_named_regions
from napari_her2.inference.region_frame import RegionFrame
from napari_her2.inference.regions import FileRegions, Region, placed, region_words
from napari_her2.slide.frame import SlideFrame, frame_of
from scored import make_result, make_slide, make_tissue

MRXS = {"openslide.bounds-x": "1200", "openslide.bounds-y": "340", "openslide.vendor": "mirax"}
NDPI = {"hamamatsu.XOffsetFromSlideCentre": "1000000", "hamamatsu.YOffsetFromSlideCentre": "-500000"}


def qupath(*features) -> dict:
    return {"type": "FeatureCollection", "features": list(features)}


def annotation(geometry, **properties) -> dict:
    return {"type": "Feature", "geometry": shapely.geometry.mapping(geometry), "properties": properties}


RING = shapely.Polygon([(0, 0), (90, 0), (90, 90), (0, 90)], [[(20, 20), (20, 40), (40, 40), (40, 20)]])
TWO = shapely.MultiPolygon([shapely.box(200, 0, 240, 50), shapely.box(300, 10, 350, 60)])


def test_what_qupath_says_of_an_annotation_comes_back(tmp_path) -> None:
    """Class, colour, name, lock, holes and parts; read by json and shapely, not by us."""
    given_file = qupath(
        annotation(
            RING,
            objectType="annotation",
            name="A 1",
            classification={"name": "Lobular carcinoma", "color": [12, 34, 56]},
            isLocked=True,
        ),
        annotation(TWO, classification={"name": "Necrosis", "color": [50, 50, 50]}),
    )
    path = tmp_path / "from qupath.geojson"
    path.write_text(json.dumps(given_file))
    regions = read_named_regions(path)
    write_drawn_regions(tmp_path / "back.geojson", regions)
    written = json.loads((tmp_path / "back.geojson").read_text())["features"]
    for feature, wanted in zip(written, given_file["features"], strict=True):
        assert shapely.equals_exact(
            shape(feature["geometry"]).normalize(), shape(wanted["geometry"]).normalize(), 0
        )
        assert feature["geometry"]["type"] == wanted["geometry"]["type"]
        assert feature["properties"]["classification"] == wanted["properties"]["classification"]
        for name in ("name", "isLocked"):
            assert feature["properties"].get(name) == wanted["properties"].get(name)


@settings(max_examples=25, deadline=None)
@given(
    corners=st.lists(
        st.tuples(st.integers(0, 100_000), st.integers(0, 100_000)), min_size=3, max_size=9, unique=True
    ),
    offset=st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
)
def test_any_region_is_where_it_was(corners, offset, tmp_path_factory) -> None:
    frame = RegionFrame(bounds_px0=offset)
    region = Region(shapely.Polygon(corners), "drawn by hand")
    path = tmp_path_factory.mktemp("any") / "regions.geojson"
    write_drawn_regions(path, [region], frame)
    held = json.loads(path.read_text())["features"]
    if region.area.is_empty or not held:
        return
    here = shapely.transform(region.area, lambda of: of - np.array([offset[1], offset[0]]))
    assert shape(held[0]["geometry"]).symmetric_difference(here).area <= 1e-6 * max(1.0, here.area)
    (back,) = read_named_regions(path, frame)
    assert back.area.symmetric_difference(region.area).area <= 1e-6 * max(1.0, region.area.area)


def test_qupath_counts_from_the_bounds_of_a_slide(tmp_path, he_slide) -> None:
    """A slide is invented whose scanner states what it scanned."""
    with open_slide(he_slide) as slide:
        assert slide.frame == SlideFrame()
        slide.frame = frame_of(MRXS)
        path = tmp_path / "regions.geojson"
        path.write_text(json.dumps(qupath(annotation(shapely.box(10, 20, 30, 50)))))
        found = placed(path, slide)
        assert isinstance(found, FileRegions)
        assert found[0].polygon.bounds == (1210, 360, 1230, 390)
        assert region_words(found) == "regions.geojson"
        (feature,) = drawn_geojson(found, RegionFrame.of(slide))["features"]
        assert shape(feature["geometry"]).bounds == (10, 20, 30, 50)


def test_what_a_result_writes_lies_where_qupath_counts_from() -> None:
    result = make_result(make_slide())
    tissue = make_tissue(result.grid.slide_shape_px0)
    slide = replace(result.slides[0], tissue=tissue, corrupt=np.array([[2, 3]]))
    result = replace(result, slides=(replace(slide, bounds_px0=(340.0, 1200.0)),))
    usual, moved = (regions_geojson(of)["features"] for of in (replace(result, slides=(slide,)), result))
    assert len(usual) == len(moved) > 1
    for one, other in zip(usual, moved, strict=True):
        wanted = shapely.affinity.translate(shape(one["geometry"]), -1200, -340)
        assert shape(other["geometry"]).equals_exact(wanted, 1e-6)
    assert result_values(result)["qupath_origin_px0_yx"] == [340.0, 1200.0]


@pytest.mark.parametrize("bad", ["nan", "", "-5", "1e300", None])
def test_bounds_that_cannot_be_are_none(bad) -> None:
    assert frame_of({"openslide.bounds-x": bad, "openslide.bounds-y": "3"}).bounds_px0 == (0, 0)


APERIO = """<?xml version="1.0" encoding="UTF-8"?>
<Annotations MicronsPerPixel="0.5">
 <Annotation Id="1" Name="Tumor" LineColor="255"><Regions>
  <Region Id="1" Type="0" NegativeROA="0" Text="left"><Vertices>
   <Vertex X="0" Y="0" Z="0"/><Vertex X="100" Y="0"/><Vertex X="100" Y="100"/><Vertex X="0" Y="100"/>
  </Vertices></Region>
  <Region Id="2" Type="1" NegativeROA="1"><Vertices><Vertex X="20" Y="20"/><Vertex X="40" Y="40"/></Vertices>
  </Region>
  <Region Id="3" Type="3"><Vertices><Vertex X="1" Y="1"/><Vertex X="9" Y="9"/></Vertices></Region>
 </Regions></Annotation>
 <Annotation Id="2" Name="" LineColor="{dcis}"><Regions>
  <Region Type="2"><Vertices><Vertex X="200" Y="100"/><Vertex X="260" Y="140"/></Vertices></Region>
 </Regions></Annotation>
</Annotations>"""


def test_imagescope(tmp_path) -> None:
    path = tmp_path / "slide.xml"
    path.write_text(APERIO.format(dcis=150 + 80 * 256 + 200 * 65536))
    tumour, dcis = read_named_regions(path, RegionFrame(mpp=(0.5, 0.5)))
    assert (tumour.name, tumour.kind, dcis.kind) == ("left", "tumour", "dcis")
    assert tumour.area.area == 100 * 100 - 20 * 20
    assert len(tumour.area.interiors) == 1
    assert dcis.area.bounds == pytest.approx((200, 100, 260, 140))
    assert dcis.area.area == pytest.approx(np.pi * 30 * 20, rel=2e-3)
    with pytest.raises(
        JobFailed, match=r"slide.xml was drawn on a slide of 0\.5 µm/px, and this one has 0\.25"
    ):
        read_named_regions(path, RegionFrame(mpp=(0.25, 0.25)))


NDPA = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
 <ndpviewstate id="1"><title>Necrosis</title><coordformat>nanometers</coordformat>
  <annotation type="freehand" displayname="AnnotateRectangle" color="#000000"><closed>1</closed><pointlist>
   <point><x>{x0}</x><y>{y0}</y></point><point><x>{x1}</x><y>{y0}</y></point>
   <point><x>{x1}</x><y>{y1}</y></point><point><x>{x0}</x><y>{y1}</y></point></pointlist></annotation>
 </ndpviewstate>
 <ndpviewstate id="2"><title></title><coordformat>nanometers</coordformat>
  <annotation type="circle" displayname="AnnotateCircle"><x>1000000</x><y>-500000</y><radius>23000</radius>
  </annotation></ndpviewstate>
 <ndpviewstate id="3"><annotation type="linearmeasure"><x1>1</x1></annotation></ndpviewstate>
</annotations>"""


def test_ndp_view_counts_from_the_centre_of_the_glass(tmp_path) -> None:
    """By the description in OpenSlide's manual: offsets are those of the centre of the image."""
    shape_px0, nm = (1000, 3000), 230.0
    frame = replace(
        RegionFrame(shape_px0, (nm / 1000, nm / 1000)), centre_offset_nm=frame_of(NDPI).centre_offset_nm
    )
    corner, far = (1400, 420), (1500, 480)  # px, (x, y)
    places = [[(of[0] - 1500) * nm + 1_000_000, (of[1] - 500) * nm - 500_000] for of in (corner, far)]
    path = tmp_path / "slide.ndpi.ndpa"
    path.write_text(NDPA.format(x0=places[0][0], y0=places[0][1], x1=places[1][0], y1=places[1][1]))
    necrosis, circle = read_named_regions(path, frame)
    assert necrosis.kind == "necrosis"
    assert necrosis.area.bounds == pytest.approx((1400, 420, 1500, 480))
    assert circle.area.bounds == pytest.approx((1400, 400, 1600, 600))
    with pytest.raises(JobFailed, match="the slide does not state where that is"):
        read_named_regions(path)


BOMB = '<!DOCTYPE a [<!ENTITY b "cccc">]><Annotations>&b;</Annotations>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB, "declares a document type"),
        ("<Annotations><Annotation>", "is damaged, or no XML"),
        ("", "is damaged, or no XML"),
        ("<svg/>", "holds 'svg', not regions of ImageScope or NDP.view"),
        ("<Annotations/>", "holds no closed region"),
        ("<a>" * 70 + "</a>" * 70, "nested more than 64 levels"),
        (APERIO.replace('X="100"', 'X="far"'), "a position that is no two numbers"),
        (APERIO.replace('X="100"', 'X="nan"'), "a position that no slide has"),
        (APERIO.replace('X="100"', 'X="1e12"'), "a position that no slide has"),
        ('<?xml version="1.0" encoding="klingon"?><Annotations/>', "XML"),
    ],
)
def test_what_is_no_region_is_refused_in_a_sentence(content, words, tmp_path) -> None:
    path = tmp_path / "bad.xml"
    path.write_text(content)
    with pytest.raises(JobFailed, match=words) as refused:
        read_named_regions(path)
    assert "bad.xml" in str(refused.value)
    assert len(str(refused.value)) < 250


def test_a_cut_out_alone_is_left_out(tmp_path) -> None:
    path = tmp_path / "cut.xml"
    path.write_text(
        '<Annotations><Annotation Name="hole"><Regions><Region Type="0" NegativeROA="1"><Vertices>'
        '<Vertex X="0" Y="0"/><Vertex X="9" Y="0"/><Vertex X="9" Y="9"/></Vertices></Region></Regions>'
        "</Annotation></Annotations>"
    )
    (region,) = read_named_regions(path)
    assert not region.included
