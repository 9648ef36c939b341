"""The small image of a slide: its pixels, and where they say that they lie."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.models import low_resolution
from napari_her2.slide.thumbnail import MARGIN, MODES, count_thumbnails, read_thumbnails, thumbnail_steps
from napari_her2.slide.tissue import TissueMask

MPP = 0.5


def write_tiff(path, *levels, mpp=MPP, compression=None):
    """A tiled pyramid TIFF of the given levels, largest first."""
    per_cm = 1e4 / mpp
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(
                level,
                tile=(128, 128),
                photometric="rgb",
                compression=compression,
                subfiletype=int(number > 0),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def ramp(height, width, down=1):
    """Colours that tell where they lie: red grows with y, green with x, both from 20 to 220."""
    y, x = np.indices((height // down, width // down)) * down + (down - 1) / 2
    image = np.stack([20 + 200 * y / height, 20 + 200 * x / width, np.full(y.shape, 100.0)], axis=-1)
    return np.rint(image).astype(np.uint8)


def masked(shape_px0, box, down=16):
    """A mask whose tissue is a box (y0, x0, y1, x1) of mask pixels."""
    mask = np.zeros([-(-side // down) for side in shape_px0], np.bool_)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return TissueMask(mask, (float(down), float(down)))


@pytest.fixture(scope="module")
def ramp_slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("ramp") / "ramp.tif"
    with open_slide(write_tiff(path, ramp(1280, 1920), ramp(1280, 1920, 4))) as slide:
        yield slide


def only(thumbnails):
    (one,) = thumbnails
    return one


boxes = st.tuples(st.integers(0, 70), st.integers(0, 110), st.integers(4, 80), st.integers(4, 120)).map(
    lambda b: (b[0], b[1], min(80, b[0] + b[2]), min(120, b[1] + b[3]))
)


@settings(max_examples=15, deadline=None)
@given(box=boxes, size_px=st.sampled_from([32, 50, 64]), mode=st.sampled_from(MODES))
def test_every_pixel_shows_the_place_that_it_names(ramp_slide, box, size_px, mode):
    tissue = masked((1280, 1920), box)
    thumbnails = read_thumbnails(ramp_slide, tissue, size_px=size_px, mode=mode, mpp=8.0, threads=1)
    for thumbnail in thumbnails:
        centres = np.argwhere(np.ones((size_px, size_px))) + 0.5
        places = thumbnail.to_px0(centres)
        np.testing.assert_allclose(thumbnail.from_px0(places), centres, atol=1e-9)
        # A pixel inside the crop and the slide; those on its edge hold some of the white around it.
        half = np.array(thumbnail.pixel_px0) / 2 + 4
        low = np.maximum(thumbnail.box_px0[:2], 0) + half
        high = np.minimum(thumbnail.box_px0[2:], (1280, 1920)) - half
        inside = ((places >= low) & (places <= high)).all(axis=1)
        seen = thumbnail.rgb.reshape(-1, 3)[inside].astype(float)
        np.testing.assert_allclose(seen[:, 0], 20 + 200 * places[inside, 0] / 1280, atol=2)
        np.testing.assert_allclose(seen[:, 1], 20 + 200 * places[inside, 1] / 1920, atol=2)


@settings(max_examples=15, deadline=None)
@given(box=boxes, size_px=st.sampled_from([32, 64]), mode=st.sampled_from(MODES))
def test_all_tissue_is_seen_once(ramp_slide, box, size_px, mode):
    tissue = masked((1280, 1920), box)
    thumbnails = read_thumbnails(ramp_slide, tissue, size_px=size_px, mode=mode, mpp=4.0, threads=1)
    area_px0 = sum(t.tissue.sum() * t.pixel_px0[0] * t.pixel_px0[1] for t in thumbnails)
    sides = [(box[axis + 2] - box[axis]) * 16 for axis in (0, 1)]
    # Each edge of the tissue may be off by half a pixel, as a pixel is tissue or not.
    pixel = thumbnails[0].pixel_px0[0]
    assert abs(area_px0 - sides[0] * sides[1]) <= 2 * pixel * sum(sides) + pixel**2
    if mode == "fit":
        assert len(thumbnails) == 1


def test_fit_fills_the_longer_side_with_tissue_and_margin(ramp_slide):
    tissue = masked((1280, 1920), (20, 30, 60, 50))  # 640 x 320 px
    seen = only(read_thumbnails(ramp_slide, tissue, size_px=64))
    assert seen.mpp == pytest.approx(640 * (1 + 2 * MARGIN) * MPP / 64)
    rows, columns = (np.flatnonzero((seen.rgb != 255).any(axis=2).any(axis=axis)) for axis in (1, 0))
    assert (rows[0], rows[-1]) == (0, 63)
    margin = 640 * MARGIN
    assert len(columns) == pytest.approx((320 + 2 * margin) / seen.pixel_px0[1], abs=2)
    assert abs(columns[0] - (63 - columns[-1])) <= 1, "the crop stands in the middle"
    assert seen.tissue.any(axis=1).sum() == pytest.approx(64 / (1 + 2 * MARGIN), abs=1)


@pytest.mark.parametrize(("size_px", "grain_px"), [(256, 1), (37, 1), (37, 6)])
def test_areas_are_averaged(tmp_path, size_px, grain_px):
    """Against the mean of every pixel's own area, parts of pixels weighted: only rounding is left."""
    noise = np.random.default_rng(3).integers(0, 256, (500, 700, 3), np.uint8)
    image = noise[::grain_px, ::grain_px].repeat(grain_px, axis=0).repeat(grain_px, axis=1)[:500, :700]
    with open_slide(write_tiff(tmp_path / "noise.tif", image)) as slide:
        seen = only(read_thumbnails(slide, masked((500, 700), (0, 0, 32, 44)), size_px=size_px))
    total = np.zeros((501, 701, 3))
    total[1:, 1:] = image.astype(float).cumsum(axis=0).cumsum(axis=1)

    def upto(y, x):
        """Sum of the image above and left of a place between its pixels."""
        top, left = min(int(y), 499), min(int(x), 699)
        v, u = y - top, x - left
        upper = total[top, left] * (1 - u) + total[top, left + 1] * u
        lower = total[top + 1, left] * (1 - u) + total[top + 1, left + 1] * u
        return upper * (1 - v) + lower * v

    errors = []
    for row, column in np.random.default_rng(4).integers((8, 1), (28, 36), (200, 2)):
        place = np.array([row, column]) * size_px // 37
        (y0, x0), (y1, x1) = seen.to_px0(np.array([place, place + 1], float))
        exact = (upto(y1, x1) - upto(y0, x1) - upto(y1, x0) + upto(y0, x0)) / ((y1 - y0) * (x1 - x0))
        errors.append(seen.rgb[tuple(place)] - exact)
    assert np.abs(errors).max() < 1.0
    assert np.sqrt(np.mean(np.square(errors))) < 0.4


