"""HER2 IHC by rules, from a slide to its result: what gives a score, and what gives a reason instead."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import shapely
import tifffile
from typer.testing import CliRunner

from napari_her2 import open_slide, score_slide
from napari_her2.cells import quality
from napari_her2.cells.calibration import Calibration
from napari_her2.cells.calibration_store import keep_calibration
from napari_her2.cells.measuring import MPP
from napari_her2.cells.rules import CLASSES, Rules
from napari_her2.cells.rules_file import read_rules
from napari_her2.cells.stains import fit_stains
from napari_her2.cli import app
from napari_her2.cohort.run import score_cohort_steps
from napari_her2.cohort.score_job import Case
from napari_her2.errors import Her2Error, JobFailed, ModelError, ModelMisfit, SlideError
from napari_her2.export.tables import write_result
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.region_kinds import Region
from napari_her2.methods.catalogue import METHODS, available_models, can_explain
from napari_her2.steps import finished

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.whole_slide import Slide

NAME = "ihc-rules"
METHOD = METHODS[NAME]


@pytest.fixture
def case(small_pair):
    return small_pair


@pytest.fixture(scope="session")
def slide(small_pair):
    """The IHC slide, open: its tissue is found once."""
    with open_slide(small_pair.ihc) as opened:
        yield opened


@pytest.fixture(scope="session", autouse=True)
def _one_cache(tmp_path_factory):
    """Cells of the session are read once; `_own_folders` gives every test an empty cache otherwise."""
    return tmp_path_factory.mktemp("cells")


@pytest.fixture(autouse=True)
def _kept_cells(
    _own_folders: None, _one_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(_one_cache))
    monkeypatch.setenv("NAPARI_HER2_CALIBRATIONS", str(tmp_path / "calibrations"))
    # A phantom drawn at 0.5 µm/px is softer than a scan: focus is not what most tests here are about.
    monkeypatch.setattr(quality, "MOST_BLUR_UM", 1.0)


def scored(path: Path | Slide, regions=None, **options) -> SlideResult:
    return score_slide(path, NAME, regions=regions, device="cpu", **options)


@pytest.fixture
def result(case, slide) -> SlideResult:
    return scored(slide, case.regions)


def test_it_stands_among_the_models_without_weights() -> None:
    entry = next(entry for entry in available_models() if entry.name == NAME)
    assert METHOD.title == "HER2 IHC by rules (ASCO/CAP 2018, affirmed 2023)"
    assert entry.card.training_data == "none: thresholds chosen on few images, not validated"
    assert "Research use only" in entry.card.notice
    assert "not validated" in entry.card.notice
    assert can_explain(entry.card, "cells")
    assert not METHOD.takes_pair


def test_a_drawn_tumour_gives_a_score_with_all_that_is_measured(result: SlideResult, tmp_path: Path) -> None:
    reading = result.slides[0].cells
    counted = reading.classes[reading.counted]
    shares = 100 * np.bincount(counted, minlength=4) / len(counted)
    measures = result.measures
    assert list(measures["percentages"]) == list(CLASSES)
    np.testing.assert_allclose(list(measures["percentages"].values()), shares, atol=1e-9)
    assert measures["cells"] == len(counted) > 100
    assert measures["membrane_staining"] == pytest.approx(shares[1:].sum())
    assert measures["h_score"] == pytest.approx(shares @ [0, 1, 2, 3])
    assert result.score in CLASSES
    assert (result.probabilities, result.reason) == ({}, "")
    assert result.label.startswith(result.score)
    assert result.task.endswith("uncalibrated")
    assert "not validated" in result.notice
    told = json.loads((write_result(result, tmp_path) / "result.json").read_text(encoding="utf-8"))
    for name in ("percentages", "cells", "membrane_staining", "h_score", "borderline", "calibration"):
        assert told[name] == measures[name]
    assert (told["calibration"], told["confidence"]) == (None, None)
    folder = tmp_path / result.slide
    rows = (folder / "cells.csv").read_text(encoding="utf-8").count("\n") - 1
    assert rows == measures["cells_read"] == len(reading.cells)
    assert (folder / "cells.geojson").is_file()


def test_bars_facts_and_maps_say_what_was_measured(result: SlideResult) -> None:
    bars = METHOD.bars(result)
    assert bars.title == "Share of cells"
    assert sum(bars.shares.values()) == pytest.approx(1)
    facts = dict(METHOD.facts(result))
    assert facts["calibration"] == "uncalibrated, gain 1"
    assert facts["basis"] == "measured by rules, thresholds chosen on few images, not validated"
    assert {"criterion", "membrane staining", "summary"} <= facts.keys()
    kinds = {overlay.kind for overlay in result.overlays}
    assert {"cells", "cells of a class", "completeness", "cell density"} <= kinds


def test_without_a_drawn_tumour_there_are_percentages_and_no_score(slide) -> None:
    found = scored(slide)
    assert (found.score, found.abstained) == ("", True)
    assert "No tumour region is drawn" in found.reason
    assert found.measures["cells_of"] == "all cells"
    assert found.measures["cells"] > 100
    assert found.measures["left_out"] == 0


def test_cells_of_excluded_regions_do_not_count(slide, result: SlideResult) -> None:
    height, width = slide.shape
    upper = Region(shapely.box(0, 0, width, height / 2), "clot", "necrosis")
    whole = Region(shapely.box(0, 0, width, height), "all")
    all_cells = scored(slide, [whole])
    lower = scored(slide, [whole, upper])
    y = lower.slides[0].cells.cells.centre_um[:, 0] / 0.5
    assert (lower.slides[0].cells.region[y < height / 2] == -1).all()
    assert 0 < lower.measures["cells"] < all_cells.measures["cells"]
    assert "necrosis" in (lower.regions or "")


def test_a_region_of_forty_cells_gives_no_score(slide, result: SlideResult) -> None:
    reading = result.slides[0].cells
    inside = reading.cells.centre_um[reading.counted]
    middle = inside[len(inside) // 2]
    distance = np.sort(np.linalg.norm(inside - middle, axis=1))
    y, x = middle / 0.5
    small = scored(slide, [shapely.Point(x, y).buffer(float(distance[39]) / 0.5)])
    # What is left out depends on the nuclei that were read, so that there are not quite as many again.
    assert 20 <= small.measures["cells"] <= 60
    assert small.score == ""
    assert "at least 100 are needed" in small.reason


def test_a_region_outside_the_tissue_is_told(slide) -> None:
    for region in (shapely.box(5, 5, 40, 40), shapely.box(50_000, 50_000, 60_000, 60_000)):
        found = scored(slide, [region])
        assert (found.score, found.measures["cells"]) == ("", 0)
        assert "outside the tissue" in found.reason
        assert np.isnan(found.measures["h_score"])


def test_a_cell_of_many_regions_counts_once(slide, result: SlideResult) -> None:
    height, width = slide.shape
    many = [shapely.box(0, 0, width, height * (16 - k) / 16) for k in range(16)]
    overlapping, one = scored(slide, many), scored(slide, [many[0]])
    assert overlapping.measures["cells"] == one.measures["cells"]
    assert overlapping.measures["percentages"] == one.measures["percentages"]
    regions = overlapping.measures["regions_cells"]
    assert len(regions) == 16
    assert regions[0]["cells"] == one.measures["cells"]


@pytest.mark.parametrize("mpp", [1.0, 2.0])
def test_a_slide_too_coarse_for_membranes_is_refused(case, mpp: float) -> None:
    with open_slide(case.ihc, mpp=mpp) as slide, pytest.raises(ModelMisfit, match="Membranes cannot be seen"):
        score_slide(slide, NAME, device="cpu")


def test_a_coarse_slide_that_is_insisted_on_has_no_score_either(case) -> None:
    with open_slide(case.ihc, mpp=0.65) as slide:
        found = score_slide(slide, NAME, regions=case.regions, device="cpu", override_fit=True, cache=False)
    assert found.score == ""
    assert "Membranes cannot be seen" in found.reason


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [("blurred", "out of focus"), ("no brown", "no brown anywhere"), ("no blue", "counterstain is too weak")],
)
def test_a_slide_that_shows_no_membranes_gives_a_reason(
    slide, tmp_path: Path, spoilt: str, words: str
) -> None:
    y, x = np.argwhere(slide.tissue().mask).mean(axis=0) * slide.tissue().downsample
    rgb = slide.read(0, int(y) - 400, int(x) - 400, 800, 800)
    tumour = Region(shapely.box(0, 0, 800, 800), "all")
    if spoilt == "blurred":
        rgb = cv2.GaussianBlur(rgb, (0, 0), 1.2 / MPP)
    else:
        stains = fit_stains([rgb])
        h, dab = stains.unmixed(rgb)
        h, dab = (h, 0 * dab) if spoilt == "no brown" else (0 * h, dab)
        density = h[..., None] * stains.haematoxylin + dab[..., None] * stains.dab
        rgb = np.clip((stains.white + 1) * 10**-density - 1, 0, 255).astype(np.uint8)
    path = tmp_path / "spoilt.tif"
    tifffile.imwrite(path, rgb, tile=(256, 256), photometric="rgb", metadata=None)
    with open_slide(path, mpp=MPP) as other:
        found = score_slide(other, NAME, regions=[tumour], device="cpu", override_fit=True, cache=False)
    assert found.score == ""
    assert words in found.reason


def test_he_is_refused_and_gives_no_score_where_insisted_on(case) -> None:
    with pytest.raises(ModelMisfit, match="looks like H&E"):
        scored(case.he, case.regions)
    found = scored(case.he, case.regions, override_fit=True)
    assert "looks like H&E" in found.task
    assert found.warnings


def test_what_is_no_ihc_slide_is_refused_in_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    dark = np.zeros((1200, 1200, 3), np.uint8)
    dark[300:900, 300:900] = rng.integers(0, 200, (600, 600, 3), dtype=np.uint8)
    for name, image in (("dark", dark), ("blank", np.full((1200, 1200, 3), 240, np.uint8))):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", metadata=None)
        with open_slide(path) as slide, pytest.raises(SlideError, match="µm/px"):
            score_slide(slide, NAME, device="cpu")
        with open_slide(path, mpp=0.5) as slide, pytest.raises(Her2Error):
            score_slide(slide, NAME, device="cpu")


def test_a_calibration_is_chosen_by_name_and_told(case, slide, result: SlideResult) -> None:
    with pytest.raises(JobFailed, match="No calibration is called lab A"):
        scored(slide, case.regions, calibration="lab A")
    keep_calibration(Calibration("lab A", 2.0, "2026-11-28", "control", "0" * 64, 100))
    found = scored(slide, case.regions, calibration="lab A")
    assert found.measures["calibration"] == "lab A"
    assert found.measures["rules"]["gain"] == 2.0
    assert found.task.endswith("calibrated by lab A")
    assert found.measures["h_score"] < result.measures["h_score"]


def test_other_rules_judge_the_same_cells_as_a_new_scoring_would(case, slide, result: SlideResult) -> None:
    rules = Rules(mass=(0.1, 0.2, 0.3), gain=1.5)
    again, anew = METHOD.rejudged(result, rules, ""), scored(slide, case.regions, rules=rules)
    assert again.measures.keys() == anew.measures.keys()
    for name in set(again.measures) - {"processor_seconds"}:
        assert again.measures[name] == anew.measures[name], name
    assert (again.label, again.task, set(again.warnings)) == (anew.label, anew.task, set(anew.warnings))
    assert any("Thresholds changed" in warning for warning in again.warnings)
    for one, two in zip(again.maps, anew.maps, strict=True):
        assert one.info == two.info
        np.testing.assert_array_equal(one.values, two.values)
    back = METHOD.rejudged(again, Rules(), "")
    assert (back.label, back.warnings) == (result.label, result.warnings)
    assert back.measures == result.measures


def test_rules_and_calibration_are_for_models_of_cells(he_slide: Path, tiny_bundle) -> None:
    with pytest.raises(ModelError, match="judges no cells"):
        score_slide(he_slide, tiny_bundle, device="cpu", rules=Rules())
    with pytest.raises(JobFailed, match="calibration"):
        ScoringOptions(gain=2.0)


def test_a_slide_cut_off_in_the_region_is_refused(case, tmp_path: Path) -> None:
    path = tmp_path / "cut.svs"
    data = case.ihc.read_bytes()
    with tifffile.TiffFile(case.ihc) as file:
        page = file.pages[0]
        half = page.dataoffsets[len(page.dataoffsets) // 2]
    # The directories stay where they are, the lower half of the pixels is gone.
    end = max(page.dataoffsets) + page.databytecounts[int(np.argmax(page.dataoffsets))]
    path.write_bytes(data[:half] + bytes(end - half) + data[end:])
    with open_slide(path) as slide, pytest.raises(Her2Error, match=r"damaged|cut off"):
        score_slide(slide, NAME, regions=case.regions, device="cpu", cache=False)


def test_a_batch_has_a_row_a_slide_and_knows_what_is_finished(case, tmp_path: Path) -> None:
    cases = [Case(case.ihc, regions=case.regions), Case(case.he)]
    report = finished(score_cohort_steps(cases, NAME, tmp_path, device="cpu"))
    assert [outcome.state for outcome in report.outcomes] == ["done", "failed"]
    with (tmp_path / "scores.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    row = rows[case.ihc.name]
    assert row["calibration"] == "uncalibrated"
    assert sum(float(row[f"cells {name} (%)"]) for name in CLASSES) == pytest.approx(100, abs=0.05)
    assert "looks like H&E" in rows[case.he.name]["error"]
    skip = finished(score_cohort_steps(cases[:1], NAME, tmp_path, device="cpu", skip_finished=True))
    assert [outcome.state for outcome in skip.outcomes] == ["skipped"]
    other = finished(
        score_cohort_steps(cases[:1], NAME, tmp_path, device="cpu", skip_finished=True, rules=Rules(gain=1.2))
    )
    assert [outcome.state for outcome in other.outcomes] == ["done"]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(item) for item in arguments])


def test_the_command_takes_regions_calibration_and_rules(case, tmp_path: Path) -> None:
    keep_calibration(Calibration("lab A", 1.5, "2026-11-28", "control", "0" * 64, 100))
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"completeness": [0.3, 0.5, 0.6], "contrast": 0.12}), encoding="utf-8")
    regions = tmp_path / "drawn"
    regions.mkdir()
    shutil.copy(case.regions, regions / f"{case.ihc.stem}.geojson")
    wanted = ("score", case.ihc, "--model", NAME, "--device", "cpu", "--calibration", "lab A")
    done = run(*wanted, "--regions", regions, "--rules", rules, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    for words in ("calibrated by lab A", "not validated", "Research use only", "Thresholds changed"):
        assert words in shown
    file = tmp_path / "out" / case.ihc.stem / "result.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    assert (told["calibration"], told["rules"]["gain"], told["rules"]["contrast"]) == ("lab A", 1.5, 0.12)
    assert told["rules_changed"]
    # The rules of a result are rules for the next one; the gain is that of its calibration again.
    assert read_rules(file) == Rules(completeness=(0.3, 0.5, 0.6), contrast=0.12, gain=1.5)
    again = run(*wanted, "--regions", regions, "--rules", file, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    other = json.loads((tmp_path / "again" / case.ihc.stem / "result.json").read_text(encoding="utf-8"))
    assert other["percentages"] == told["percentages"]


def test_the_command_refuses_in_words(case, tmp_path: Path) -> None:
    wanted = ("score", case.ihc, "--model", NAME, "--device", "cpu", "--out", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    missing = run(*wanted, "--regions", tmp_path / "empty")
    assert missing.exit_code == 1
    assert "holds no" in missing.stderr
    for text, words in (
        ('{"colour": 1}', "no rule"),
        ('{"gain": "much"}', "no number"),
        ('{"completeness": 0.5}', "no list"),
        ('{"gastric": 1}', "not one like"),
        ('{"mass": [3, 2, 1]}', "three numbers"),
        ('{"rules": 3}', "no rules"),
        ("[]", "rules.json"),
    ):
        path = tmp_path / "rules.json"
        path.write_text(text, encoding="utf-8")
        refused = run(*wanted, "--rules", path)
        assert refused.exit_code == 1
        assert words in refused.stderr, refused.stderr
    unknown = run(*wanted, "--calibration", "nobody")
    assert unknown.exit_code == 1
    assert "No calibration is called nobody" in unknown.stderr


def test_a_real_core_is_read_where_its_scale_is_given(shared_data: Path) -> None:
    found = sorted((shared_data / "her2_ihc_cores").glob("0_9b0f*.jpg"))
    if not found:
        pytest.skip("the cores of HER2 IHC are absent from the folder of real slides")
    with open_slide(found[0]) as slide, pytest.raises(SlideError, match="µm/px"):
        score_slide(slide, NAME, device="cpu")
    with open_slide(found[0], mpp=0.23) as slide:
        height, width = slide.shape
        tissue = shapely.Point(width / 2, height / 2).buffer(0.45 * height)
        core = score_slide(slide, NAME, regions=[tissue], device="cpu")
    assert core.score == "0"
    assert core.measures["cells"] > 500
