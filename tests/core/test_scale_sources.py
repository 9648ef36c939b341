"""Where the µm/px of a slide can be known from, and why they cannot be used as the file has them."""

from __future__ import annotations

import re
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide.facts import StatedScale
from napari_her2.slide.scale_sources import RULERS, measured_scale, scale_problem, sources_of
from napari_her2.slide.scanner_habits import habit_of

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = np.full((1024, 1024, 3), 200, np.uint8)
HEADER = "Aperio Image Library v11.2.1 \r\n1024x1024 [0,0 1024x1024] (256x256) JPEG/RGB Q=70"
BAR, ERYTHROCYTE, _ = RULERS


def written(path: Path, description: str, *, mpp: float | None = None, **options: object) -> Path:
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        path,
        IMAGE,
        photometric="rgb",
        metadata=None,
        tile=(256, 256),
        compression="deflate",
        description=description,
        **resolution,
        **options,
    )
    return path


def header(**changes: object) -> SimpleNamespace:
    known = {
        "mpp": None,
        "mpp_given": False,
        "vendor": None,
        "objective": None,
        "stated_scales": (),
        "header_contradiction": "",
    }
    return SimpleNamespace(**(known | changes))


@pytest.mark.parametrize(
    ("fields", "tags", "problem"),
    [
        ("|AppMag = 20|MPP = 0.4990", None, ""),
        ("|AppMag = 20|MPP = 0.4990", 0.5, ""),
        ("|AppMag = 20|MPP = 0.4990", 0.56, ""),  # 12 % apart
        ("|AppMag = 20|MPP = 0.4990", 0.25, r"0\.499 µm/px \(Aperio header\) and 0\.25 µm/px \(TIFF resol"),
        ("|AppMag = 40|MPP = 0.4990", None, "objective of 40x"),
        ("|AppMag = 20|MPP = 4.990", None, "objective of 20x"),
        ("|MPP = 0.4990", None, ""),
        ("|AppMag = 20", None, "not known"),
        ("|AppMag = 20|MPP = 0", None, "not known"),
        ("|AppMag = 20|MPP = 500", None, "not known"),
    ],
)
def test_a_scale_that_is_missing_absurd_or_contradicts_itself_is_a_problem_until_somebody_decides(
    tmp_path: Path, fields: str, tags: float | None, problem: str
) -> None:
    path = written(tmp_path / "a.svs", HEADER + fields, mpp=tags)
    with open_slide(path) as slide:
        found = scale_problem(slide)
        assert re.search(problem, found) if problem else found == ""
        assert (slide.header_contradiction in slide.warnings) == bool(slide.header_contradiction)
    with open_slide(path, mpp=0.25, mpp_source="measured on 3 erythrocytes") as slide:
        assert scale_problem(slide) == ""
        assert slide.mpp_given
        assert slide.mpp_source == "measured on 3 erythrocytes"
        assert slide.warnings == ()


def test_all_that_a_header_states_is_offered_and_what_no_slide_has_is_not(tmp_path: Path) -> None:
    path = written(tmp_path / "a.svs", HEADER + "|AppMag = 20|MPP = 0.4990", mpp=0.25)
    with open_slide(path) as slide:
        found = {source.title: source.mpp for source in sources_of(slide)}
        assert found == {
            "Aperio header": (0.499, 0.499),
            "TIFF resolution": pytest.approx((0.25, 0.25)),
            "usual at 20× (Aperio)": (0.499, 0.499),
        }
    printed = written(tmp_path / "b.svs", HEADER + "|AppMag = 20|MPP = 0.4990", mpp=25400 / 300)
    with open_slide(printed) as slide:
        assert [source.title for source in sources_of(slide)] == ["Aperio header", "usual at 20× (Aperio)"]
        assert scale_problem(slide) == ""


def test_ome_xml_and_tags_that_part_are_both_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path,
        IMAGE,
        photometric="rgb",
        tile=(256, 256),
        resolution=(1e4 / 0.25, 1e4 / 0.25),
        resolutionunit="CENTIMETER",
        metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    with open_slide(path) as slide:
        assert slide.mpp == (0.5, 0.5)
        assert "OME-XML" in scale_problem(slide)
        assert "TIFF resolution" in scale_problem(slide)


def test_a_tag_of_odd_numbers_is_no_source(tmp_path: Path) -> None:
    path = written(tmp_path / "a.svs", HEADER + "|MPP = 0.4990", mpp=0.25)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[282].valueoffset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack("<II", 0, 0))
    with open_slide(path) as slide:
        assert [stated.source for stated in slide.stated_scales] == ["Aperio header"]
        assert scale_problem(slide) == ""


