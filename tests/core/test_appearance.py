"""What the pixels of a slide look like: each kind of shift moves the numbers; odd slides are described."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from napari_her2.inference.appearance import (
    LENGTH,
    MPP,
    SIDE_PX,
    TILES,
    appearance_of,
    appearance_steps,
    describable,
)
from napari_her2.phantom import make_pair
from napari_her2.slide.reader import open_slide
from napari_her2.slide.tissue import TissueMask
from napari_her2.steps import finished

COLOURS, CHANNELS = slice(0, 23), slice(1, 4)
OCTAVE = 3  # numbers of an octave: energy, unevenness, skew; those of the density come first


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("pair"), "case", score="2+", seed=5, size_px=1536, mpp=MPP)


@pytest.fixture(scope="module")
def tissue(pair):
    """Squares of its H&E slide."""
    with open_slide(pair.he) as slide:
        whole = slide.read(0, 0, 0, *slide.shape)
    corners = [(y, x) for y in range(0, 1344, SIDE_PX) for x in range(0, 1344, SIDE_PX)]
    squares = np.stack([whole[y : y + SIDE_PX, x : x + SIDE_PX] for y, x in corners])
    return squares[describable(squares)][:16]


def described(path, mpp=None, **limits):
    with open_slide(path, mpp=mpp) as slide:
        return finished(appearance_steps(slide, slide.tissue(), **limits))


def shift(tiles, change):
    """How many times its spread between squares the mean of each number moves, (A,)."""
    before, after = appearance_of(tiles), appearance_of(np.stack([change(tile) for tile in tiles]))
    assert np.isfinite(after).all()
    return np.abs(after.mean(axis=0) - before.mean(axis=0)) / (before.std(axis=0) + 1e-3)


def test_blur_takes_energy_from_the_fine_octaves_and_not_from_the_coarse(tissue):
    sigma_px = 2 / MPP  # 2 µm
    before = appearance_of(tissue)
    after = appearance_of(np.stack([cv2.GaussianBlur(tile, (0, 0), sigma_px) for tile in tissue]))
    lost = (before - after)[:, 23 : 23 + 6 * OCTAVE : OCTAVE].mean(axis=0)
    assert lost[0] > 1  # e times less, at least
    assert lost[0] > lost[2] > lost[4] - 0.05
    assert abs(lost[5]) < 0.7


@pytest.mark.parametrize("times", [0.5, 1.5, 2.0])
def test_a_wrong_scale_moves_textures_more_than_the_mean_colour(tissue, times):
    def enlarged(tile):
        size = round(SIDE_PX * times)
        other = cv2.resize(
            tile, (size, size), interpolation=cv2.INTER_AREA if times < 1 else cv2.INTER_LINEAR
        )
        return other[:SIDE_PX, :SIDE_PX]

    moved = shift(tissue, enlarged)
    assert moved[23:].max() > 2
    assert moved[CHANNELS].max() < moved[23:].max()


@pytest.mark.parametrize(
    "change",
    [
        lambda tile: 255 - tile,
        lambda tile: tile[..., ::-1],
        lambda tile: np.clip(tile * np.array([0.92, 1.0, 0.85]), 0, 255).astype(np.uint8),
        lambda tile: np.rint(255 * (tile / 255.0) ** 1.5).astype(np.uint8),
    ],
    ids=["inverted", "red and blue exchanged", "white balance", "gamma"],
)
def test_other_colours_move_the_numbers_of_colour(tissue, change):
    assert shift(tissue, change)[COLOURS].max() > 1


def test_the_other_stain_of_the_same_tissue_looks_different(pair):
    he, ihc = described(pair.he), described(pair.ihc)
    apart = np.abs(he.mean(axis=0) - ihc.mean(axis=0)) / (he.std(axis=0) + ihc.std(axis=0) + 1e-3)
    assert apart[COLOURS].max() > 5


def test_optical_densities_are_those_of_the_law_of_beer_and_lambert():
    pixels = np.empty((1, 64, 64, 3), np.uint8)
    pixels[...] = (200, 100, 150)
    found = appearance_of(pixels)[0]
    np.testing.assert_allclose(np.exp(found[CHANNELS]), -np.log10(np.array([200, 100, 150]) / 255), rtol=1e-4)
    assert found[0] == 0  # no background


def test_half_a_square_of_glass_hardly_changes_the_colours(tissue):
    def half(tile):
        other = tile.copy()
        other[:, : SIDE_PX // 2] = 250
        return other

    full = shift(tissue, lambda tile: 255 - tile)
    assert shift(tissue, half)[1:23].max() < full[1:23].max() / 3


def test_a_slide_is_described_the_same_way_each_time_and_by_the_seed_in_another(pair):
    one, again, other = described(pair.he), described(pair.he), described(pair.he, seed=1)
    assert one.shape == (TILES, LENGTH)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or (one != other).any()


def test_only_what_is_scored_is_described(pair):
    with open_slide(pair.he) as slide:
        grid = slide.tile_grid(96, MPP)
        keep = np.zeros(grid.shape, bool)
        keep[4:8, 4:8] = True
        part = finished(appearance_steps(slide, slide.tissue(), grid=grid, keep=keep))
        mask = slide.tissue()
        inside = np.zeros_like(mask.mask)
        rows, cols = (slice(int(384 / down), int(768 / down)) for down in mask.downsample)
        inside[rows, cols] = mask.mask[rows, cols]
        same = finished(appearance_steps(slide, TissueMask(inside, mask.downsample)))
        whole = finished(appearance_steps(slide, mask))
    assert np.abs(part.mean(axis=0) - whole.mean(axis=0)).max() > 0.05
    # A region drawn over the same tissue has about the same look, not that of the whole slide.
    assert np.abs(part.mean(axis=0) - same.mean(axis=0))[CHANNELS].max() < 0.3


def picture(tmp_path, rgb):
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def everywhere(slide):
    return TissueMask(np.ones((8, 8), np.bool_), (slide.shape[0] / 8, slide.shape[1] / 8))


@pytest.mark.parametrize(("grey", "size"), [(255, 400), (0, 400), (12, 50)], ids=["blank", "black", "dark"])
def test_blank_and_black_squares_are_left_out(tmp_path, grey, size):
    with open_slide(picture(tmp_path, np.full((size, size, 3), grey, np.uint8)), mpp=MPP) as slide:
        assert finished(appearance_steps(slide, everywhere(slide))) is None


def test_a_slide_smaller_than_a_square_and_one_of_unknown_scale(tmp_path, tissue):
    path = picture(tmp_path, tissue[-1][:120, :150])
    with open_slide(path, mpp=MPP) as slide:
        found = finished(appearance_steps(slide, everywhere(slide)))
    assert found.shape == (1, LENGTH)
    assert np.isfinite(found).all()
    with open_slide(path) as slide:
        assert finished(appearance_steps(slide, everywhere(slide))) is None


def test_a_coarser_slide_is_enlarged_and_looks_blurred(tmp_path, tissue):
    rows = np.concatenate([np.concatenate(list(tissue[at : at + 4]), axis=1) for at in range(0, 16, 4)])
    small = cv2.resize(rows, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    looks = []
    for rgb, mpp in ((rows, MPP), (small, 4 * MPP)):
        with open_slide(picture(tmp_path, rgb), mpp=mpp) as slide:
            looks.append(finished(appearance_steps(slide, everywhere(slide))).mean(axis=0))
    assert (looks[0] - looks[1])[23] > 0.5  # the finest octave


def test_no_squares_are_no_numbers():
    assert appearance_of(np.empty((0, SIDE_PX, SIDE_PX, 3), np.uint8)).shape == (0, LENGTH)
