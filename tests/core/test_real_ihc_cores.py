"""Real HER2 IHC, tissue cores stored as plain JPEG, through reading, tissue and every way of scoring.

Models have random weights, or learnt from synthetic tissue: what is tested is that everything runs, and where
it lies, not what it says.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from method_bundles import MIL, make_mil_bundle, make_patch_bundle
from napari_her2 import open_slide, score_slide
from napari_her2.inference.fit import slide_stain
from napari_her2.slide.thumbnail import read_thumbnails

SIDE_PX, MPP = 5468, 0.23
CORES = {"0": "0_9b0f64d1", "3+": "3_a1f1510c"}


@pytest.fixture(scope="module", params=CORES, ids=lambda score: f"core {score}")
def core(request, shared_data):
    folder = shared_data / "her2_ihc_cores"
    found = sorted(folder.glob(f"{CORES[request.param]}*.jpg"))
    if not found:
        pytest.skip("the cores of HER2 IHC are absent from the folder of real slides")
    with open_slide(found[0], mpp=MPP) as slide:
        yield slide


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_every_core_is_taken_for_ihc_and_scored_at_low_resolution(shared_data):
    cores = sorted((shared_data / "her2_ihc_cores").glob("*.jpg"))
    if not cores:
        pytest.skip("the cores of HER2 IHC are absent from the folder of real slides")
    for path in cores:
        with open_slide(path, mpp=MPP) as slide:
            assert slide_stain(slide, slide.tissue(), "auto") == "IHC", path.name
            result = score_slide(slide, "demo-low-resolution", device="cpu")
            assert sum(result.probabilities.values()) == pytest.approx(1), path.name
            assert 0.2 < result.tissue_mm2 < (SIDE_PX * MPP * 1e-3) ** 2
            assert "synthetic" in result.notice
            (thumbnail,) = result.thumbnails
            assert thumbnail.damaged is None
            # Grad-CAM where there is tissue, and nowhere else.
            rows, cols = result.table.index.T
            cam = result.map("Grad-CAM", result.score).values
            assert np.isfinite(cam[rows, cols]).all()
            assert np.isfinite(cam).sum() == len(rows)
            assert (result.tissue.fraction(result.grid)[rows, cols] > 0).all()


def test_a_core_is_read_as_another_decoder_reads_it(core):
    assert core.level_shapes == ((SIDE_PX, SIDE_PX),)
    assert (core.mpp, core.mpp_source) == ((MPP, MPP), "given by the user")
    whole = cv2.imread(str(core.path))[..., ::-1]
    for y, x in ((0, 0), (2700, 1300), (SIDE_PX - 200, SIDE_PX - 300)):
        window = core.read(0, y, x, 200, 300).astype(int)
        # JPEG decoders differ by rounding and by how they enlarge the colour planes.
        assert np.abs(window - whole[y : y + 200, x : x + 300]).mean() < 1
    assert [max(level.shape) for level in core.pyramid()] == [5468, 2734, 1367, 683]


def test_the_tissue_of_a_core_is_found_and_taken_for_ihc(core):
    mask = core.tissue()
    # Cores of 1.26 mm side: neither bare glass nor glass all over.
    assert 0.2 < mask.area_mm2(core.mpp) < (SIDE_PX * MPP * 1e-3) ** 2
    assert slide_stain(core, mask, "auto") == "IHC"


def test_the_thumbnail_of_a_core_shows_its_tissue_where_it_lies(core):
    mask = core.tissue()
    (thumbnail,) = read_thumbnails(core, mask, size_px=128)
    assert thumbnail.rgb.shape == (128, 128, 3)
    assert thumbnail.tissue.sum() * (thumbnail.mpp * 1e-3) ** 2 == pytest.approx(
        mask.area_mm2(core.mpp), rel=0.05
    )
    inside = thumbnail.tissue
    assert thumbnail.rgb[inside].mean() < thumbnail.rgb[~inside].mean()
    y, x = (int(value) for value in thumbnail.to_px0(np.array([[64.0, 64.0]]))[0])
    side = round(thumbnail.pixel_px0[0])
    area = core.read(0, y, x, side, side).mean(axis=(0, 1))
    assert np.abs(area - thumbnail.rgb[64, 64]).max() < 12


def test_patches_of_a_core_are_scored(core, tmp_path):
    model = make_patch_bundle(tmp_path / "patches.safetensors", tile_px=64, mpp=4.0)
    result = score_slide(core, model, device="cpu", cache=False)
    _check(result, tile_um=256.0)
    assert result.table.attention is None
    assert result.table.probabilities.sum(axis=1) == pytest.approx(np.ones(len(result.table)), abs=1e-5)


@pytest.mark.parametrize("kind", MIL)
def test_tiles_of_a_core_are_scored_as_a_bag(core, kind, tmp_path, cache_folder, monkeypatch):
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(cache_folder))  # one encoder for all: it runs once
    model = make_mil_bundle(tmp_path / f"{kind}.safetensors", kind, stain="IHC", mpp=1.0)
    result = score_slide(core, model, device="cpu")
    _check(result, tile_um=96.0)
    assert result.table.attention.sum(dtype=np.float64) == pytest.approx(1, abs=1e-5)


def _check(result, *, tile_um):
    """Finite, and every value on its place: the tile's own corner, in level-0 pixels."""
    assert sum(result.probabilities.values()) == pytest.approx(1)
    assert result.slides[0].stain == "IHC"
    assert 0.2 < result.tissue_mm2 < 1.6
    pitch = tile_um / MPP
    assert result.grid.shape == (int(SIDE_PX // pitch),) * 2
    assert np.abs(result.table.origins_px0 - result.table.index * pitch).max() <= 0.5
    rows, cols = result.table.index.T
    for tile_map in result.maps:
        assert tile_map.values.shape == result.grid.shape
        if tile_map.kind not in ("corrupt", "tissue"):
            assert np.isfinite(tile_map.values[rows, cols]).all()
            assert np.isfinite(tile_map.values).sum() == len(rows)
