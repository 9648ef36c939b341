"""Slides scored from one small image: the rule, the maps, and slides that are not what they should be."""

from __future__ import annotations

import csv
import json
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box

from low_resolution_bundles import make_low_resolution_bundle
from napari_her2 import open_slide, score_slide, score_steps
from napari_her2.errors import JobFailed, ModelMisfit, SlideError
from napari_her2.explain.image_cam import cam_maps
from napari_her2.export.tables import write_result
from napari_her2.inference.regions import Region
from napari_her2.models.bundle import load_bundle
from napari_her2.slide.grid import TileGrid
from napari_her2.slide.thumbnail import Thumbnail
from painted import PINK, paint


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_low_resolution_bundle(tmp_path_factory.mktemp("model") / "low.safetensors"))


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "fixed.safetensors"
    return load_bundle(make_low_resolution_bundle(path, arguments={"mode": "fixed"}, mpp=4.0))


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("slide") / "ihc.svs")


@pytest.fixture(scope="module")
def result(slide, bundle):
    return score(slide, bundle)


def score(slide, bundle, **options):
    return score_slide(slide, bundle, device="cpu", min_confidence=0.0, **options)


def views_by_hand(bundle, thumbnail):
    """Mean of the probabilities over what numpy can turn and mirror."""
    chances = []
    for mirrored in (thumbnail.rgb, thumbnail.rgb[:, ::-1]):
        for turns in range(4):
            image = np.rot90(mirrored, turns).astype(np.float32).transpose(2, 0, 1) / 255
            with torch.inference_mode():
                logits = bundle.head(torch.from_numpy(image.copy())[None])
            chances.append(torch.softmax(logits[0].double(), dim=0).numpy())
    return np.mean(chances, axis=0)


def test_the_score_is_the_mean_of_eight_views(result, bundle):
    (thumbnail,) = result.thumbnails
    expected = views_by_hand(bundle, thumbnail)
    np.testing.assert_allclose(list(result.probabilities.values()), expected, atol=1e-5)
    assert result.rule.startswith("mean of 8 views (turned and mirrored) of one image of 64 px at ")
    assert f"{thumbnail.mpp:.3g} µm/px" in result.rule
    assert result.classes == ("0", "Low", "High")
    assert not result.abstained
    assert result.slides[0].stain == "IHC"


def test_the_result_holds_no_attention_and_maps_on_the_grid_of_the_image(result):
    assert result.table.attention is None
    assert result.table.evidence is None
    assert result.grid.tile_px == 32
    assert result.grid.mpp == result.thumbnails[0].mpp
    names = [tile_map.name for tile_map in result.maps]
    assert names[:3] == ["Grad-CAM 0", "Grad-CAM Low", "Grad-CAM High"]
    assert names[-2:] == ["tissue", "corrupt"]
    for name in result.classes:
        values = result.map("Grad-CAM", name).values
        signed = result.map("signed Grad-CAM", name).values
        assert np.isfinite(values).sum() == len(result.table) > 0
        np.testing.assert_array_equal(values, np.maximum(signed, 0))


@settings(max_examples=25, deadline=None)
@given(
    origin=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    pixel=st.floats(4, 40),
    squares=st.integers(1, 3),
)
def test_maps_lie_where_the_images_lay(origin, pixel, squares):
    """Maps that grow with the place on the slide come back as the place of each tile."""
    grid = TileGrid((6000, 6000), (0.5, 0.5), 32, pixel * 0.5)
    side = 128 * pixel
    thumbnails, maps = [], []
    for number in range(squares):
        corner = (origin[0], origin[1] + number * side)
        blank = np.zeros((128, 128, 3), np.uint8)
        thumbnails.append(Thumbnail(blank, corner, (pixel, pixel), pixel * 0.5, blank[..., 0] > 0, (0,) * 4))
        y, x = (np.indices((4, 4)) + 0.5) * 32 * pixel
        maps.append(np.stack([y + corner[0], x + corner[1]]))
    index = np.argwhere(np.ones(grid.shape))
    centres = (index + 0.5) * grid.tile_px0
    low = np.array(origin) + 16 * pixel  # between centres of the map's pixels
    high = low + 96 * pixel
    inside = ((centres >= low) & (centres <= high)).all(axis=1)
    first, second = cam_maps(grid, index, thumbnails, np.array(maps), ("y", "x"))[2:]
    for tile_map, axis in ((first, 0), (second, 1)):
        found = tile_map.values[index[inside, 0], index[inside, 1]]
        np.testing.assert_allclose(found, centres[inside, axis], rtol=1e-5, atol=1e-2)


