"""What the phantom's files hold, read by readers that know nothing of it."""

from __future__ import annotations

import csv
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import tiffslide
from shapely.geometry import box, shape
from skimage.color import rgb2hed
from skimage.draw import polygon2mask

from napari_her2.errors import JobFailed
from napari_her2.phantom import SCORES, cohort_steps, make_pair
from napari_her2.phantom.pair import _rendered as rendered
from napari_her2.phantom.svs import SlideSpool

SIZE = (1200, 1536)
SEED = 21


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    return {
        score: make_pair(folder, f"c{grade}", score=score, seed=SEED, size_px=SIZE)
        for grade, score in enumerate(SCORES)
    }


def pixels(path):
    with tiffslide.TiffSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]


def truth(pair):
    return json.loads(pair.truth_json.read_text(encoding="utf-8"))


def tumour_mask(pair):
    mask = np.zeros(SIZE, dtype=bool)
    for feature in json.loads(pair.regions.read_text(encoding="utf-8"))["features"]:
        polygon = shape(feature["geometry"])
        mask |= polygon2mask(SIZE, np.asarray(polygon.exterior.coords)[:, ::-1])
        for ring in polygon.interiors:
            mask &= ~polygon2mask(SIZE, np.asarray(ring.coords)[:, ::-1])
    return mask


def test_tiffslide_and_openslide_agree_on_a_slide(pairs):
    openslide = pytest.importorskip("openslide")
    for path in (pairs["3+"].he, pairs["3+"].ihc):
        with openslide.OpenSlide(path) as slide, tiffslide.TiffSlide(path) as other:
            assert slide.dimensions == other.dimensions == SIZE[::-1]
            assert slide.level_dimensions == other.level_dimensions == ((1536, 1200), (384, 300))
            assert slide.properties["openslide.vendor"] == "aperio"
            assert slide.properties["openslide.mpp-x"] == "0.5"
            assert slide.properties["openslide.objective-power"] == "20"
            assert other.properties["tiffslide.mpp-y"] == 0.5
            assert "napari-her2 phantom" in slide.properties["openslide.comment"]
            assert set(slide.associated_images) == {"label", "macro", "thumbnail"}
            for level in (0, 1):
                size = slide.level_dimensions[level]
                mine = np.asarray(slide.read_region((0, 0), level, size))[..., :3].astype(int)
                theirs = np.asarray(other.read_region((0, 0), level, size))[..., :3].astype(int)
                assert np.abs(mine - theirs).mean() < 1.5


def test_levels_show_the_same_picture(pairs):
    with tiffslide.TiffSlide(pairs["2+"].he) as slide:
        full = np.asarray(slide.read_region((0, 0), 0, (1536, 1200)))[..., :3].astype(float)
        quarter = np.asarray(slide.read_region((0, 0), 1, (384, 300)))[..., :3].astype(float)
    mean = full.reshape(300, 4, 384, 4, 3).mean((1, 3))
    # In grey: the colours of a level are stored at half its resolution.
    assert np.abs(mean.mean(axis=2) - quarter.mean(axis=2)).mean() < 2.5
    assert np.corrcoef(mean.ravel(), quarter.ravel())[0, 1] > 0.98


def test_the_same_seed_gives_the_same_slide_and_another_seed_another(pairs, tmp_path, monkeypatch):
    # One thread now, several before: the order of the blocks must not matter.
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    again = make_pair(tmp_path, "again", score="1+", seed=SEED, size_px=SIZE)
    other = make_pair(tmp_path, "other", score="1+", seed=SEED + 1, size_px=SIZE)
    for name in ("he", "ihc"):
        first = pixels(getattr(pairs["1+"], name))
        np.testing.assert_array_equal(first, pixels(getattr(again, name)))
        assert np.abs(first.astype(int) - pixels(getattr(other, name))).mean() > 5
    assert again.regions.read_bytes() == pairs["1+"].regions.read_bytes()
    endings = ("HE.svs", "HER2.svs", "truth.json", "tumour.geojson")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{case}_{ending}" for case in ("again", "other") for ending in endings}


