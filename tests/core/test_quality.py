"""Quality of tissue: what is painted, folded or blurred is found, and what is sharp stays."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_her2 import open_slide, score_slide
from napari_her2.cli import app
from napari_her2.cohort.run import score_cohort_steps
from napari_her2.cohort.score_job import Case
from napari_her2.errors import JobFailed, SlideError
from napari_her2.explain.quality import quality_map, share_in_words, tile_in_words
from napari_her2.export.kept_result import read_kept
from napari_her2.export.tables import write_result
from napari_her2.inference.options import ScoringOptions
from napari_her2.slide.focus import focus_of
from napari_her2.slide.grid import TileGrid
from napari_her2.slide.quality import Quality, judged, quality_steps
from napari_her2.slide.quality_limits import FLAGS, FOCUS, OUTSIDE, PEN, REASONS, QualityLimits, read_limits
from napari_her2.slide.quality_measures import Measures, blur_of
from napari_her2.steps import finished

if TYPE_CHECKING:
    from pathlib import Path


def altered(path: Path, source: Path, change) -> Path:
    """A slide as a plain picture whose pixels were changed; at the µm/px of the source."""
    with open_slide(source) as slide:
        rgb = slide.read(0, 0, 0, *slide.shape)
    cv2.imwrite(str(path), change(rgb)[..., ::-1])
    return path


def looked_at(path: Path, mpp: float, limits: QualityLimits | None = None) -> Quality:
    with open_slide(path, mpp=mpp) as slide:
        grid, tissue = slide.tile_grid(96, 0.5), slide.tissue()
        return finished(quality_steps(slide, grid, tissue, limits or QualityLimits()))


@pytest.fixture(scope="module")
def mpp(he_slide) -> float:
    with open_slide(he_slide) as slide:
        return slide.known_mpp[0]


@pytest.fixture(scope="module")
def half_blurred(he_slide, mpp, tmp_path_factory) -> Path:
    """The left half of a slide out of focus by 2 µm."""

    def blur(rgb):
        out, half = rgb.copy(), rgb.shape[1] // 2
        out[:, :half] = cv2.GaussianBlur(rgb, (0, 0), 2 / mpp)[:, :half]
        return out

    return altered(tmp_path_factory.mktemp("blurred") / "half.png", he_slide, blur)


@pytest.mark.parametrize("name", ["stain/tiatoolbox_target.png", "stain/hdab_colon.png"])
@pytest.mark.parametrize("added_um", [1.0, 1.5, 2.0])
def test_blur_that_is_added_to_tissue_is_measured(shared_data, name, added_um) -> None:
    rgb = cv2.imread(str(shared_data / name))[:384, :384, ::-1]
    blurred = cv2.GaussianBlur(rgb, (0, 0), added_um / 0.5)
    # Blurs add in squares.
    assert blur_of(blurred) == pytest.approx(np.hypot(blur_of(rgb), added_um), rel=0.3)


def test_half_a_slide_out_of_focus_is_found_and_the_sharp_half_is_not(half_blurred, mpp) -> None:
    quality = looked_at(half_blurred, mpp)
    cols = np.arange(quality.grid.shape[1])
    middle = quality.grid.shape[1] / 2
    apart = 3.5  # tiles: the lattice of squares is coarser than the tiles
    focus = (quality.reasons & FLAGS[FOCUS]) != 0
    left, right = cols < middle - apart, cols > middle + apart
    assert (focus & quality.counted)[:, left].sum() >= 0.95 * quality.counted[:, left].sum() > 10
    assert not (focus & quality.counted)[:, right].any()
    assert not quality.unjudged


def test_a_sharp_phantom_is_not_called_poor(he_slide, mpp) -> None:
    quality = looked_at(he_slide, mpp)
    assert quality.counted.sum() > 100
    assert quality.share <= 0.02


def test_ink_over_tissue_is_found(he_slide, mpp, tmp_path) -> None:
    def draw(rgb):
        out = rgb.copy()
        middle = rgb.shape[0] // 2
        # A blue felt pen takes red light most; over tissue its density adds.
        density = np.zeros(rgb.shape, np.float32)
        cv2.line(density, (0, middle), (rgb.shape[1], middle), (1.1, 0.45, 0.12), round(300 / mpp))
        return np.clip(out * 10.0**-density, 0, 255).astype(np.uint8)

    quality = looked_at(altered(tmp_path / "pen.png", he_slide, draw), mpp)
    row = quality.grid.shape[0] // 2
    inked = (quality.reasons[row] & FLAGS[PEN]) != 0
    assert inked.mean() > 0.9
    assert not ((quality.reasons[: row - 6] | quality.reasons[row + 7 :]) & FLAGS[PEN]).any()


def test_a_slide_too_coarse_for_focus_says_so(shared_data) -> None:
    with open_slide(shared_data / "registration" / "lung_lesion3_He.jpg", mpp=8.0) as slide:
        quality = finished(quality_steps(slide, slide.tile_grid(64, 8.0), slide.tissue(), QualityLimits()))
    assert quality.unjudged == (FOCUS,)
    assert "not judged on this slide: out of focus" in share_in_words(quality)


@pytest.mark.parametrize("name", ["cmu1_small_region.svs", "os1_he.ome.tif", "os2_ki67_hamamatsu.ome.tif"])
def test_sharp_real_slides_are_not_out_of_focus(shared_data, name) -> None:
    with open_slide(shared_data / "slides" / name) as slide:
        quality = finished(quality_steps(slide, slide.tile_grid(96, 0.5), slide.tissue(), QualityLimits()))
    assert not (quality.reasons & FLAGS[FOCUS]).any()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def few_tiles(**values) -> tuple[TileGrid, Measures]:
    grid = TileGrid((10, 20), (1.0, 1.0), 10, 1.0)
    fine = {"tissue": 1.0, "pen": 0.0, "fold": 0.0, "bubble": 0.0, "stained": 1.0, "blur_um": 0.3}
    made = {name: np.array([[fine[name], values.get(name, fine[name])]], np.float32) for name in fine}
    return grid, Measures(**made)


@pytest.mark.parametrize(
    ("measure", "value", "reason"),
    [
        ("blur_um", 1.3, "out of focus"),
        ("pen", 0.06, "pen"),
        ("fold", 0.11, "fold"),
        ("bubble", 0.21, "bubble"),
        ("stained", 0.09, "blank"),
    ],
)
def test_each_limit_has_its_reason(measure, value, reason) -> None:
    grid, measures = few_tiles(**{measure: value})
    quality = judged(grid, measures, QualityLimits(), np.ones(grid.shape, np.bool_))
    assert quality.shares == {next(key for key, title in REASONS.items() if title == reason): 0.5}
    assert tile_in_words(quality, 0, 0) == ""
    assert tile_in_words(quality, 0, 1) == f"poor: {reason}"
    assert np.isnan(quality_map(quality).values[0, 0])


def test_what_was_not_measured_is_not_poor() -> None:
    grid, measures = few_tiles(blur_um=np.nan)
    assert judged(grid, measures, QualityLimits(), np.ones(grid.shape, np.bool_)).share == 0


def test_tiles_off_the_tissue_count_in_no_share() -> None:
    grid, measures = few_tiles(tissue=0.2)
    counted = np.array([[True, False]])
    quality = judged(grid, measures, QualityLimits(), counted)
    assert quality.reasons.tolist() == [[0, FLAGS[OUTSIDE]]]
    assert quality.share == 0


def test_limits_are_read_and_wrong_ones_are_refused(tmp_path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text("most_blur_um = 2\nfold_times = 1.8\n")
    assert read_limits(path) == QualityLimits(most_blur_um=2.0, fold_times=1.8)
    path.write_text("most_blurr = 2\n")
    with pytest.raises(JobFailed, match=r"most_blurr.*most_blur_um"):
        read_limits(path)
    for wrong in ('most_blur_um = "much"', "most_blur_um = true", "most_pen = -1", "most_blur_um = nan"):
        path.write_text(wrong)
        with pytest.raises(JobFailed):
            read_limits(path)


def test_a_scoring_leaves_poor_tiles_out_and_lists_them(half_blurred, mpp, tiny_model, tmp_path) -> None:
    with open_slide(half_blurred, mpp=mpp) as slide:
        plain = score_slide(slide, tiny_model)
        left = score_slide(slide, tiny_model, leave_out_poor=True)
    quality = left.slides[0].quality
    assert plain.slides[0].quality is None
    assert 0.3 < quality.share < 0.7
    assert len(left.table) == len(plain.table) - quality.poor.sum()
    assert not quality.poor[tuple(left.table.index.T)].any()
    assert any("learnt with it" in line for line in left.warnings)
    assert left.tissue_mm2 < plain.tissue_mm2
    folder = write_result(left, tmp_path)
    kept = read_kept(folder / "result.her2").slides[0].quality
    assert np.array_equal(kept.reasons, quality.reasons)
    assert (kept.limits, kept.left_out) == (quality.limits, True)
    values = json.loads((folder / "result.json").read_text())
    assert values["slides"][0]["left_out"]["share"] == pytest.approx(quality.share)
    assert set(values["slides"][0]["left_out"]["reasons"]) == {"out of focus"}
    rows = rows_of(folder / "quality.csv")
    assert {(int(row["row"]), int(row["column"])) for row in rows} == set(
        map(tuple, np.argwhere(quality.poor))
    )
    assert {(row["reason"], row["left_out"]) for row in rows} == {("out of focus", "yes")}
    assert {row["quality"] for row in rows_of(folder / "tiles.csv")} == {"good"}
    assert "quality" not in rows_of(write_result(plain, tmp_path / "b") / "tiles.csv")[0]


def test_a_slide_of_which_everything_is_poor_is_refused(he_slide, mpp, tiny_model, tmp_path) -> None:
    path = altered(tmp_path / "soft.png", he_slide, lambda rgb: cv2.GaussianBlur(rgb, (0, 0), 3 / mpp))
    with open_slide(path, mpp=mpp) as slide, pytest.raises(SlideError, match=r"out of focus.*scan the slide"):
        score_slide(slide, tiny_model, leave_out_poor=True)


def test_the_wish_of_the_user_goes_before_what_the_model_learnt(tiny_bundle) -> None:
    card = tiny_bundle.card
    assert card.quality == "off"
    assert not ScoringOptions().leaves_out_poor(card)
    assert ScoringOptions(leave_out_poor=True).leaves_out_poor(card)


def test_focus_is_the_one_measure_of_cells_and_quality() -> None:
    plane = np.zeros((128, 128), np.float32)
    assert np.isnan(focus_of(plane, 128, 0.5)).all()


def test_a_request_remembers_the_wish_and_older_requests_stay_what_they_were(
    half_blurred, mpp, tiny_model, tmp_path
) -> None:
    # Scored without, then with: the second run may not take the first answer for its own; then both may.
    case = Case(half_blurred, mpp=mpp)

    def states(**options) -> list[str]:
        made = finished(
            score_cohort_steps([case], str(tiny_model), tmp_path, skip_finished=True, device="cpu", **options)
        )
        return [outcome.state for outcome in made.outcomes]

    assert states() == ["done"]
    request = json.loads((tmp_path / "half" / "result.json").read_text())["request"]
    assert not any("poor" in name or "quality" in name for name in request["options"])
    assert states() == ["skipped"]
    assert states(leave_out_poor=True) == ["done"]
    assert states(leave_out_poor=True) == ["skipped"]
    other = QualityLimits(most_blur_um=1.5)
    assert states(leave_out_poor=True, quality_limits=other) == ["done"]
    (tmp_path / "half" / "quality.csv").unlink()
    assert states(leave_out_poor=True, quality_limits=other) == ["done"]


def test_the_command_line_leaves_out_and_takes_limits(half_blurred, mpp, tiny_model, tmp_path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("most_blur_um = 3.9\n")
    common = ["score", str(half_blurred), "--model", str(tiny_model), "--mpp", str(mpp), "--device", "cpu"]
    run = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "a"), "--leave-out-poor"])
    assert run.exit_code == 0, run.output
    assert "of the tissue left out" in " ".join(run.output.split())
    run = CliRunner().invoke(
        app,
        [*common, "--out", str(tmp_path / "b"), "--leave-out-poor", "--quality-limits", str(limits)],
    )
    assert run.exit_code == 0, run.output
    found = [
        json.loads((tmp_path / each / "half" / "result.json").read_text())["slides"][0]["left_out"]
        for each in "ab"
    ]
    assert found[0]["share"] > 0.3 > found[1]["share"]
    assert found[1]["limits"]["most_blur_um"] == 3.9
    limits.write_text("most_blur_um = 99\n")
    run = CliRunner().invoke(
        app, [*common, "--out", str(tmp_path / "c"), "--leave-out-poor", "--quality-limits", str(limits)]
    )
    assert run.exit_code != 0
    assert "most_blur_um" in run.output


def test_a_damaged_slide_is_judged_where_it_can_be_read(damaged_slide) -> None:
    with open_slide(damaged_slide) as slide:
        quality = finished(quality_steps(slide, slide.tile_grid(96, 0.5), slide.tissue(), QualityLimits()))
    assert quality.share <= 0.02


def test_looking_stops_when_it_is_closed_and_the_slide_stays_usable(he_slide) -> None:
    with open_slide(he_slide) as slide:
        steps = quality_steps(slide, slide.tile_grid(96, 0.5), slide.tissue(), QualityLimits())
        seen = [next(steps) for _ in range(3)]
        steps.close()
        assert all(0 <= done <= total for _, done, total in seen)
        assert slide.read(0, 0, 0, 8, 8).shape == (8, 8, 3)
