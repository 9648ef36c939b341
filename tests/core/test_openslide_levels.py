"""Windows of coarse levels that OpenSlide reads are the stored pixels, wherever they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide.files import DamagedTile
from napari_her2.slide.openslide_levels import LevelWindows, block_starts, shifts

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")


def pyramid(path: Path, shape: tuple[int, int], steps: tuple[int, ...]) -> list[np.ndarray]:
    """A pyramid of noise with odd sizes, and its levels."""
    rng = np.random.default_rng(0)
    levels = [
        rng.integers(0, 255, (shape[0] // step, shape[1] // step, 3)).astype(np.uint8) for step in steps
    ]
    with tifffile.TiffWriter(path) as writer:
        for level, pixels in enumerate(levels):
            writer.write(
                pixels, photometric="rgb", tile=(128, 112), subfiletype=int(level > 0), compression="deflate"
            )
    return levels


@pytest.mark.parametrize("shape", [(1483, 1111), (1999, 903)])
def test_a_thousand_windows_equal_the_level_as_it_was_stored(tmp_path, shape):
    levels = pyramid(tmp_path / "odd.tif", shape, (1, 2, 4, 7, 16, 33))
    rng = np.random.default_rng(1)
    with open_slide(tmp_path / "odd.tif", backend="openslide") as slide:
        assert slide.level_shapes == tuple(level.shape[:2] for level in levels)
        for _ in range(1000):
            level = int(rng.integers(len(levels)))
            whole = levels[level]
            y, x = (int(rng.integers(side)) for side in whole.shape[:2])
            height = int(rng.integers(1, min(400, whole.shape[0] - y) + 1))
            width = int(rng.integers(1, min(400, whole.shape[1] - x) + 1))
            read = slide.read(level, y, x, height, width)
            assert np.array_equal(read, whole[y : y + height, x : x + width]), (level, y, x, height, width)


def test_a_real_dicom_pyramid_reads_the_same_in_windows_and_at_once(shared_data):
    import openslide

    folder = shared_data / "slides" / "dicom-cmu1-pyramid"
    rng = np.random.default_rng(2)
    with open_slide(folder) as slide, openslide.OpenSlide(folder / "level-0-frames-0-30.dcm") as other:
        for level, (height, width) in list(enumerate(slide.level_shapes))[1:8]:
            whole = np.asarray(other.read_region((0, 0), level, (width, height)))[..., :3]
            for _ in range(100):
                y, x = int(rng.integers(height)), int(rng.integers(width))
                read = slide.read(level, y, x, height - y, width - x)
                assert np.array_equal(read, whole[y:, x:])


@pytest.mark.parametrize("downsample", [2.0, 4.0, 2.000337, 4.0000262, 16.06, 3.3333, 7.0003])
@pytest.mark.parametrize("side", [1, 900, 5000, 30_000])
def test_blocks_begin_where_nothing_is_shifted_wherever_there_is_such_a_place(side, downsample):
    starts = block_starts(side, downsample)
    assert starts[0] == 0
    assert all(0 < second - first <= 4096 for first, second in zip(starts, [*starts[1:], side], strict=True))
    shift = shifts(np.arange(side), downsample)
    for start, last in zip(starts[1:], starts[:-1], strict=True):
        reachable = shift[last + 1024 : last + (4096 if shift[last] < 1 / 550 else 1024) + 1]
        assert shift[start] < 1 / 550 or not (reachable < 1 / 550).any()


def test_damage_in_a_block_spoils_only_the_windows_that_touch_it():
    def read(origin, height, width):
        x, y = (round(side / 3.01) for side in origin)
        if y <= 50 < y + height and x <= 60 < x + width:
            raise DamagedTile("damaged at y 50, x 60")
        return np.full((height, width, 3), 7, np.uint8)

    level = LevelWindows((700, 800), 3.01, read)
    assert (level.window(300, 311, 20, 30) == 7).all()
    with pytest.raises(SlideError, match="damaged at y 50"):
        level.window(41, 43, 20, 30)