def test_finer_levels_are_not_read(tmp_path):
    path = write_tiff(tmp_path / "two.tif", ramp(1280, 1920), ramp(1280, 1920, 4))
    with tifffile.TiffFile(path) as file:
        places = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    with path.open("r+b") as file:
        for place, count in places:
            file.seek(place)
            file.write(bytes(count))
    with open_slide(path) as slide:
        seen = only(read_thumbnails(slide, masked((1280, 1920), (10, 10, 70, 110)), size_px=64))
        finer = only(read_thumbnails(slide, masked((1280, 1920), (10, 10, 24, 24)), size_px=64))
    assert (seen.level, finer.level) == (1, 0)
    assert seen.rgb[..., 2].min() >= 99, "level 0 is black now"
    assert finer.rgb.min() == 0


def test_a_slide_of_one_level_is_read_in_bounded_memory(tmp_path):
    path = tmp_path / "large.tif"
    write_tiff(path, np.full((4096, 6144, 3), 200, np.uint8), compression="zlib")
    tissue = masked((4096, 6144), (0, 0, 256, 384))
    with open_slide(path) as slide:
        tracemalloc.start()
        seen = only(read_thumbnails(slide, tissue, size_px=64, threads=1))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (seen.rgb[24:40, 4:60] == 200).all()
    # The level has 75 MB; a batch of blocks and the tiles of a row of them remain.
    assert peak < 40e6


def test_progress_counts_blocks_and_closing_stops_reading(tmp_path):
    path = write_tiff(tmp_path / "a.tif", np.full((3000, 3000, 3), 200, np.uint8), compression="zlib")
    with open_slide(path) as slide:
        steps = thumbnail_steps(slide, masked((3000, 3000), (0, 0, 187, 187)), size_px=64, threads=2)
        done, total = next(steps)
        assert 0 < done < total
        steps.close()
        with pytest.raises(StopIteration):
            next(steps)


def test_what_is_damaged_is_white_and_marked(tmp_path):
    image = ramp(1280, 1920)
    path = write_tiff(tmp_path / "damaged.tif", image, compression="zlib")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        at = 5 * 15 + 7  # the tile at y 640, x 896
        place, count = page.dataoffsets[at], page.databytecounts[at]
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(count))
    with open_slide(path) as slide:
        seen = only(read_thumbnails(slide, masked((1280, 1920), (0, 0, 80, 120)), size_px=96))
    assert seen.damaged is not None
    marked = seen.to_px0(np.argwhere(seen.damaged) + 0.5)
    reach = 32 + 1.5 * seen.pixel_px0[0]  # damage is searched for down to 32 px of the level
    assert (marked >= np.array([640, 896]) - reach).all()
    assert (marked <= np.array([768, 1024]) + reach).all()
    inside = np.floor(seen.from_px0(np.array([[660.0, 916.0], [748.0, 1004.0]]))).astype(int)
    hole = slice(inside[0, 0], inside[1, 0]), slice(inside[0, 1], inside[1, 1])
    assert (seen.rgb[hole] == 255).all()
    assert seen.damaged[hole].all()


