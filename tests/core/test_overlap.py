"""Scoring with overlapping tiles: only the maps change, and they are what the shifted tiles say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import shapely
import tifffile
from typer.testing import CliRunner

from napari_her2 import open_slide, score_slide
from napari_her2.cli import app
from napari_her2.cohort.score_job import Case, ScoreJob
from napari_her2.export.kept_result import KEPT_NAME, read_kept
from napari_her2.export.map_images import NUMBERS_FILE, SMOOTH_FILE, write_map_images
from napari_her2.export.tables import write_result
from napari_her2.inference.device import choose_device
from napari_her2.inference.embed import embed_steps
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.overlapping import shifts_of
from napari_her2.inference.withheld import without_answer
from napari_her2.methods.catalogue import METHODS
from napari_her2.methods.rebuilding import rebuilt
from napari_her2.methods.scoring import again, score_steps
from napari_her2.models.bundle import load_bundle
from napari_her2.reports.replay import compared, replay_steps
from napari_her2.steps import finished

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide

HALF = {"device": "cpu", "overlap": 0.5}
OF_TILES = ("attention-mil", "ensemble", "pair", "fields", "patches", "clam-mb", "dsmil", "transmil")
OTHERS = ("low-resolution", "cells")

pytestmark = pytest.mark.usefixtures("features_are_kept")


@pytest.fixture(scope="module")
def smooth(he_slide, tiny_model) -> SlideResult:
    """The H&E slide scored with tiles that overlap by half."""
    return score_slide(he_slide, tiny_model, cache=False, **HALF)


def without_maps(result: SlideResult) -> SlideResult:
    return replace(result, slides=tuple(replace(slide, smooth=()) for slide in result.slides))


@pytest.mark.parametrize("name", OF_TILES)
def test_the_score_is_that_of_tiles_side_by_side_bit_for_bit(name: str, asked, results) -> None:
    made = score_slide(**asked[name].arguments(), **HALF)
    assert all(slide.smooth for slide in made.slides)
    assert compared(results[name], without_maps(made)).found == ()
    for slide in made.slides:
        plain = {(of.kind, of.class_name, of.info.scale) for of in slide.maps}
        assert {(of.kind, of.class_name, of.info.scale) for of in slide.smooth} <= plain
        fine = slide.smooth[0].grid
        assert fine.tile_um == slide.grid.tile_um / 2
        seen = np.isfinite(slide.smooth[0].values)
        for row, col in slide.table.index.tolist():  # every tile covers its four squares
            assert seen[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].all()


def test_every_method_of_tiles_has_smoother_maps_and_the_others_say_why_not() -> None:
    without = {name for name, method in METHODS.items() if method.no_overlap}
    assert without == {"low-resolution", "ihc-rules"}


@pytest.mark.parametrize("name", OTHERS)
def test_methods_without_tiles_ignore_it_in_words(name: str, asked, results) -> None:
    made = score_slide(**asked[name].arguments(), **HALF)
    assert "were asked for and ignored" in made.warnings[-1]
    assert METHODS[made.method].no_overlap in made.warnings[-1]
    assert not any(slide.smooth for slide in made.slides)
    assert made.score == results[name].score


def features_at(slide, bundle, shift) -> tuple[np.ndarray, np.ndarray]:
    grid = slide.tile_grid(96, 0.5, shift)
    keep = slide.tissue().keep(grid, 0.5)
    found = finished(embed_steps(slide, bundle.patch_encoder, grid, keep, choose_device("cpu")))
    return found.index, found.features.astype(np.float64)


def test_attention_and_evidence_follow_the_formulas(precision: str, he_slide, tiny_model) -> None:
    made = score_slide(he_slide, tiny_model, **HALF)
    assert made.precision == precision
    bundle = load_bundle(tiny_model)
    weights = {name: value.double().numpy() for name, value in bundle.head.state_dict().items()}

    def scores_of(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hidden = np.tanh(features @ weights["project.weight"].T + weights["project.bias"])
        energy = hidden @ weights["attend.weight"].T + weights["attend.bias"]
        return energy[:, 0], features @ weights["classifier.weight"].T

    fine = made.slides[0].smooth[0].grid
    sums, counts = np.zeros((*fine.shape, 5)), np.zeros(fine.shape)
    with open_slide(he_slide) as slide:
        total, tiles = 0.0, 0
        for shift in ((0.0, 0.0), *shifts_of(0.5)):
            index, features = features_at(slide, bundle, shift)
            energy, votes = scores_of(features)
            if not tiles:
                total, tiles = np.exp(energy).sum(), len(index)
            weight = np.exp(energy) / total  # of the bag that makes the score
            values = np.column_stack([weight, weight[:, None] * votes * tiles])
            for (row, col), own in zip(index + np.array(shift), values, strict=True):
                box = slice(round(2 * row), round(2 * row) + 2), slice(round(2 * col), round(2 * col) + 2)
                sums[box] += own
                counts[box] += 1
    with np.errstate(invalid="ignore"):
        expected = sums / counts[..., None]
    found = {(of.kind, of.class_name): of.values for of in made.slides[0].smooth if of.info.scale == "raw"}
    np.testing.assert_allclose(found["attention", None], expected[..., 0], rtol=2e-4)
    for number, name in enumerate(made.classes):
        np.testing.assert_allclose(found["evidence", name], expected[..., number + 1], rtol=2e-3, atol=1e-4)


def test_a_shifted_tile_has_the_pixels_of_its_place(he_slide) -> None:
    with open_slide(he_slide) as slide:
        grid = slide.tile_grid(96, 0.5, (0.5, 0.25))
        keep = np.zeros(grid.shape, bool)
        keep[3, 5] = keep[7, 2] = True
        (batch,) = slide.tiles(tile_px=96, mpp=0.5, keep=keep, shift=(0.5, 0.25))
        assert batch.origins_px0.tolist() == [[336, 504], [720, 216]]  # the slide has 0.5 µm/px
        for image, (y, x) in zip(batch.images, batch.origins_px0.tolist(), strict=True):
            np.testing.assert_array_equal(image, slide.read(0, y, x, 96, 96))


def test_tissue_of_a_shifted_grid_is_that_of_its_places(he_slide) -> None:
    with open_slide(he_slide) as slide:
        tissue = slide.tissue()
        share = tissue.fraction(slide.tile_grid(96, 0.5, (0.5, 0.25)))
        # The mask as an image of level-0 pixels, and its mean over 96 of them.
        full = cv2.resize(tissue.mask.astype(np.float32), slide.shape[::-1], interpolation=cv2.INTER_NEAREST)
    means = [[full[y : y + 96, x : x + 96].mean() for x in range(24, 1441, 96)] for y in range(48, 1441, 96)]
    assert share.shape == np.shape(means)
    np.testing.assert_allclose(share, means, atol=0.03)


def test_the_second_time_is_from_the_cache(he_slide, tiny_model) -> None:
    def embedded() -> list[str]:
        steps = score_steps(he_slide, tiny_model, **HALF)
        return [step.note for step in steps if "smoother maps" in step.stage]

    embedded()
    notes = embedded()
    assert len(notes) == 3
    assert all("from the cache" in note for note in notes)


def test_damaged_and_excluded_places_have_no_value(damaged_slide, he_slide, tiny_model) -> None:
    hurt = score_slide(damaged_slide, tiny_model, **HALF).slides[0]
    whole = score_slide(he_slide, tiny_model, **HALF).slides[0]
    lost = np.isfinite(whole.smooth[0].values) & np.isnan(hurt.smooth[0].values)
    assert lost.any()
    # A compressed tile of 256 px, and nothing farther off than a tile of 96 px from it, has lost its value.
    rows, cols = np.nonzero(lost)
    assert (np.ptp(rows) + 1) * 48 <= 256 + 2 * 96
    assert (np.ptp(cols) + 1) * 48 <= 256 + 2 * 96
    box = shapely.box(500, 500, 900, 1000)
    inside = score_slide(he_slide, tiny_model, regions=[box], **HALF).slides[0]
    seen = np.argwhere(np.isfinite(inside.smooth[0].values)) * 48  # (y, x) of the corner of each square
    # Tiles count by their centre, so that squares lie up to half a tile beside the region.
    assert (seen.min(axis=0) >= [500 - 96, 500 - 96]).all()
    assert (seen.max(axis=0) <= [1000 + 48, 900 + 48]).all()
    assert np.isfinite(inside.smooth[0].values).sum() > 4 * len(inside.table)


def test_poor_tissue_is_left_out_of_shifted_tiles_too(he_slide, tiny_model, tmp_path) -> None:
    path = tmp_path / "half.tif"
    with open_slide(he_slide) as slide:
        rgb = slide.read(0, 0, 0, *slide.shape)
    rgb[:, :768] = cv2.GaussianBlur(rgb, (0, 0), 9)[:, :768]
    description = "Aperio Image Library v1.0\n1536x1536 (256x256)|AppMag = 20|MPP = 0.5"
    tifffile.imwrite(path, rgb, tile=(256, 256), photometric="rgb", description=description, metadata=None)
    made = score_slide(path, tiny_model, leave_out_poor=True, **HALF).slides[0]
    assert made.quality is not None
    blurred = made.quality.poor[:, :6].mean()
    if blurred < 0.3:
        pytest.skip("a phantom of 0.5 µm/px is too soft for the limits of focus")
    seen = np.isfinite(made.smooth[0].values)
    for row, col in np.argwhere(made.quality.poor).tolist():
        poor = made.quality.poor[max(0, row - 1) : row + 2, max(0, col - 1) : col + 2]
        if poor.all():  # no tile around it is good
            assert not seen[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].all()


def test_other_regions_have_plain_maps_until_they_are_scored(he_slide, tiny_model) -> None:
    kept: list = []
    with open_slide(he_slide) as slide:
        first = finished(score_steps(slide, tiny_model, kept=kept, **HALF))
        region = [shapely.box(300, 300, 1200, 1200)]
        other, back = again(kept[0], region), again(kept[0], None)
        fresh = score_slide(slide, tiny_model, regions=region, device="cpu")
    assert not other.slides[0].smooth
    assert other.asked is not None
    assert other.asked.options.overlap == 0.0
    assert compared(fresh, other).found == ()
    assert compared(first, back).found == ()
    assert back.asked == first.asked


def test_what_was_kept_is_made_again_with_its_smoother_maps(he_slide, tiny_model) -> None:
    with open_slide(he_slide) as slide:
        first = score_slide(slide, tiny_model, **HALF)
        made = finished(rebuilt(first, [slide]))
        back, other = again(made, None), again(made, [shapely.box(300, 300, 1200, 1200)])
    assert compared(first, back).found == ()
    assert back.asked == first.asked
    assert not other.slides[0].smooth


def test_tiles_of_several_slides_are_weighed_by_their_one_bag(he_slide, damaged_slide, tiny_model) -> None:
    further = [(damaged_slide, "H&E", None)]
    plain = finished(score_steps(he_slide, tiny_model, further=further, device="cpu"))
    joint = finished(score_steps(he_slide, tiny_model, further=further, **HALF))
    assert compared(plain, without_maps(joint)).found == ()
    alone = score_slide(he_slide, tiny_model, **HALF)
    share = joint.slides[0].table.attention / alone.slides[0].table.attention  # of the sum over both slides
    tiles = sum(len(slide.table) for slide in joint.slides) / len(alone.table)
    for own, other in zip(joint.slides[0].smooth, alone.slides[0].smooth, strict=True):
        factor = {"attention": 1.0, "evidence": tiles}[own.kind] * share.mean()
        if own.info.scale == "raw":
            np.testing.assert_allclose(own.values, other.values * factor, rtol=1e-4, atol=1e-7)
    assert all(slide.smooth for slide in joint.slides)


def test_it_is_kept_replayed_and_exported(smooth: SlideResult, tmp_path: Path) -> None:
    folder = write_result(smooth, tmp_path)
    kept = read_kept(folder / KEPT_NAME)
    assert compared(smooth, kept).found == ()
    assert [of.info for of in kept.slides[0].smooth] == [of.info for of in smooth.slides[0].smooth]
    done = finished(replay_steps(folder))
    assert done.found == ()
    assert done.result.slides[0].smooth
    with np.load(folder / "maps.npz") as maps:
        np.testing.assert_array_equal(maps["attention"], smooth.map("attention").values)
        own = next(of for of in smooth.slides[0].smooth if of.name == "attention")
        np.testing.assert_array_equal(maps["smooth_attention"], own.values)
        assert float(maps["smooth_cell_um"]) == 24.0
    written = write_map_images(smooth, tmp_path / "images")
    numbers = tifffile.imread(tmp_path / "images" / SMOOTH_FILE)
    assert numbers.shape == (len(smooth.slides[0].smooth), 32, 32)
    assert tifffile.imread(tmp_path / "images" / NUMBERS_FILE).shape[1:] == (16, 16)
    assert len({path.name for path in written}) == len(written)


def test_tables_and_outlines_are_those_of_the_tiles(smooth: SlideResult, scored, tmp_path: Path) -> None:
    made, plain = write_result(smooth, tmp_path / "a"), write_result(scored, tmp_path / "b")
    for name in ("tiles.csv", "regions.geojson"):
        assert (made / name).read_bytes() == (plain / name).read_bytes()


def test_a_withheld_answer_takes_its_smoother_maps_along(asked) -> None:
    hidden = without_answer(score_slide(**asked["withheld"].arguments(), **HALF))
    assert hidden.doubt.hidden
    assert {of.class_name for of in hidden.slides[0].smooth} == {None}


def test_overlays_show_the_smoother_map_in_place_of_the_other(smooth: SlideResult) -> None:
    slide: ScoredSlide = smooth.slides[0]
    shown = {overlay.kind: overlay.chosen("3+") for overlay in slide.overlays}
    assert shown["attention"] in slide.smooth
    assert shown["evidence"] in slide.smooth
    assert shown["tissue"].mask is slide.tissue


def test_the_command_line_takes_it_and_refuses_what_there_is_not(he_slide, tiny_model, tmp_path) -> None:
    common = ["score", str(he_slide), "--model", str(tiny_model), "--device", "cpu", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*common, "--overlap", "0.5"])
    assert done.exit_code == 0, done.output
    (kept,) = tmp_path.glob(f"*/{KEPT_NAME}")
    assert read_kept(kept).slides[0].smooth
    assert CliRunner().invoke(app, [*common, "--overlap", "0.4"]).exit_code == 2


def test_a_run_without_overlap_does_not_finish_one_with_it(he_slide, tiny_model, tmp_path) -> None:
    def state(overlap: float) -> str:
        job = ScoreJob(Case(he_slide), tmp_path, ScoringOptions(overlap=overlap), "cpu").unless_finished()
        return finished(job.steps(load_bundle(tiny_model))).state

    assert [state(0.0), state(0.5), state(0.5)] == ["done", "done", "skipped"]
