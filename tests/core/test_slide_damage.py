"""Bad input: every damaged file ends in one plain sentence, or in a slide that reports what is missing."""

from __future__ import annotations

import os
import shutil
import struct
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide.area import read_area

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TILE = 64


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    y, x = np.indices((5 * TILE, 6 * TILE))
    noise = np.random.default_rng(0).integers(-30, 30, (5 * TILE, 6 * TILE, 3))
    return np.clip(np.stack([y / 2, x / 2, 150 + 0 * y], axis=-1) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(params=["jpeg", "jpeg2000", "deflate"])
def stored(request: pytest.FixtureRequest, image: np.ndarray, tmp_path: Path) -> Path:
    """A tiled slide at 0.5 µm/px, one level, whose directory comes first."""
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path,
        image,
        tile=(TILE, TILE),
        compression=request.param,
        photometric="rgb",
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )
    return path


def damage(path: Path, tile: int, change: Callable[[bytes], bytes]) -> None:
    with tifffile.TiffFile(path) as tiff:
        place, count = tiff.pages[0].dataoffsets[tile], tiff.pages[0].databytecounts[tile]
    with path.open("r+b") as file:
        file.seek(place)
        data = file.read(count)
        file.seek(place)
        file.write(change(data))


def zero_middle(data: bytes) -> bytes:
    third = len(data) // 3
    return data[:third] + bytes(third) + data[2 * third :]


def garbage(data: bytes) -> bytes:
    return np.random.default_rng(1).integers(0, 256, len(data)).astype(np.uint8).tobytes()


