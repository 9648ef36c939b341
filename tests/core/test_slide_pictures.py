"""Plain pictures as slides of one level: pixels, tiles, and what is refused in words."""

from __future__ import annotations

import contextlib
import io
import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from napari_her2 import open_slide
from napari_her2._napari.reader import get_reader
from napari_her2.cli import app
from napari_her2.errors import SlideError
from napari_her2.slide import image_backend

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (611, 803)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Coarse blobs with fine noise: nothing is the same in two places."""
    rng = np.random.default_rng(8)
    coarse = rng.integers(0, 255, (20, 26, 3), np.uint8)
    smooth = cv2.resize(coarse, (SHAPE[1], SHAPE[0]), interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(smooth + rng.integers(-9, 9, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def jpeg(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "core.jpg"
    Image.fromarray(pixels).save(path, quality=92, dpi=(300, 300))
    return path


@pytest.fixture(scope="module")
def opened(jpeg: Path):
    with open_slide(jpeg, mpp=0.25) as slide:
        yield slide


def test_a_jpeg_is_a_slide_of_one_level_that_states_no_size(jpeg: Path) -> None:
    with open_slide(jpeg) as slide:
        assert slide.level_shapes == (SHAPE,)
        assert (slide.mpp, slide.mpp_source) == (None, "not stated")  # 300 dpi is a size on paper
        assert "JPEG" in slide.backend
        assert slide.associated_images == ()
        with pytest.raises(SlideError, match="says no µm/px"):
            slide.tile_grid(64, 0.5)
    with open_slide(jpeg, mpp=0.23) as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.23, 0.23), "given by the user")


@settings(max_examples=40, deadline=None)
@given(
    y=st.integers(-300, 900), x=st.integers(-300, 1000), height=st.integers(0, 400), width=st.integers(0, 400)
)
def test_any_window_equals_another_decoder(
    opened, jpeg: Path, y: int, x: int, height: int, width: int
) -> None:
    whole = np.asarray(Image.open(jpeg))
    framed = np.pad(whole, ((300, 800), (300, 800), (0, 0)), constant_values=255)
    expected = framed[y + 300 : y + 300 + height, x + 300 : x + 300 + width]
    # Decoders may round differently by a grey value or two.
    got = opened.read(0, y, x, height, width)
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max(initial=0) <= 2


def test_a_png_gives_its_very_pixels_also_through_pyramid_and_tiles(
    pixels: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(pixels).save(tmp_path / "field.png")
    with open_slide(tmp_path / "field.png", mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, *SHAPE), pixels)
        assert [level.shape for level in slide.pyramid()] == [(*SHAPE, 3)]
        np.testing.assert_array_equal(
            slide.pyramid()[0][100:200, 300:400].compute(), pixels[100:200, 300:400]
        )
        batch = next(iter(slide.tiles(tile_px=100, mpp=0.5, tissue_only=False)))
        for image, (y, x) in zip(batch.images, batch.origins_px0, strict=True):
            np.testing.assert_array_equal(image, pixels[y : y + 100, x : x + 100])
        halves = next(iter(slide.tiles(tile_px=50, mpp=1.0, tissue_only=False))).images[0]
        area = pixels[:100, :100].reshape(50, 2, 50, 2, 3).mean(axis=(1, 3))
        assert np.abs(halves - area).max() <= 0.51


def test_what_is_read_can_be_written_over_without_harm(opened) -> None:
    first = opened.read(0, 0, 0, *SHAPE)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(opened.read(0, 0, 0, *SHAPE), kept)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P"])
def test_grey_transparent_and_palette_pictures_become_rgb(
    pixels: np.ndarray, mode: str, tmp_path: Path
) -> None:
    image = Image.fromarray(pixels).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.tile(np.arange(SHAPE[1]) % 256, (SHAPE[0], 1)).astype(np.uint8)))
    image.save(tmp_path / "picture.png")
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    with open_slide(tmp_path / "picture.png") as slide:
        assert np.abs(slide.read(0, 0, 0, *SHAPE).astype(int) - expected).max() <= 1


def test_a_grey_jpeg_is_grey_in_all_channels(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).convert("L").save(tmp_path / "grey.jpg")
    with open_slide(tmp_path / "grey.jpg") as slide:
        window = slide.read(0, 10, 10, 50, 50)
    assert (window == window[..., :1]).all()
    assert window.std() > 0


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cut_off_picture_is_refused_not_filled_up(
    pixels: np.ndarray, kind: str, keep: float, tmp_path: Path
) -> None:
    whole = io.BytesIO()
    Image.fromarray(pixels).save(whole, kind)
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole.getvalue()[: int(keep * whole.tell())])
    with pytest.raises(SlideError, match="damaged or cut off; copy it again"):
        open_slide(path)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["JPEG", "PNG"]))
def test_a_scrambled_picture_is_refused_in_words_or_read(seed: int, kind: str, tmp_path_factory) -> None:
    rng = np.random.default_rng(seed)
    stored = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(stored, kind)
    data = bytearray(stored.getvalue())
    for at in rng.integers(8, len(data), 5):
        data[at] = rng.integers(256)
    path = tmp_path_factory.mktemp("scrambled") / "picture"
    path.write_bytes(bytes(data))
    with contextlib.suppress(SlideError), open_slide(path) as slide:
        assert slide.read(0, 0, 0, *slide.shape).shape == (*slide.shape, 3)


def test_cmyk_and_sixteen_bits_are_refused_in_words(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "print.jpg")
    cv2.imwrite(str(tmp_path / "deep.png"), pixels.astype(np.uint16) * 257)
    for name, kind in (("print.jpg", "CMYK"), ("deep.png", "16-bit")):
        with pytest.raises(SlideError, match=f"{kind}.*save it as 8-bit RGB"):
            open_slide(tmp_path / name)


def test_a_png_too_large_to_hold_is_refused_before_it_is_decoded(
    pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(pixels).save(tmp_path / "field.png")
    monkeypatch.setattr(image_backend, "MAX_PIXELS", 1000)
    monkeypatch.setattr(image_backend, "_decoded", None)
    with pytest.raises(SlideError, match=r"803 x 611 px, too many.*tiled TIFF"):
        open_slide(tmp_path / "field.png")


def test_a_closed_picture_lets_go_of_its_pixels(jpeg: Path) -> None:
    slide = open_slide(jpeg)
    slide.close()
    with pytest.raises(SlideError, match="was closed"):
        slide.read(0, 0, 0, 5, 5)


def test_info_of_a_jpeg_with_the_size_that_was_given(jpeg: Path) -> None:
    run = CliRunner().invoke(app, ["info", str(jpeg), "--mpp", "0.23", "--json"])
    assert run.exit_code == 0
    told = json.loads(run.stdout)
    assert told["mpp"] == [0.23, 0.23]
    assert told["mpp_source"] == "given by the user"


@pytest.mark.parametrize("name", ["core.jpg", "core.JPEG", "core.png"])
def test_napari_keeps_the_pictures_that_are_dropped_on_it(name: str) -> None:
    assert get_reader(f"/pictures/{name}") is None