@pytest.mark.parametrize(("fine", "coarse"), [(0.25, 0.5), (0.5, 1.0)])
def test_the_same_seed_shows_the_same_tissue_at_another_scale(tmp_path, fine, coarse):
    small = make_pair(tmp_path, "coarse", score="3+", seed=5, size_px=600, mpp=coarse)
    large = make_pair(tmp_path, "fine", score="3+", seed=5, size_px=1200, mpp=fine)
    for name in ("he", "ihc"):
        averaged = pixels(getattr(large, name)).reshape(600, 2, 600, 2, 3).mean((1, 3))
        direct = pixels(getattr(small, name)).astype(float)
        assert np.abs(averaged.mean((0, 1)) - direct.mean((0, 1))).max() < 2.0
        assert np.corrcoef(averaged.ravel(), direct.ravel())[0, 1] > 0.95


def test_truth_names_the_score_that_its_percentages_have(pairs):
    for score, pair in pairs.items():
        content = truth(pair)
        percent = content["percent_of_tumour_cells"]
        assert content["score"] == score
        assert content["synthetic"] is True
        assert content["statement"].startswith("synthetic")
        assert content["guideline"] == "ASCO/CAP 2018, affirmed 2023"
        assert (content["seed"], content["mpp"], content["size_px"]) == (SEED, 0.5, list(SIZE))
        assert sum(percent.values()) == pytest.approx(100, abs=0.01)
        intense, complete = percent["intense_complete"], percent["weak_moderate_complete"]
        if intense > 10:
            expected = "3+"
        elif complete + intense > 10:
            expected = "2+"
        else:
            expected = "1+" if percent["faint_incomplete"] > 10 else "0"
        assert expected == score


def test_dab_in_the_tumour_rises_with_the_score(pairs):
    means = []
    for score in SCORES:
        dab = rgb2hed(pixels(pairs[score].ihc))[..., 2]
        means.append(float(dab[tumour_mask(pairs[score])].mean()))
    assert means == sorted(means)
    assert means[3] > 1.5 * means[1]
    assert means[1] > means[0]


def test_regions_are_the_nests_of_both_slides(pairs):
    pair = pairs["3+"]
    mask = tumour_mask(pair)
    content = truth(pair)
    assert mask.mean() > 0.1
    # The area, in px, agrees with the area in mm² that truth states.
    assert mask.sum() * 0.5**2 / 1e6 == pytest.approx(content["tumour_area_mm2"], rel=0.02)
    haematoxylin = rgb2hed(pixels(pair.he))[..., 0]
    dab = rgb2hed(pixels(pair.ihc))[..., 2]
    grey = pixels(pair.he).mean(axis=2)
    stroma = ~mask & (grey < 215)
    assert haematoxylin[mask].mean() > 1.4 * haematoxylin[stroma].mean()
    assert dab[mask].mean() > 2 * dab[stroma].mean()


def test_regions_are_valid_polygons_within_the_slide(pairs):
    collection = json.loads(pairs["0"].regions.read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    assert collection["features"]
    for feature in collection["features"]:
        polygon = shape(feature["geometry"])
        assert polygon.is_valid
        assert polygon.area > 0
        assert polygon.within(box(-0.01, -0.01, SIZE[1] + 0.01, SIZE[0] + 0.01))
        assert feature["properties"]["classification"]["name"] == "Tumour"


def test_empty_glass_is_white_and_tissue_is_not(pairs):
    image = pixels(pairs["0"].he)
    assert image[:20, :20].mean() > 230
    assert image[tumour_mask(pairs["0"])].mean() < 200


def test_a_cohort_is_balanced_and_keeps_what_is_finished(tmp_path):
    def run():
        steps = cohort_steps(tmp_path, cases=4, seed=3, size_px=512, mpp=1.0)
        seen = []
        while True:
            try:
                seen.append(next(steps))
            except StopIteration as stop:
                return seen, stop.value

    seen, manifest = run()
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["score"] for row in rows) == ["0", "1+", "2+", "3+"]
    kept, lost = tmp_path / rows[0]["he"], tmp_path / rows[1]["ihc"]
    content = lost.read_bytes()
    os.utime(kept, (1, 1))
    lost.unlink()
    run()
    assert kept.stat().st_mtime == 1
    assert lost.read_bytes() == content