def zero_tail(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def all_ones(data: bytes) -> bytes:
    return data[: len(data) // 4] + b"\xff" * (len(data) - len(data) // 4)


@pytest.mark.parametrize("change", [zero_middle, garbage, zero_tail, all_ones, lambda data: bytes(len(data))])
@pytest.mark.parametrize("threads", [1, 3])
def test_tiles_on_a_corrupt_stored_tile_are_left_out_and_reported(stored, image, change, threads):
    with open_slide(stored) as slide:
        good = slide.read(0, 0, 0, *slide.shape)
    damage(stored, 2 * 6 + 3, change)  # pixels 128 to 192 down, 192 to 256 across
    with open_slide(stored) as slide:
        batches = list(slide.tiles(tile_px=32, mpp=0.5, tissue_only=False, batch_size=16, threads=threads))
    corrupt = np.concatenate([batch.corrupt for batch in batches]).tolist()
    assert corrupt == [[4, 6], [4, 7], [5, 6], [5, 7]]
    index = np.concatenate([batch.index for batch in batches]).tolist()
    assert index == [[row, col] for row in range(10) for col in range(12) if [row, col] not in corrupt]
    assert [len(batch.images) for batch in batches] == [16] * 7 + [4]
    for image, (row, col) in zip(np.concatenate([b.images for b in batches]), index, strict=True):
        assert np.array_equal(image, good[row * 32 : row * 32 + 32, col * 32 : col * 32 + 32])


@pytest.mark.parametrize(("tile_px", "mpp"), [(60, 0.5), (30, 1.0)])
def test_a_tile_that_damage_only_just_reaches_is_left_out_too(stored, tile_px, mpp):
    damage(stored, 2 * 6 + 3, garbage)
    with open_slide(stored) as slide:
        batches = list(slide.tiles(tile_px=tile_px, mpp=mpp, tissue_only=False))
        rows, cols = slide.tile_grid(tile_px, mpp).shape
    side = round(tile_px * mpp / 0.5)
    reached = [
        [row, col]
        for row in range(rows)
        for col in range(cols)
        if row * side < 192 and (row + 1) * side > 128 and col * side < 256 and (col + 1) * side > 192
    ]
    assert [3, 4] in reached  # of which damage takes 5 %
    assert np.concatenate([batch.corrupt for batch in batches]).tolist() == reached


def test_a_pixel_of_an_area_is_damaged_from_the_least_share_of_damage_on(stored):
    damage(stored, 2 * 6 + 3, garbage)  # pixels 128 to 192 down, 192 to 256 across
    with open_slide(stored) as slide:
        area = read_area(slide, origin_um=(0.0, 0.0), size_px=3, mpp=50.0)  # of 100 px each
    # Of the pixel in the middle 5 % are damaged, of the one beside it 36 %.
    assert area.damaged[1, 1]
    assert area.damaged[1, 2]
    assert not area.damaged[:, 0].any()


def test_reading_a_corrupt_place_names_it(stored):
    damage(stored, 8, garbage)
    with open_slide(stored) as slide:
        with pytest.raises(SlideError, match=r"damaged at y 64, x 128 .*Copy the slide again"):
            slide.read(0, 70, 100, 40, 60)
        assert slide.read(0, 0, 0, 64, 64).shape == (64, 64, 3)


def test_damage_is_drawn_in_magenta_never_white_and_the_rest_is_shown(stored, image):
    damage(stored, 8, garbage)
    with open_slide(stored) as slide:
        whole = slide.pyramid()[0].compute()
        (region,) = slide.corrupt_regions()
        thumbnail = slide.thumbnail(192)
    assert (region.level, region.y, region.x, region.height, region.width) == (0, 64, 128, 64, 64)
    drawn = whole[64:128, 128:192].reshape(-1, 3)
    assert {tuple(colour) for colour in drawn.tolist()} == {(255, 0, 255), (90, 0, 90)}
    assert np.abs(whole[:64].astype(int) - image[:64]).mean() < 40
    assert thumbnail[48, 80, 1] < 40  # the middle of the damage has no green


def test_a_damaged_strip_as_wide_as_the_slide_is_drawn_only_where_it_is_seen(tmp_path):
    path = tmp_path / "wide.tif"
    tifffile.imwrite(
        path,
        np.full((64, 60_000, 3), 200, np.uint8),
        photometric="rgb",
        rowsperstrip=64,
        compression="deflate",
        metadata=None,
    )
    damage(path, 0, garbage)
    with open_slide(path) as slide:
        finest = slide.pyramid()[0]
        tracemalloc.start()
        try:
            drawn = finest[:64, 30_000:30_100].compute()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()} == {(255, 0, 255), (90, 0, 90)}
    assert np.array_equal(drawn[1, :-1], drawn[0, 1:])  # the stripes are diagonal
    assert peak < 30_000_000  # hatch over the whole strip takes 30 MB in numbers of 64 bits, and 11 MB more


def test_all_tiles_damaged_yields_only_the_report(stored):
    for tile in range(30):
        damage(stored, tile, lambda data: bytes(len(data)))
    with open_slide(stored) as slide:
        (batch,) = slide.tiles(tile_px=64, mpp=0.5, tissue_only=False)
    assert batch.images.shape == (0, 64, 64, 3)
    assert len(batch.corrupt) == 30


def test_damage_behind_the_last_good_tile_is_reported_with_it(stored):
    damage(stored, 29, garbage)
    with open_slide(stored) as slide:
        batches = list(slide.tiles(tile_px=64, mpp=0.5, tissue_only=False, batch_size=29))
    assert [len(batch.images) for batch in batches] == [29]
    assert batches[0].corrupt.tolist() == [[4, 5]]


def rewrite_tag(path: Path, code: int, tile: int, value: int) -> None:
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags[code]
        size = {3: "<H", 4: "<I"}[int(tag.dtype)]
        place = tag.valueoffset + tile * struct.calcsize(size)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack(size, value))


def test_a_tile_that_was_never_stored_is_background_white(stored):
    for code in (324, 325):
        rewrite_tag(stored, code, 7, 0)
    with open_slide(stored) as slide:
        assert (slide.read(0, 64, 64, 64, 64) == 255).all()
        assert sum(len(batch.corrupt) for batch in slide.tiles(tile_px=64, mpp=0.5, tissue_only=False)) == 0


def test_a_tile_whose_bytes_are_beyond_the_end_is_counted_at_opening(stored):
    rewrite_tag(stored, 324, 7, 2**31)
    with open_slide(stored) as slide:
        assert "1 of 30 stored tiles of level 0 are not in the file" in slide.warnings[0]
        batches = list(slide.tiles(tile_px=64, mpp=0.5, tissue_only=False))
    assert batches[0].corrupt.tolist() == [[1, 1]]


