"""A calibration from a slide: which regions are controls, what is read of them, and the command line."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import shapely
from typer.testing import CliRunner

from napari_her2 import open_slide
from napari_her2.cells.calibration_store import kept_calibrations, load_calibration
from napari_her2.cells.measuring import measured
from napari_her2.cells.rules import Rules, completeness, membrane_mass
from napari_her2.cells.stains import fit_stains
from napari_her2.cli import app
from napari_her2.errors import Her2Error, JobFailed, SlideError
from napari_her2.export.geojson import write_drawn_regions
from napari_her2.inference.calibrating import calibrating, controls_of, level_of
from napari_her2.inference.regions import Region, read_regions
from napari_her2.models.card import NOTICE
from napari_her2.phantom import make_pair
from napari_her2.steps import finished
from small_files import write_flat_slide

SQUARE = shapely.box(0, 0, 100, 100)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """H&E and IHC slide of 2,560 px at 0.25 µm/px."""
    folder = tmp_path_factory.mktemp("case")
    return make_pair(folder, "control", score="3+", seed=5, size_px=2560, mpp=0.25)


@pytest.fixture(scope="module")
def tumour(pair):
    """The tumour of the phantom, as one shape."""
    return shapely.union_all(read_regions(pair.regions))


@pytest.fixture(scope="module")
def made(pair, tumour):
    with open_slide(pair.ihc) as slide:
        control = [Region(tumour, "3+", "control")]
        return finished(calibrating(slide, control, "Phantom", antibody=" 4B5 ", cache=False), None)


# -- what a control is


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("3+", "3+"),
        ("3 +", "3+"),
        ("3", "3+"),
        ("control 1+", "1+"),
        ("HER2 3+", "3+"),
        ("HER2 control 2+ (breast)", "2+"),
        ("0", "0"),
        ("control 0", "0"),
        ("HER2 0", "0"),
        ("Control (0)", "0"),
        ("2", "2+"),
        ("", ""),
        ("HER2", ""),
        ("HER2+", ""),
        ("breast 3", ""),
        ("0.5", ""),
        ("10", ""),
        ("13+", ""),
        ("1+ to 2+", ""),
        ("4+", ""),
        ("control3+", "3+"),
        ("control0", "0"),
        ("Her-2/neu 1+", "1+"),
        ("HER2 2", "2+"),
    ],
)
def test_the_name_of_a_control_says_what_it_is(name, level):
    assert level_of(name) == level


def test_controls_are_found_by_kind_and_else_all_regions_are():
    three, none = Region(SQUARE, "3+", "control"), Region(SQUARE, "0", "control")
    tumour, fold = Region(SQUARE, "1+", "tumour"), Region(SQUARE, "", "fold")
    assert controls_of([tumour, none, fold, three]) == {"3+": (three,), "0": (none,)}
    assert controls_of([Region(SQUARE, "3+"), fold]).keys() == {"3+"}
    lone = Region(SQUARE, "the control at the left")
    assert controls_of([lone, fold]) == {"3+": (lone,)}
    twice = Region(SQUARE, "3+ again", "control")
    assert controls_of([three, twice])["3+"] == (three, twice)


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ([], "No control is drawn"),
        ([Region(SQUARE, "", "fold")], "No control is drawn"),
        ([Region(SQUARE, "3+"), Region(SQUARE, "left")], 'what the control "left" is'),
        ([Region(SQUARE), Region(SQUARE)], "name each control"),
        ([Region(SQUARE, "0", "control")], r"no 3\+ control among the regions"),
    ],
)
def test_controls_that_are_not_clear_are_refused(regions, said):
    with pytest.raises(JobFailed, match=said):
        controls_of(regions)


# -- what is read


def test_the_gain_is_that_of_the_cells_in_the_control(made, pair, tumour):
    """Found again without windows, regions or generators: all pixels at once, as the slide has them."""
    with open_slide(pair.ihc) as slide:
        height, width = slide.shape
        fine = slide.read(0, -128, -128, height + 256, width + 256)
        fingerprint, name = slide.fingerprint, slide.name
    rgb = np.rint(fine.reshape(len(fine) // 2, 2, -1, 2, 3).mean(axis=(1, 3))).astype(np.uint8)
    cells = measured(rgb, fit_stains([rgb]), (-32.0, -32.0), (0.0, 0.0, height / 4, width / 4))
    y, x = (cells.centre_um.astype(np.float64) / 0.25).T
    inside = shapely.contains_xy(tumour, x, y)
    complete, mass = completeness(cells, Rules())[inside], membrane_mass(cells)[inside]
    expected = float(np.median(mass[complete >= 0.65])) / 0.70
    assert made.gain == pytest.approx(expected, rel=0.03)
    assert made.cells == pytest.approx(int((complete >= 0.65).sum()), rel=0.03)
    assert (made.slide, made.slide_fingerprint) == (name, fingerprint)
    assert (made.antibody, made.mpp) == ("4B5", 0.25)
    (control,) = made.controls
    assert control.level == "3+"
    assert control.complete == made.cells <= control.cells
    assert control.raw_mass / 0.70 == pytest.approx(made.gain)


def test_what_is_excluded_in_a_control_is_left_out_of_it(made, pair, tumour):
    x0, y0, x1, y1 = tumour.bounds
    fold = Region(shapely.box(x0, y0, x0 + (x1 - x0) / 4, y1), "", "fold")
    with open_slide(pair.ihc) as slide:
        rest = finished(calibrating(slide, [Region(tumour, "3+", "control"), fold], "rest"), None)
    left_out = tumour.intersection(fold.polygon).area / tumour.area
    assert left_out > 0.1
    assert rest.controls[0].cells == pytest.approx((1 - left_out) * made.controls[0].cells, rel=0.15)
    assert rest.controls[0].cells < made.controls[0].cells


def test_a_cell_in_two_controls_counts_once(made, pair, tumour):
    regions = [Region(tumour, "3+", "control")] * 3 + [Region(tumour, "1+", "control")]
    with open_slide(pair.ihc) as slide:
        many = finished(calibrating(slide, regions, "many"), None)
    assert many.gain == made.gain
    assert many.controls[0].cells == made.controls[0].cells
    assert many.controls[1].cells == 0
    assert any("1+ control holds 0 cells" in remark for remark in many.remarks)


def test_a_darker_scan_of_a_real_3_core_has_the_same_gain(shared_data, tmp_path):
    found = sorted((shared_data / "her2_ihc_cores").glob("3_a1f1*.jpg"))
    if not found:
        pytest.skip("the cores of HER2 IHC are absent from the folder of real slides")
    with open_slide(found[0], mpp=0.23) as slide:
        whole = slide.read(0, 1600, 1600, 2000, 2000)
    gains = []
    for brightness in (1.0, 0.9):
        path = tmp_path / f"{brightness}.png"
        path.write_bytes(cv2.imencode(".png", np.rint(whole * brightness).astype(np.uint8)[..., ::-1])[1])
        with open_slide(path, mpp=0.23) as slide:
            control = [Region(shapely.box(0, 0, 2000, 2000), "3+", "control")]
            made = finished(calibrating(slide, control, "core", cache=False), None)
        gains.append(made.gain)
        assert made.cells > 200
        assert not any("control" in remark for remark in made.remarks), made.remarks
    assert 0.3 < gains[0] < 1.2
    assert gains[1] == pytest.approx(gains[0], rel=0.05)


@pytest.mark.parametrize(
    "polygon",
    [shapely.box(-9000, -9000, -8000, -8000), shapely.box(0, 0, 60, 60), shapely.Polygon()],
    ids=["outside", "tiny", "empty"],
)
def test_a_control_without_cells_is_refused(pair, polygon):
    with (
        open_slide(pair.ihc) as slide,
        pytest.raises(JobFailed, match=r"holds \d cells? with a complete membrane"),
    ):
        finished(calibrating(slide, [Region(polygon, "3+", "control")], "none"), None)


def test_slides_on_which_no_membrane_can_be_read_are_refused(pair, tmp_path):
    control = [Region(shapely.box(200, 200, 1800, 1800), "3+", "control")]
    for mpp in (0.7, 2.0):
        with (
            open_slide(pair.ihc, mpp=mpp) as slide,
            pytest.raises(SlideError, match="Membranes cannot be seen"),
        ):
            finished(calibrating(slide, control, "coarse"), None)
    with open_slide(pair.he) as slide, pytest.raises(Her2Error, match="looks like H&E"):
        finished(calibrating(slide, control, "stain"), None)
    with (
        open_slide(write_flat_slide(tmp_path / "dark.tif", (8, 8, 8))) as slide,
        pytest.raises(Her2Error),
    ):
        finished(calibrating(slide, control, "dark"), None)
    with (
        open_slide(write_flat_slide(tmp_path / "none.tif", mpp=None)) as slide,
        pytest.raises(SlideError, match="µm"),
    ):
        finished(calibrating(slide, control, "no scale"), None)


def test_a_name_that_cannot_be_is_refused_before_the_slide_is_read(pair):
    with open_slide(pair.ihc) as slide, pytest.raises(JobFailed, match="printable characters"):
        next(calibrating(slide, [Region(SQUARE)], "  "))


def test_it_can_be_cancelled(pair, tumour):
    with open_slide(pair.ihc) as slide:
        steps = calibrating(slide, [Region(tumour, "3+")], "stopped")
        for step in steps:
            if step.stage.startswith("Reading the controls"):
                break
        steps.close()
    assert kept_calibrations() == ((), ())


# -- the command line


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", *(str(item) for item in arguments)])


def test_a_calibration_is_made_shown_listed_and_removed(made, pair, tumour, tmp_path):
    path = tmp_path / "control.geojson"
    write_drawn_regions(path, [Region(tumour, "3+", "control")])
    told = ("--laboratory", "Lab A", "--antibody", "4B5", "--scanner", "AT2")
    done = run(pair.ihc, "--regions", path, "--name", "Run 7/3", *told)
    assert done.exit_code == 0, done.output
    for part in ("Run 7/3", f"{made.gain:.4f}", "4B5", "3+ control", NOTICE):
        assert part in done.output
    assert load_calibration("Run 7/3").gain == made.gain
    assert "Run 7/3" in run("list").output
    assert f"{made.cells:,} complete cells" in run("show", "Run 7/3").output

    again = run("--name", "Run 7/3", "--regions", path, pair.ihc)
    assert again.exit_code == 1
    assert "kept already" in again.stderr
    assert "--replace" in again.stderr
    replaced = run("make", pair.ihc, "--regions", path, "--name", "Run 7/3", "--replace")
    assert replaced.exit_code == 0, replaced.output
    assert load_calibration("Run 7/3").laboratory == ""

    removed = run("remove", "Run 7/3")
    assert removed.exit_code == 0
    assert "was removed" in removed.output
    assert run("show", "Run 7/3").exit_code == 1
    assert "No calibration is kept" in run("list").output


def test_wrong_use_ends_in_one_line(pair, tmp_path):
    path = tmp_path / "control.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    done = run(pair.ihc, "--regions", path, "--name", "x")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "holds no polygon" in done.stderr
    assert run(pair.ihc).exit_code == 2
    assert run("remove", "nobody").exit_code == 1
    assert "make" in run("--help").output


def test_damaged_files_are_told_beside_the_list(made):
    from napari_her2.cells.calibration_store import keep_calibration

    path = keep_calibration(made)
    path.with_name("damaged.json").write_text("{")
    listed = run("list")
    assert listed.exit_code == 0
    assert "Phantom" in listed.output
    assert "damaged.json" in listed.stderr
