"""The scale that a header states: how it may be written, and when it is not believed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_her2 import open_slide
from napari_her2.slide.facts import as_float, checked_mpp, stated_facts
from napari_her2.slide.header_scale import tag_scale

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = np.full((1024, 1024, 3), 200, np.uint8)
HEADER = "Aperio Image Library v11.2.1 \r\n1024x1024 [0,0 1024x1024] (256x256) JPEG/RGB Q=70"
X_RESOLUTION, Y_RESOLUTION, UNIT = 282, 283, 296


def written(path: Path, **options) -> Path:
    layout = {"tile": (256, 256)} if "rowsperstrip" not in options else {}
    tifffile.imwrite(
        path, IMAGE, photometric="rgb", metadata=None, compression="deflate", **layout, **options
    )
    return path


def patch(path: Path, code: int, value: bytes) -> None:
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[code].valueoffset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.4990", 0.499),
        ("0,4990", 0.499),
        (" 0.25 um", 0.25),
        ("0.25 µm/px", 0.25),
        ("20x", 20),
        ("40 X", 40),
        (".5", 0.5),
        ("2.5e-1", 0.25),
        ('"0.25"', 0.25),
        ("1,234,5", None),
        ("0.25 mm", None),
        ("-0.25", None),
        ("1e999", None),
        ("9" * 5000, None),
        ("", None),
        ("nan", None),
        ("0", None),
    ],
)
def test_numbers_of_headers_are_read_however_they_are_written(text, number):
    assert as_float(text) == (None if number is None else pytest.approx(number))


@pytest.mark.parametrize(
    ("fields", "mpp", "objective"),
    [
        ("|AppMag = 20|MPP = 0,4990", 0.499, 20),
        ("|AppMag = 20|MPP = 0.4990 um", 0.499, 20),
        ("|AppMag = 20x|MPP = 0.4990", 0.499, 20),
        ("|AppMag = 20||MPP = 0.4990|", 0.499, 20),
        ("|AppMag = 20|MPP = 0.4990|Filename|Comment = x = y", 0.499, 20),
        ("|AppMag = |MPP = 0.4990", 0.499, None),
        ("|AppMag = 20|MPP = ", 0.5, 20),  # the tags know
        ("|AppMag = 20|MPP", 0.5, 20),
        ("|AppMag = 20", 0.5, 20),
    ],
)
def test_an_aperio_header_is_read_and_an_empty_field_falls_back_to_the_tags(tmp_path, fields, mpp, objective):
    path = written(
        tmp_path / "a.svs",
        description=HEADER + fields,
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((mpp, mpp))
        assert slide.objective == objective
        assert slide.vendor == "aperio"
        assert slide.warnings == ()


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((1e4 / 0.25, 1e4 / 0.5), "CENTIMETER", (0.5, 0.25)),
        ((25400 / 0.25, 25400 / 0.25), "INCH", (0.25, 0.25)),
        ((4000, 4000), "MILLIMETER", (0.25, 0.25)),
        ((1000, 1000), "CENTIMETER", (10, 10)),  # 2,540 dots an inch, but metric
        ((4, 4), "NONE", None),
    ],
)
def test_units_of_the_resolution_tags_are_understood(tmp_path, resolution, unit, mpp):
    with open_slide(written(tmp_path / "a.tif", resolution=resolution, resolutionunit=unit)) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
        assert slide.mpp_source == ("not stated" if mpp is None else "TIFF resolution")
        assert slide.warnings == ()


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 64}])
@pytest.mark.parametrize(
    ("code", "value"),
    [
        (X_RESOLUTION, struct.pack("<II", 0, 0)),
        (Y_RESOLUTION, struct.pack("<II", 40_000, 0)),
        (X_RESOLUTION, struct.pack("<II", 0, 1)),
        (UNIT, struct.pack("<H", 0)),
        (UNIT, struct.pack("<H", 9)),
    ],
)
def test_resolution_tags_that_say_nothing_leave_the_scale_unknown(tmp_path, layout, code, value):
    path = written(tmp_path / "a.tif", resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **layout)
    patch(path, code, value)
    with open_slide(path) as slide:
        assert slide.backend.startswith("tiffslide")
        assert slide.mpp is None
        assert slide.warnings == ()
        assert (slide.read(0, 0, 0, 300, 300) == 200).all()


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_the_unit_of_imagej_is_read(tmp_path, unit):
    tifffile.imwrite(
        tmp_path / "a.tif", IMAGE, imagej=True, resolution=(4, 2), metadata={"unit": unit, "axes": "YXS"}
    )
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.mpp == (0.5, 0.25)


@pytest.mark.parametrize("dpi", [72, 96, 150, 300, 600, 1200, 2400, 4800])
@pytest.mark.parametrize("unit", ["INCH", "CENTIMETER"])
def test_resolutions_for_printing_are_not_believed(tmp_path, dpi, unit):
    number = dpi if unit == "INCH" else round(dpi / 2.54, 2)
    path = written(tmp_path / "a.tif", resolution=(number, number), resolutionunit=unit)
    with open_slide(path) as slide:
        assert slide.mpp is None
        assert "ignored" in slide.warnings[0]


@pytest.mark.parametrize("source", ["TIFF resolution", "Aperio header", "DICOM header", "OME-XML"])
def test_a_scale_under_which_the_slide_is_larger_than_glass_is_not_believed(source):
    mpp, stated, warnings = checked_mpp(2.5, 2.5, source, (8_000, 40_000))  # 100 x 20 mm
    assert (mpp, stated) == (None, "not stated")
    assert "100 x 20 mm" in warnings[0]
    assert checked_mpp(0.25, 0.25, source, (100_000, 290_000))[0] == (0.25, 0.25)  # 72.5 x 25 mm
    assert checked_mpp(0.25, 0.25, source, (150_000, 150_000))[0] is None  # 37.5 x 37.5 mm


@pytest.mark.parametrize(
    ("objective", "mpp", "told"),
    [
        *((20, 0.499, False), (40, 0.2325, False), (40, 0.25, False), (20, 0.345, False), (5, 2.0, False)),
        *((40, 0.499, True), (20, 0.25, True), (20, 4.99, True), (None, 4.99, False), ("40x", 0.5, True)),
    ],
)
def test_objective_and_scale_that_contradict_each_other_are_told(objective, mpp, told):
    facts = stated_facts(
        vendor=None,
        objective=objective,
        mpp=(mpp, mpp),
        source="x",
        shape=(1000, 1000),
        icc_profile=None,
        warnings=("first",),
    )
    assert facts.mpp == (mpp, mpp)
    assert facts.warnings[0] == "first"
    assert any("objective" in warning for warning in facts.warnings) == told


def test_a_contradiction_in_a_file_is_told(tmp_path):
    with open_slide(written(tmp_path / "a.svs", description=HEADER + "|AppMag = 40|MPP = 0.4990")) as slide:
        assert slide.mpp == (0.499, 0.499)
        assert "40x" in slide.warnings[0]
        assert "0.499" in slide.warnings[0]


def test_any_resolution_tag_gives_a_scale_or_none():
    assert tag_scale(3, (40_000, 1), (20_000, 1)) == (0.25, 0.5)
    assert tag_scale(3, 40_000.0, 20_000.0) == (0.25, 0.5)
    for values in [(3, (1,), 4), ("x", 4, 4), (3, None, 4), (None, 4, 4), (3, (1, 2, 3), 4)]:
        assert tag_scale(*values) == (None, None)


@pytest.mark.parametrize(("y", "believed"), [(40_000, True), (20_000, True), (8_000, False), (118, False)])
def test_a_scale_far_longer_than_wide_is_not_believed(tmp_path, y, believed):
    path = written(tmp_path / "a.tif", resolution=(40_000, y), resolutionunit="CENTIMETER")
    with open_slide(path) as slide:
        assert slide.mpp == (pytest.approx((1e4 / y, 0.25)) if believed else None)
        assert bool(slide.warnings) != believed