@pytest.mark.parametrize(
    ("vendor", "magnification", "mpp"),
    [
        ("aperio", 20, 0.499),
        ("ventana", 40, 0.2325),
        (None, 40, 0.25),
        ("trestle", 20, 0.5),
        ("aperio", 10, 1),
    ],
)
def test_the_habit_of_a_scanner(vendor: str | None, magnification: float, mpp: float) -> None:
    assert habit_of(vendor, magnification).mpp == pytest.approx(mpp)


def test_without_an_objective_both_usual_ones_are_offered() -> None:
    found = sources_of(header(vendor="hamamatsu"))
    assert [source.mpp[0] for source in found] == [0.228, 0.456]
    assert all("does not say" in source.reason for source in found)
    stated = sources_of(header(objective=20.0, stated_scales=(StatedScale("OME-XML", (0.3, 0.31)),)))
    assert [source.mpp for source in stated] == [(0.3, 0.31), (0.5, 0.5)]


def test_a_slide_of_3dhistech_at_20x_with_its_adapter_is_no_contradiction() -> None:
    from napari_her2.slide.facts import stated_facts

    def problem(vendor: str) -> str:
        return stated_facts(
            vendor=vendor,
            objective="20",
            mpp=("0.2325", "0.2325"),
            source="header",
            shape=(1000, 1000),
            icc_profile=None,
        ).scale_problem

    assert problem("mirax") == ""
    assert "20x" in problem("aperio")


def test_a_real_slide_without_scale_offers_the_habit_of_its_scanner(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "tcga_cr_7395_no_mpp.svs") as slide:
        assert "not known" in scale_problem(slide)
        assert [source.title for source in sources_of(slide)] == [
            "usual at 40× (Aperio)",
            "usual at 20× (Aperio)",
        ]


@pytest.mark.parametrize("name", ["cmu1_small_region.svs", "os1_he.ome.tif", "os2_ki67_olympus.ome.tif"])
def test_real_slides_that_state_their_scale_are_no_problem(shared_data: Path, name: str) -> None:
    with open_slide(shared_data / "slides" / name) as slide:
        assert scale_problem(slide) == ""
        assert sources_of(slide)[0].mpp == slide.mpp


@given(
    mpp=st.floats(0.1, 2.0),
    angle=st.floats(0, 6.3),
    lengths=st.lists(st.floats(5.0, 900.0), min_size=1, max_size=6),
)
def test_a_line_over_a_known_length_gives_the_scale(mpp: float, angle: float, lengths: list[float]) -> None:
    way = np.array([np.sin(angle), np.cos(angle)])
    lines = [np.array([(70.0, 30.0), (70.0, 30.0) + way * length]) for length in lengths]
    length_um = float(np.mean(lengths)) * mpp
    found = measured_scale(lines, BAR, length_um)
    assert found.mpp == pytest.approx(mpp)
    assert found.lines == len(lengths)
    if len(lengths) > 1:
        assert found.spread == pytest.approx(np.std(lengths, ddof=1) / np.mean(lengths), abs=1e-9)


def test_what_was_measured_is_said() -> None:
    lines = [np.array([(0.0, 0.0), (0.0, 28.0)])] * 3
    assert measured_scale(lines, ERYTHROCYTE, 7.0).words == "measured on 3 erythrocytes of 7 µm"
    assert measured_scale(lines[:1], BAR, 14).words == "measured on 1 scale bar of 14 µm"
    bent = np.array([(0.0, 0.0), (0.0, 14.0), (14.0, 14.0)])
    assert measured_scale([bent], ERYTHROCYTE, 7.0).mpp == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("lines", "length", "words"),
    [
        ([], 7.0, "No line is drawn"),
        ([[(0.0, 0.0), (0.0, 2.0)]], 7.0, "three pixels"),
        ([[(0.0, 0.0), (0.0, 20.0)]], 0.0, "Type how long"),
        ([[(0.0, 0.0), (0.0, 20.0)]], float("nan"), "Type how long"),
        ([[(0.0, 0.0), (0.0, 20.0)]], 1e5, "which no slide has"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(lines: list[object], length: float, words: str) -> None:
    with pytest.raises(SlideError, match=words):
        measured_scale([np.array(line) for line in lines], BAR, length)