def test_fixed_scale_takes_several_images(slide, fixed):
    found = score(slide, fixed)  # tissue of 490 µm, images of 256 µm
    assert len(found.thumbnails) == 4
    held = np.array([thumbnail.tissue.sum() for thumbnail in found.thumbnails], float)
    each = np.array([views_by_hand(fixed, thumbnail) for thumbnail in found.thumbnails])
    expected = (held[:, None] * each).sum(axis=0) / held.sum()
    np.testing.assert_allclose(list(found.probabilities.values()), expected, atol=1e-5)
    assert "each of 4 images of 64 px at 4 µm/px" in found.rule
    assert any("scored in 4 images" in warning for warning in found.warnings)
    assert np.isfinite(found.map("Grad-CAM", "High").values).sum() == len(found.table)


def test_regions_limit_what_is_seen(slide, bundle):
    whole = score(slide, bundle)
    part = score(slide, bundle, regions=[box(0, 0, 640, 1280)])  # the left half of the tissue
    assert part.regions == "1 drawn region"
    assert part.tissue_mm2 == pytest.approx(whole.tissue_mm2 / 2, rel=0.1)
    (seen,) = part.thumbnails
    places = seen.to_px0(np.argwhere((seen.rgb < 230).any(axis=2)) + 0.5)
    assert places[:, 1].max() < 660
    with pytest.raises(JobFailed, match="No tissue lies inside the regions"):
        score(slide, bundle, regions=[box(0, 0, 50, 50)])


def test_what_is_excluded_is_white_and_said(slide, bundle):
    half = box(0, 0, 640, 1280)
    necrosis = Region(box(320, 0, 2000, 1280), "", "necrosis")
    part = score(slide, bundle, regions=[necrosis, half])
    assert part.regions == "1 drawn region, without 1 excluded region (necrosis)"
    quarter = score(slide, bundle, regions=[box(0, 0, 320, 1280)])
    assert part.tissue_mm2 == pytest.approx(quarter.tissue_mm2, rel=1e-6)
    (seen,) = part.thumbnails
    places = seen.to_px0(np.argwhere((seen.rgb < 230).any(axis=2)) + 0.5)
    assert places[:, 1].max() < 340
    rest = score(slide, bundle, regions=[necrosis])
    assert rest.regions == "all but 1 excluded region (necrosis)"
    assert rest.tissue_mm2 == pytest.approx(part.tissue_mm2, rel=1e-6)


def test_closing_stops_between_views(slide, bundle):
    before = threading.active_count()
    steps = score_steps(slide, bundle, device="cpu")
    stages = []
    for step in steps:
        stages.append(step.stage)
        if step.stage == "Scoring" and step.done == 3:
            break
    steps.close()
    assert stages.count("Scoring") == 4
    assert "Reading the slide" in stages
    assert threading.active_count() == before


def test_pure_glass(bundle, tmp_path):
    path = paint(tmp_path / "glass.svs", tissue=(0, 0, 0, 0))
    with pytest.raises(SlideError, match="No tissue was found on glass"):
        score(path, bundle)


def test_a_slide_fifty_times_longer_than_wide(bundle, tmp_path):
    path = paint(tmp_path / "long.svs", shape=(12800, 256), tissue=(0, 0, 12800, 256))
    found = score(path, bundle)
    assert len(found.table) > 0
    assert found.grid.tile_px < 32, "a whole tile of 32 px is wider than the slide"
    assert any("times coarser than the slides it was trained on" in warning for warning in found.warnings)
    assert found.abstained
    assert "times coarser than the training slides" in found.label


def test_what_was_learnt_from_is_answered_however_far_its_slides_lie_apart(bundle, tmp_path):
    path = paint(tmp_path / "long.svs", shape=(12800, 256), tissue=(0, 0, 12800, 256))
    wide = replace(bundle, card=replace(bundle.card, mpp_range=(4.0, 80.0)))
    found = score(path, wide)
    assert not found.abstained
    assert not any("than the slides it was trained on" in warning for warning in found.warnings)
    near = replace(bundle, card=replace(bundle.card, mpp_range=(4.0, 40.0)))
    assert any("(4 to 40 µm/px)" in warning for warning in score(path, near).warnings)