@pytest.mark.parametrize("percent", [10, 50, 90])
@pytest.mark.parametrize(
    "name", ["cmu1_small_region.svs", "tcga_cr_7395_no_mpp.svs", "os1_he.ome.tif", "camelyon_node_jpeg.dcm"]
)
def test_a_slide_that_was_cut_off_is_refused_or_says_so(shared_data, tmp_path, name, percent):
    data = (shared_data / "slides" / name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(data[: len(data) * percent // 100])
    try:
        slide = open_slide(cut, mpp=0.5)
    except SlideError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "cut off" in refusal
        assert "copy it again" in refusal
        return
    with slide:
        assert any("copy" in warning for warning in slide.warnings)
        total = sum(
            len(b.images) + len(b.corrupt) for b in slide.tiles(tile_px=96, mpp=2.0, tissue_only=False)
        )
        assert total == np.prod(slide.tile_grid(96, 2.0).shape)
        slide.thumbnail(200)


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_a_cut_slide_whose_directory_survived_streams_what_is_left(stored, percent):
    with open_slide(stored) as slide:
        good = slide.read(0, 0, 0, *slide.shape)
    size = stored.stat().st_size
    os.truncate(stored, size * percent // 100)
    with open_slide(stored) as slide:
        batches = list(slide.tiles(tile_px=64, mpp=0.5, tissue_only=False))
    lost = sum(len(batch.corrupt) for batch in batches)
    assert 0 < lost < 30
    for batch in batches:
        for image, (y, x) in zip(batch.images, batch.origins_px0.tolist(), strict=True):
            assert np.array_equal(image, good[y : y + 64, x : x + 64])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.svs", b"case 12, block B\n" * 40, "is a text file, not a slide"),
        ("empty.svs", b"", "is an empty file"),
        ("zeros.svs", bytes(5000), "is no slide"),
        ("random.svs", np.random.default_rng(0).bytes(5000), "cannot be opened as a slide"),
        ("header.tif", b"II*\0" + bytes(10), "ends before the directory"),
        ("header.tif", b"MM\0+" + bytes(40), "ends before the directory"),
        ("nonsense.tif", b"II*\0\x08\0\0\0" + np.random.default_rng(0).bytes(900), "copy it again"),
        ("index.mrxs", b"\xff\xd8 nothing", "cannot be opened as a slide"),
    ],
)
def test_a_file_that_is_no_slide_is_refused_in_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SlideError, match=words) as caught:
        open_slide(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(SlideError, match="There is no file"):
        open_slide(tmp_path / "missing.svs")
    with pytest.raises(SlideError, match="holds no DICOM slide"):
        open_slide(tmp_path)
    with pytest.raises(SlideError, match="no slide backend 'vips'"):
        open_slide(tmp_path, backend="vips")


def test_a_directory_of_several_dicom_slides_is_refused(shared_data, tmp_path):
    slides = shared_data / "slides"
    for name in ("camelyon_node_jpeg.dcm", "camelyon_node_jpeg2000.dcm"):
        shutil.copyfile(slides / name, tmp_path / name)
    with pytest.raises(SlideError, match="holds 2 slides"):
        open_slide(tmp_path)


def test_openslide_missing_is_said_with_the_remedy(shared_data, monkeypatch):
    monkeypatch.setattr("napari_her2.slide.backends.find_spec", lambda name: None)
    with pytest.raises(SlideError, match=r"pip install 'napari-her2\[openslide\]'"):
        open_slide(shared_data / "slides" / "camelyon_node_jpeg.dcm")
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        assert slide.backend.startswith("tiffslide")


def test_an_unreadable_file_is_refused_in_words(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = tmp_path / "locked.svs"
    path.write_bytes(b"II*\0")
    path.chmod(0)
    with pytest.raises(SlideError, match="cannot be read"):
        open_slide(path)


def drop_end_marker(data: bytes) -> bytes:
    return data[:-2] + b"\0\0"


def test_a_writer_that_never_ends_its_jpeg_is_read_with_a_warning(image, tmp_path):
    path = tmp_path / "habit.tif"
    tifffile.imwrite(path, image, tile=(TILE, TILE), compression="jpeg", photometric="rgb")
    with open_slide(path) as slide:
        good = slide.read(0, 0, 0, *slide.shape)
        assert slide.warnings == ()
    for tile in range(30):
        damage(path, tile, drop_end_marker)
    with open_slide(path) as slide:
        assert "habit of the writer" in slide.warnings[0]
        assert np.array_equal(slide.read(0, 0, 0, *slide.shape), good)


def test_one_damaged_tile_alone_is_no_habit(image, tmp_path):
    path = tmp_path / "single.tif"
    tifffile.imwrite(path, image[:TILE, :TILE], tile=(TILE, TILE), compression="jpeg", photometric="rgb")
    damage(path, 0, drop_end_marker)
    with open_slide(path) as slide, pytest.raises(SlideError, match="damaged at y 0, x 0"):
        slide.read(0, 0, 0, 8, 8)
