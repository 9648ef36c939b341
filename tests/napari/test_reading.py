from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_her2._napari.reader import get_reader, is_slide
from napari_her2._napari.tiff_header import read_pages

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


def write_tiff(
    path: Path,
    *,
    tiled: bool = True,
    levels: int = 2,
    colour: bool = True,
    bigtiff: bool = False,
    byteorder: str = "<",
    sub_ifds: bool = False,
) -> Path:
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as file:
        for level in range(levels):
            side = 256 >> level
            shape = (side, side, 3) if colour else (side, side)
            file.write(
                RNG.integers(0, 255, shape, np.uint8),
                tile=(64, 64) if tiled else None,
                photometric="rgb" if colour else "minisblack",
                subifds=levels - 1 if sub_ifds and not level else None,
                subfiletype=1 if level else 0,
                metadata=None,
            )
    return path


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("sub_ifds", [False, True])
def test_a_tiled_colour_pyramid_is_a_slide(
    tmp_path: Path, bigtiff: bool, byteorder: str, sub_ifds: bool
) -> None:
    path = write_tiff(tmp_path / "a.tif", bigtiff=bigtiff, byteorder=byteorder, sub_ifds=sub_ifds)
    page = read_pages(path)[0]
    assert (page.height, page.width, page.tiled, page.colour) == (256, 256, True, True)
    assert is_slide(path)


@pytest.mark.parametrize("options", [{"tiled": False}, {"levels": 1}, {"colour": False}])
def test_other_tiffs_are_left_to_napari(tmp_path: Path, options: dict[str, object]) -> None:
    assert get_reader(str(write_tiff(tmp_path / "a.tiff", **options))) is None


def test_a_tiled_colour_ome_tiff_of_one_level_is_a_slide(tmp_path: Path) -> None:
    assert is_slide(write_tiff(tmp_path / "a.ome.tif", levels=1))
    assert not is_slide(write_tiff(tmp_path / "b.ome.tif", levels=1, colour=False))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.5, 0.9])
def test_a_cut_off_tiff_never_breaks_the_decision(tmp_path: Path, keep: float) -> None:
    path = write_tiff(tmp_path / "a.tif")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert isinstance(is_slide(path), bool)


def test_a_tiff_whose_directories_go_round_in_a_circle_ends(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", levels=1)
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[first : first + 2], "little")
    after = first + 2 + 12 * count
    content[after : after + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    assert len(read_pages(path)) == 1


def test_text_and_missing_files_named_tif_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.tif").write_text("not an image")
    assert get_reader(str(tmp_path / "notes.tif")) is None
    assert get_reader(str(tmp_path / "missing.tif")) is None


@pytest.mark.parametrize("name", ["a.svs", "a.NDPI", "a.scn", "a.bif", "a.qptiff", "a.mrxs", "a.dcm"])
def test_a_slide_vendors_file_is_always_ours(name: str) -> None:
    assert get_reader(f"/slides/{name}") is not None


def test_a_stack_of_files_is_left_to_napari() -> None:
    assert get_reader(["/slides/a.svs", "/slides/b.svs"]) is None


def test_real_files_are_told_apart(shared_data: Path) -> None:
    assert is_slide(shared_data / "slides" / "os1_he.ome.tif")
    assert not is_slide(shared_data / "cells" / "breast_he_ytma10.tif")
    assert not is_slide(shared_data / "cells" / "breast_he_ytma10_labels.tif")


def test_a_real_slide_opens_with_its_size(shared_data: Path) -> None:
    path = str(shared_data / "slides" / "cmu1_small_region.svs")
    (layer,) = get_reader(path)(path)
    data, options, kind = layer
    assert kind == "image"
    assert data[0].shape == (2967, 2220, 3)
    assert max(data[-1].shape[:2]) <= 1024
    assert options["scale"] == pytest.approx((0.499, 0.499))
    assert options["units"] == ("um", "um")
    assert data[0][1000:1010, 1000:1010].shape == (10, 10, 3)