def test_a_cohort_takes_several_scanners_in_turn(tmp_path):
    for _ in cohort_steps(tmp_path, cases=3, seed=3, size_px=512, mpp=(1.0, 0.8)):
        pass
    found = []
    for path in sorted(tmp_path.glob("*_HE.svs")):
        with tiffslide.TiffSlide(path) as slide:
            found.append(float(slide.properties["tiffslide.mpp-x"]))
    assert found == [1.0, 0.8, 1.0]


def test_a_cohort_made_with_other_settings_is_made_anew(tmp_path):
    for size in (512, 640):
        for _ in cohort_steps(tmp_path, cases=1, seed=3, size_px=size, mpp=1.0):
            pass
    with tifffile.TiffFile(next(tmp_path.glob("*_HE.svs"))) as file:
        assert file.pages[0].shape[:2] == (640, 640)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"score": "4+"}, "score"), ({"mpp": 3.0}, "µm/px"), ({"size_px": 100}, "512 px")],
)
def test_impossible_settings_are_refused_in_words(tmp_path, settings, words):
    with pytest.raises(JobFailed, match=words):
        make_pair(tmp_path, "x", **{"score": "0", "seed": 1, "size_px": 512, **settings})
    assert not list(tmp_path.iterdir())


def test_a_slide_too_small_for_its_percentages_is_refused(tmp_path):
    with pytest.raises(JobFailed, match="tumour cells; make it larger"):
        make_pair(tmp_path, "x", score="0", seed=1, size_px=512, mpp=0.2)


def test_blocks_are_rendered_only_a_little_ahead_of_the_writer(monkeypatch):
    started = []

    def blank(scene, row, column, shape):
        started.append((row, column))
        image = np.zeros((*shape, 3), dtype=np.uint8)
        return image, image

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("napari_her2.phantom.pair.render_block", blank)
    blocks = rendered(SimpleNamespace(mpp=0.5), (1024 * 6, 1024 * 4))
    for taken in range(1, 6):
        next(blocks)
        assert taken <= len(started) <= taken + 4
    blocks.close()


def test_a_spool_of_a_huge_slide_holds_only_its_smallest_levels(tmp_path):
    spool = SlideSpool(tmp_path / "huge.svs", (40_000, 40_000), 0.5, "")
    held = sum(getattr(value, "nbytes", 0) for value in vars(spool).values())
    spool.discard()
    assert 0 < held <= (40_000 // 16) ** 2 * 3
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_no_half_written_slide(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_her2.phantom.pair.render_block", fail)
    with pytest.raises(JobFailed, match="No space left on device"):
        make_pair(tmp_path, "x", score="0", seed=1, size_px=1024)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JobFailed, match="choose a folder"):
        make_pair(tmp_path / "file" / "out", "x", score="0", seed=1, size_px=512)


def test_cases_kept_for_the_test_follow_and_change_no_other(tmp_path):
    def cohort(folder, test):
        for _ in cohort_steps(tmp_path / folder, cases=2, test=test, seed=3, size_px=512, mpp=1.0):
            pass
        with (tmp_path / folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    alone, kept = cohort("alone", 0), cohort("kept", 4)
    assert "split" not in alone[0]
    assert [row["split"] for row in kept] == ["", "", "test", "test", "test", "test"]
    assert [row["score"] for row in kept[:2]] == [row["score"] for row in alone]
    assert {row["score"] for row in kept[2:]} == set(SCORES)
    slides = [tmp_path / "kept" / row["he"] for row in kept]
    assert slides[0].read_bytes() == (tmp_path / "alone" / alone[0]["he"]).read_bytes()
    assert len({slide.read_bytes() for slide in slides}) == len(slides)