def test_an_undamaged_slide_has_no_marks(ramp_slide):
    assert (
        only(read_thumbnails(ramp_slide, masked((1280, 1920), (0, 0, 80, 120)), size_px=32)).damaged is None
    )


def test_fixed_keeps_its_scale_and_centres_small_tissue(ramp_slide):
    tissue = masked((1280, 1920), (20, 30, 40, 50))  # 320 px square: 160 µm
    seen = only(read_thumbnails(ramp_slide, tissue, size_px=64, mode="fixed", mpp=4.0))
    assert seen.mpp == 4.0
    assert seen.pixel_px0 == pytest.approx((8.0, 8.0))
    centre = seen.from_px0(np.array([[30 * 16.0, 40 * 16.0]]))[0]
    np.testing.assert_allclose(centre, 32, atol=0.5)
    assert seen.tissue.sum() == pytest.approx(40 * 40, rel=0.1)
    assert (seen.rgb[:8] == 255).all()


def test_fixed_leaves_out_squares_without_tissue(ramp_slide):
    tissue = masked((1280, 1920), (0, 0, 20, 20))
    tissue.mask[60:, 100:] = True
    seen = read_thumbnails(ramp_slide, tissue, size_px=64, mode="fixed", mpp=4.0)
    assert 2 <= len(seen) < 3 * 4
    assert all(thumbnail.tissue.any() for thumbnail in seen)
    corners = np.array([thumbnail.origin_px0 for thumbnail in seen])
    steps = (corners - corners[0]) / 512  # 64 px of 8 level-0 px
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.01)
    assert count_thumbnails(ramp_slide, tissue, size_px=64, mode="fixed", mpp=4.0) == len(seen)
    assert count_thumbnails(ramp_slide, tissue, size_px=64) == 1


def test_whitening_leaves_the_tissue(ramp_slide):
    tissue = masked((1280, 1920), (0, 0, 80, 120))
    tissue.mask[30:50, 40:80] = False
    plain, white = (
        only(read_thumbnails(ramp_slide, tissue, size_px=64, whiten=whiten)) for whiten in (False, True)
    )
    assert (white.rgb[white.tissue] == plain.rgb[plain.tissue]).all()
    assert (white.rgb[~white.tissue] == 255).all()
    assert (plain.rgb[~plain.tissue] != 255).any()


def test_a_slide_of_other_pixels_in_y_than_in_x_is_not_distorted(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ramp(640, 1280))
    with open_slide(path, mpp=(1.0, 0.5)) as slide:
        seen = only(read_thumbnails(slide, masked((640, 1280), (0, 0, 40, 80)), size_px=64))
    assert seen.pixel_px0[1] == pytest.approx(2 * seen.pixel_px0[0])
    assert not (seen.rgb == 255).all(axis=2).any(), "640 µm in both directions fill the square"


def test_a_slide_fifty_times_longer_than_wide(tmp_path):
    path = write_tiff(tmp_path / "long.tif", ramp(6400, 128), compression="zlib")
    with open_slide(path) as slide:
        seen = only(read_thumbnails(slide, masked((6400, 128), (0, 0, 400, 8)), size_px=128))
    columns = np.flatnonzero((seen.rgb != 255).any(axis=2).any(axis=0))
    assert 2 <= len(columns) <= 4
    assert 62 <= columns.mean() <= 65
    assert seen.mpp == pytest.approx(25)


@pytest.mark.parametrize(
    "nonsense",
    [
        {"size_px": 0},
        {"size_px": 64, "mode": "stretch"},
        {"size_px": 64, "mode": "fixed"},
        {"size_px": 64, "mode": "fixed", "mpp": 0.0},
        {"size_px": 64, "mode": "fixed", "mpp": float("nan")},
    ],
)
def test_sizes_and_modes_that_make_no_sense(ramp_slide, nonsense):
    with pytest.raises(SlideError, match="fit or fixed"):
        read_thumbnails(ramp_slide, masked((1280, 1920), (0, 0, 80, 120)), **nonsense)


def test_no_tissue(ramp_slide):
    with pytest.raises(SlideError, match="No tissue was found on ramp"):
        read_thumbnails(ramp_slide, masked((1280, 1920), (0, 0, 0, 0)), size_px=64)


def test_too_many_squares(ramp_slide):
    with pytest.raises(SlideError, match="coarser µm/px"):
        read_thumbnails(ramp_slide, masked((1280, 1920), (0, 0, 80, 120)), size_px=32, mode="fixed", mpp=0.5)


def test_no_scale(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(640, 640), tile=(128, 128), photometric="rgb", metadata=None)
    with open_slide(path) as slide, pytest.raises(SlideError, match="says no µm/px"):
        read_thumbnails(slide, masked((640, 640), (0, 0, 40, 40)), size_px=64)


def test_model_and_slide_name_the_modes_alike():
    assert low_resolution.MODES == MODES
