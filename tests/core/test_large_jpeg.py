"""Whole slides that are one JPEG of more pixels than are held in memory: decoded once, into the cache."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide import decoded_pictures, image_backend

SHAPE = (301, 403)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_backend, "MAX_PIXELS", 1000)


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 255, (10, 13, 3), np.uint8)).resize((SHAPE[1], SHAPE[0]))
    coarse.save(tmp_path / "slide.jpg", quality=90)
    return tmp_path / "slide.jpg"


def kept() -> list[Path]:
    return sorted((Path(os.environ["NAPARI_HER2_CACHE"]) / "pictures").iterdir())


@pytest.mark.usefixtures("small_limit")
def test_its_pixels_are_those_of_another_decoder_and_are_decoded_once(
    jpeg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.asarray(Image.open(jpeg)).astype(int)
    with open_slide(jpeg, mpp=0.5) as slide:
        assert slide.shape == SHAPE
        assert np.abs(slide.read(0, 0, 0, *SHAPE).astype(int) - expected).max() <= 2
        batch = next(iter(slide.tiles(tile_px=100, mpp=0.5, tissue_only=False)))
        for image, (y, x) in zip(batch.images[:3], batch.origins_px0, strict=False):
            assert np.abs(image.astype(int) - expected[y : y + 100, x : x + 100]).max() <= 2
    (file,) = kept()
    assert file.stat().st_size == SHAPE[0] * SHAPE[1] * 3
    monkeypatch.setattr(decoded_pictures, "_decode", None)
    with open_slide(jpeg) as slide:
        assert np.abs(slide.read(0, 100, 100, 50, 50).astype(int) - expected[100:150, 100:150]).max() <= 2


@pytest.mark.usefixtures("small_limit")
def test_a_file_that_changed_is_decoded_anew(jpeg: Path) -> None:
    open_slide(jpeg).close()
    Image.new("RGB", (SHAPE[1], SHAPE[0]), (10, 200, 30)).save(jpeg)
    os.utime(jpeg, (1, 1))
    with open_slide(jpeg) as slide:
        assert np.abs(slide.read(0, 0, 0, 1, 1).astype(int) - (10, 200, 30)).max() <= 3


@pytest.mark.usefixtures("small_limit")
def test_what_is_cut_off_is_refused_and_leaves_nothing(jpeg: Path) -> None:
    data = jpeg.read_bytes()
    jpeg.write_bytes(data[: len(data) // 2])
    with pytest.raises(SlideError, match="damaged or cut off"):
        open_slide(jpeg)
    assert kept() == []


@pytest.mark.usefixtures("small_limit")
def test_a_progressive_one_is_refused_in_words(jpeg: Path) -> None:
    Image.open(jpeg).save(jpeg.with_name("progressive.jpg"), progressive=True)
    with pytest.raises(SlideError, match=r"progressive JPEG.*baseline"):
        open_slide(jpeg.with_name("progressive.jpg"))


def test_a_small_file_that_states_a_huge_picture_takes_no_room(jpeg: Path) -> None:
    data = bytearray(jpeg.read_bytes())
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xfd\xe8\xfd\xe8"
    jpeg.write_bytes(data)
    with pytest.raises(SlideError, match="65,000 x 65,000 px, more than its"):
        open_slide(jpeg)
    assert kept() == []


@pytest.mark.usefixtures("small_limit")
def test_the_cache_is_bounded_and_the_oldest_goes_first(jpeg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = SHAPE[0] * SHAPE[1] * 3
    monkeypatch.setattr(decoded_pictures, "MAX_BYTES", 2 * size)
    for number in range(3):
        other = jpeg.with_name(f"{number}.jpg")
        shutil.copy(jpeg, other)
        open_slide(other).close()
        for file in kept():  # each older than the next
            os.utime(file, (file.stat().st_mtime - 1000,) * 2)
    assert len(kept()) == 2
    monkeypatch.setattr(decoded_pictures, "MAX_BYTES", size - 1)
    shutil.copy(jpeg, jpeg.with_name("new.jpg"))
    with pytest.raises(SlideError, match="free space"):
        open_slide(jpeg.with_name("new.jpg"))


@pytest.mark.slow
def test_a_jpeg_of_more_than_2_to_the_28_pixels_is_read(tmp_path: Path) -> None:
    shape = (9000, 30000)
    pixels = np.full((*shape, 3), 240, np.uint8)
    pixels[8990:, 29990:] = (10, 200, 30)
    Image.fromarray(pixels).save(tmp_path / "large.jpg", quality=85)
    del pixels
    with open_slide(tmp_path / "large.jpg", mpp=0.5) as slide:
        assert slide.shape == shape
        assert np.abs(slide.read(0, 8996, 29996, 2, 2).astype(int) - (10, 200, 30)).max() <= 6
        assert slide.thumbnail(256).shape[1] == 256
