"""Folds and bubbles on painted tissue: what looks like one but is none is left alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from napari_her2.slide.bubbles import bubble_mask
from napari_her2.slide.folds import fold_mask

UM = 4.0
H, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
SHAPE = (400, 500)


def tissue(seed: int = 0) -> np.ndarray:
    """Density of uneven pink and blue tissue, 1.6 x 2 mm."""
    rng = np.random.default_rng(seed)
    amounts = [0.25 + 0.03 * cv2.GaussianBlur(rng.normal(0, 20, SHAPE), (0, 0), 6) for _ in range(2)]
    blue, pink = (np.clip(each, 0.1, 0.4)[..., None] for each in amounts)
    return (0.4 * blue * np.array(H) + pink * np.array(EOSIN)).astype(np.float32)


def line(width_um: float) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    cv2.line(mask, (60, 80), (430, 260), 1, round(width_um / UM))
    return mask > 0


def circle(radius_um: float, thick_um: float) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    cv2.circle(mask, (250, 200), round(radius_um / UM), 1, round(thick_um / UM))
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1)[..., None]


EVERYWHERE = np.ones(SHAPE, np.bool_)


@pytest.mark.parametrize("width_um", [40, 80, 120])
def test_tissue_that_lies_twice_over_itself_is_a_fold(width_um) -> None:
    fold = line(width_um)
    density = tissue() + fold[..., None] * tissue(1)
    found = fold_mask(density, EVERYWHERE, UM, 1.5)
    assert found[fold].mean() > 0.7
    beside = cv2.dilate(fold.astype(np.uint8), np.ones((15, 15))) == 0
    assert not found[beside].any()


@pytest.mark.parametrize("stain", [DAB, H])
def test_a_strip_of_another_colour_is_no_fold(stain) -> None:
    # A strand of brown tumour, or of nuclei, twice as dense as what surrounds it.
    density = tissue() + line(80)[..., None] * (0.5 * np.array(stain, np.float32))
    assert not fold_mask(density, EVERYWHERE, UM, 1.5).any()


def test_tissue_without_a_fold_has_none_and_neither_has_glass() -> None:
    assert not fold_mask(tissue(), EVERYWHERE, UM, 1.5).any()
    nothing = np.zeros((*SHAPE, 3), np.float32)
    assert not fold_mask(nothing, np.zeros(SHAPE, np.bool_), UM, 1.5).any()


def test_a_dense_blot_is_no_fold() -> None:
    blot = np.zeros(SHAPE, np.uint8)
    cv2.circle(blot, (250, 200), round(200 / UM), 1, cv2.FILLED)
    assert not fold_mask(tissue() + blot[..., None] * tissue(1), EVERYWHERE, UM, 1.5).any()


@pytest.mark.parametrize("radius_um", [150, 400])
def test_a_dark_colourless_ring_is_a_bubble_with_all_that_it_encloses(radius_um) -> None:
    density = tissue() + 0.6 * circle(radius_um, 20) * np.ones(3, np.float32)
    found = bubble_mask(density, UM)
    area_um2 = found.sum() * UM**2
    assert area_um2 == pytest.approx(np.pi * radius_um**2, rel=0.4)
    assert found[200, 250]


def test_a_gland_is_no_bubble() -> None:
    # A ring of nuclei: round and thin, but blue.
    density = tissue() + 0.9 * circle(150, 24) * np.array(H, np.float32)
    assert not bubble_mask(density, UM).any()


def test_a_hair_is_no_bubble() -> None:
    density = tissue() + 0.8 * line(16)[..., None] * np.ones(3, np.float32)
    assert not bubble_mask(density, UM).any()
