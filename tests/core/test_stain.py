"""Stain guess: every real image at hand, and colours computed from the absorbances of the dyes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import tifffile

from napari_her2.slide.stain import guess_stain
from napari_her2.slide.tissue import tissue_mask

if TYPE_CHECKING:
    from pathlib import Path

# Ruifrok and Johnston, Anal Quant Cytol Histol 2001;23:291-299.
HAEMATOXYLIN = np.array([0.650, 0.704, 0.286])
EOSIN = np.array([0.072, 0.990, 0.105])
DAB = np.array([0.268, 0.570, 0.776])

HE = [
    "slides/os1_he.ome.tif",
    "slides/cmu1_small_region.svs",
    "slides/tcga_cr_7395_no_mpp.svs",
    "stain/breast_he_source.png",
    "stain/he_target.png",
    "stain/lung_he.png",
    "stain/tiatoolbox_target.png",
    "registration/lung_lesion3_He.jpg",
    "cells/breast_he_ytma10.tif",
    "tissue/thumbnail_green_pen.png",
    "tissue/thumbnail_red_pen.png",
]
IHC = [
    "slides/os2_ki67_hamamatsu.ome.tif",
    "slides/os2_ki67_olympus.ome.tif",
    "stain/hdab_colon.png",
    "registration/lung_lesion3_CD31-3.jpg",
    "registration/lung_lesion3_Cc10-5.jpg",
    "registration/lung_lesion3_proSPC-4.jpg",
]


def guess_file(path: Path, factor: int) -> str:
    if path.suffix in {".svs", ".tif"}:
        rgb = np.ascontiguousarray(tifffile.imread(path, series=0, level=0)[..., :3])
    else:
        reading = cv2.IMREAD_REDUCED_COLOR_8 if factor >= 8 else cv2.IMREAD_COLOR
        rgb = np.ascontiguousarray(cv2.imread(str(path), reading)[..., ::-1])
    shrink = factor // 8 if factor >= 8 else factor
    size = rgb.shape[1] // shrink, rgb.shape[0] // shrink
    rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return guess_stain(rgb, tissue_mask(rgb, factor))


@pytest.mark.parametrize("name", HE)
def test_real_he(shared_data: Path, name: str) -> None:
    assert guess_file(shared_data / name, 2) == "H&E"


@pytest.mark.parametrize("name", IHC)
def test_real_ihc(shared_data: Path, name: str) -> None:
    assert guess_file(shared_data / name, 2) == "IHC"


@pytest.mark.parametrize("factor", [8, 16])
def test_her2_cores_of_every_score_are_ihc(shared_data: Path, factor: int) -> None:
    files = sorted((shared_data / "her2_ihc_cores").glob("*.jpg"))
    assert len(files) == 7
    assert {file.name: guess_file(file, factor) for file in files} == dict.fromkeys(
        (file.name for file in files), "IHC"
    )


def test_haematoxylin_alone_is_never_taken_for_he(shared_data: Path) -> None:
    # A Ki67 section with hardly any DAB, at the edge of what its counterstain allows.
    assert guess_file(shared_data / "registration/lung_lesion3_Ki67-7.jpg", 1) != "H&E"


def test_a_field_without_glass_is_not_called_ihc_for_being_blue(shared_data: Path) -> None:
    assert guess_file(shared_data / "stain/breast_he_target.png", 1) != "IHC"


def painted(dyes: list[np.ndarray], amounts: list[tuple[float, float]], seed: int = 0) -> np.ndarray:
    """(200, 200, 3): glass around a field of cells, light absorbed as Beer and Lambert have it."""
    rng = np.random.default_rng(seed)
    density = np.zeros((200, 200, 3))
    for dye, (low, high) in zip(dyes, amounts, strict=True):
        field = cv2.GaussianBlur(rng.random((160, 160)), (0, 0), 2)
        field = (field - field.min()) / np.ptp(field)
        density[20:180, 20:180] += (low + (high - low) * field)[..., None] * dye
    return np.clip(245 * 10**-density + rng.normal(0, 1, density.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("strength", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_computed_colours(strength: float, seed: int) -> None:
    mask = np.zeros((200, 200), bool)
    mask[20:180, 20:180] = True

    def guess(dyes: list[np.ndarray], amounts: list[tuple[float, float]]) -> str:
        scaled = [(low * strength, high * strength) for low, high in amounts]
        return guess_stain(painted(dyes, scaled, seed), mask)

    assert guess([HAEMATOXYLIN, EOSIN], [(0.05, 0.4), (0.15, 0.3)]) == "H&E"
    assert guess([HAEMATOXYLIN, DAB], [(0.05, 0.4), (0.0, 0.6)]) == "IHC"
    assert guess([HAEMATOXYLIN, DAB], [(0.1, 0.2), (0.03, 0.06)]) == "IHC"


def test_unsure_is_said() -> None:
    mask = np.ones((200, 200), bool)
    rng = np.random.default_rng(3)
    fluorescence = (rng.random((200, 200, 3)) ** 8 * 255).astype(np.uint8)
    assert guess_stain(fluorescence, mask) == "unknown"
    grey = np.repeat(rng.integers(60, 200, (200, 200, 1)), 3, axis=2).astype(np.uint8)
    assert guess_stain(grey, mask) == "unknown"
    green = painted([np.array([0.8, 0.1, 0.6])], [(0.2, 0.5)])
    assert guess_stain(green, mask) == "unknown"
    assert guess_stain(painted([EOSIN], [(0.2, 0.5)]), np.zeros((200, 200), bool)) == "unknown"