def test_a_single_tiny_fragment_is_not_answered(bundle, tmp_path):
    path = paint(tmp_path / "tiny.svs", tissue=(600, 600, 760, 760))
    found = score(path, bundle)
    assert found.abstained
    assert "mm² of tissue, at least 0.2 mm² are needed" in found.label
    assert any("times finer" in warning for warning in found.warnings)


def test_fluorescence(bundle, tmp_path):
    path = paint(tmp_path / "dark.svs", colours=((20, 200, 60), (30, 40, 180)), glass=4)
    with pytest.raises(ModelMisfit, match=r"looks like fluorescence \(dark background\)"):
        score(path, bundle)


def test_h_and_e_offered_to_a_model_of_ihc(bundle, tmp_path):
    path = paint(tmp_path / "he.svs", colours=(PINK, (120, 90, 170)))
    with pytest.raises(ModelMisfit, match=r"looks like H&E, but the model low was made for IHC"):
        score(path, bundle)
    for options in ({"override_fit": True}, {"stain": "IHC"}):
        found = score(path, bundle, **options)
        assert any("Scored all the same: The slide looks like H&E" in text for text in found.warnings)


def test_a_scan_too_coarse_for_the_image_is_refused(bundle, tmp_path):
    path = paint(tmp_path / "coarse.svs", shape=(400, 400), tissue=(160, 160, 205, 205), mpp=40.0)
    with pytest.raises(ModelMisfit, match=r"spans only [45]. px at 40 µm/px, fewer than the 64 px"):
        score(path, bundle)
    assert any(
        "Scored all the same: The tissue" in w for w in score(path, bundle, override_fit=True).warnings
    )


def test_no_scale(bundle, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((512, 512, 3), 200, np.uint8), tile=(128, 128), photometric="rgb")
    with open_slide(path) as opened, pytest.raises(SlideError, match="µm/px"):
        score(opened, bundle)


def overwrite_tiles(path, numbers):
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        places = [(page.dataoffsets[number], page.databytecounts[number]) for number in numbers]
    with path.open("r+b") as file:
        for place, count in places:
            file.seek(place)
            file.write(bytes(count))


def test_a_little_damage_is_told_and_much_refused(bundle, tmp_path):
    path = paint(tmp_path / "damaged.svs", shape=(2560, 2560), tissue=(0, 0, 2560, 2560))
    overwrite_tiles(path, [55])
    found = score(path, bundle)
    assert any("could not be read because the file is damaged there" in text for text in found.warnings)
    row, column = found.grid.index_of_px0(np.array([[5 * 256 + 128, 5 * 256 + 128]]))[0]
    assert [row, column] in found.corrupt.tolist()
    assert [row, column] not in found.table.index.tolist()
    assert np.isnan(found.map("Grad-CAM", "High").values[row, column])
    overwrite_tiles(path, range(20, 60))
    with pytest.raises(SlideError, match="copy it again from its source"):
        score(path, bundle)


def test_files_of_a_result(result, tmp_path):
    folder = write_result(result, tmp_path)
    told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    (image,) = told["slides"][0]["images"]
    assert image["mpp"] == told["mpp"] == result.thumbnails[0].mpp
    assert told["rule"] == result.rule
    seen = cv2.imread(str(folder / "image-1.png"))[..., ::-1]
    np.testing.assert_array_equal(seen, result.thumbnails[0].rgb)
    with (folder / "tiles.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.table)
    assert not any("attention" in column for column in rows[0])
    with np.load(folder / "maps.npz") as maps:
        np.testing.assert_array_equal(maps["Grad-CAM_High"], result.map("Grad-CAM", "High").values)
        assert "signed_Grad-CAM_High" in maps


def test_values_that_are_no_numbers(slide, bundle):
    broken = load_bundle(bundle.path)
    with torch.no_grad():
        broken.head.network.head.fc.bias.fill_(float("nan"))
    with pytest.raises(JobFailed, match="not numbers"):
        score(slide, replace(broken))
