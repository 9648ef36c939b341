"""Macenko fits: against torchstain, another toolkit's image, known dyes, and pictures with nothing to fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_her2 import open_slide
from napari_her2.slide.macenko import (
    HE_REFERENCE,
    IDENTITY,
    IO,
    PIXELS_AN_IMAGE,
    MacenkoFit,
    fit_macenko,
    fit_slide,
    he_transform,
    ihc_transform,
    sample_pixels,
)
from small_files import write_flat_slide

if TYPE_CHECKING:
    from pathlib import Path

# Ruifrok and Johnston, Anal Quant Cytol Histol 2001;23:291-299, of unit length.
HAEMATOXYLIN = np.array([0.650, 0.704, 0.286]) / np.linalg.norm([0.650, 0.704, 0.286])
EOSIN = np.array([0.072, 0.990, 0.105]) / np.linalg.norm([0.072, 0.990, 0.105])
DAB = np.array([0.268, 0.570, 0.776]) / np.linalg.norm([0.268, 0.570, 0.776])

IMAGES = ["breast_he_source", "breast_he_target", "he_source", "he_target", "lung_he", "hdab_colon"]
any_image = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24).map(lambda hw: (*hw, 3)))


def read(folder: Path, name: str, side: int = 256) -> np.ndarray:
    """A field of an image, RGB: all of it would take torchstain too long."""
    image = cv2.imread(str(folder / "stain" / f"{name}.png"))
    assert image is not None
    return np.ascontiguousarray(image[:side, :side, ::-1])


def painted(dyes: tuple[np.ndarray, np.ndarray], strength: tuple[float, float], seed: int) -> np.ndarray:
    """(96, 96, 3) uint8: from one pure dye to the other, at every strength, on light of 240."""
    rng = np.random.default_rng(seed)
    share, amount = rng.random((96, 96)), rng.uniform(0.3, 1, (96, 96))
    share = np.clip(1.4 * share - 0.2, 0, 1)
    first, second = amount * share * strength[0], amount * (1 - share) * strength[1]
    light = IO * np.exp(-(first[..., None] * dyes[0] + second[..., None] * dyes[1])) - 1
    return np.rint(np.clip(light, 0, 255)).astype(np.uint8)


def degrees(a, b) -> float:
    return float(np.degrees(np.arccos(np.clip(np.dot(a, b), -1, 1))))


@pytest.mark.parametrize("io", [240, 255])
@pytest.mark.parametrize("name", IMAGES)
def test_equals_torchstain_within_a_grey_level(shared_data: Path, name: str, io: int) -> None:
    torchstain = pytest.importorskip("torchstain")
    image, target = read(shared_data, name), read(shared_data, "tiatoolbox_target")
    theirs = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
    theirs.fit(target, Io=io)
    reference, fit = fit_macenko(target, io=io), fit_macenko(image, io=io)
    np.testing.assert_allclose(np.array(reference.stains).T, theirs.HERef, atol=1e-9)
    np.testing.assert_allclose(reference.max_concentrations, theirs.maxCRef, rtol=1e-9)
    expected, _, _ = theirs.normalize(image, Io=io, stains=False)
    difference = he_transform(fit, reference).apply(image).astype(int) - expected
    assert set(np.unique(difference)) <= {-1, 0, 1}


def test_default_reference_is_that_of_torchstain(shared_data: Path) -> None:
    torchstain = pytest.importorskip("torchstain")
    image = read(shared_data, "he_source")
    expected, _, _ = torchstain.normalizers.MacenkoNormalizer(backend="numpy").normalize(image, stains=False)
    assert np.abs(he_transform(fit_macenko(image)).apply(image).astype(int) - expected).max() <= 1


def test_comes_close_to_another_toolkit(shared_data: Path) -> None:
    # That toolkit fits inside a tissue mask of its own: means agree, single pixels differ by its percentiles.
    source, target, expected = (
        read(shared_data, name, 512) for name in ("he_source", "he_target", "he_macenko_expected")
    )
    ours = he_transform(fit_macenko(source), fit_macenko(target)).apply(source)
    difference = np.abs(ours.astype(int) - expected)
    assert difference.mean() < 2
    assert np.percentile(difference, 99) <= 10
    assert np.abs(source.astype(int) - expected).mean() > 10 * difference.mean()


@pytest.mark.parametrize("second", [EOSIN, DAB])
@pytest.mark.parametrize("seed", [0, 1])
def test_finds_the_dyes_an_image_was_painted_with(second: np.ndarray, seed: int) -> None:
    # Every channel must absorb to count as stained, and pure eosin leaves red alone: some of it is lost.
    fit = fit_macenko(painted((HAEMATOXYLIN, second), (2.0, 1.5), seed))
    assert fit.fallback is None
    assert degrees(fit.stains[0], HAEMATOXYLIN) < 2
    assert degrees(fit.stains[1], second) < (8 if second is EOSIN else 2)
    assert np.linalg.norm(fit.stains, axis=1) == pytest.approx(1)


@settings(max_examples=15, deadline=None)
@given(
    strength=st.tuples(st.floats(1.0, 2.5), st.floats(1.0, 2.5)),
    seed=st.integers(0, 2**16),
    second=st.sampled_from([EOSIN, DAB]),
)
def test_normalised_onto_its_own_fit_an_image_stays(strength, seed, second) -> None:
    image = painted((HAEMATOXYLIN, second), strength, seed)
    fit = fit_macenko(image)
    assert fit.fallback is None
    assert np.abs(he_transform(fit, fit).apply(image).astype(int) - image).max() <= 2


def test_two_stainings_of_a_tissue_come_out_alike() -> None:
    other = np.array([0.55, 0.76, 0.35]), np.array([0.15, 0.93, 0.33])
    dyes = tuple(vector / np.linalg.norm(vector) for vector in other)
    strong, pale = painted((HAEMATOXYLIN, EOSIN), (2.4, 1.8), 3), painted(dyes, (1.4, 1.2), 3)
    before = np.abs(strong.astype(int) - pale).mean()
    after = [he_transform(fit_macenko(image)).apply(image).astype(int) for image in (strong, pale)]
    assert np.abs(after[0] - after[1]).mean() < before / 5


@settings(max_examples=60, deadline=None)
@given(image=any_image, io=st.sampled_from([240.0, 255.0]))
def test_every_image_has_a_finite_fit_and_stays_an_image(image: np.ndarray, io: float) -> None:
    fit = fit_macenko(image, io=io)
    assert np.isfinite([*fit.stains[0], *fit.stains[1], *fit.max_concentrations]).all()
    transform = he_transform(fit)
    assert np.isfinite(transform.matrix).all()
    assert np.isfinite(transform.offset).all()
    normalised = transform.apply(image)
    assert normalised.shape == image.shape
    if fit.fallback is not None:
        assert transform.is_identity
        np.testing.assert_array_equal(normalised, image)


@settings(max_examples=40, deadline=None)
@given(colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_an_image_of_one_colour_stays_as_it_is(colour) -> None:
    image = np.full((30, 30, 3), colour, np.uint8)
    fit = fit_macenko(image)
    assert fit.fallback in {"no stain", "one stain"}
    np.testing.assert_array_equal(he_transform(fit).apply(image), image)


def test_why_there_was_nothing_to_fit_is_said() -> None:
    rng = np.random.default_rng(0)
    amount = rng.gamma(2, 0.3, (200, 200, 1))
    one_dye = np.clip(IO * np.exp(-amount * HAEMATOXYLIN) + rng.normal(0, 1, (200, 200, 3)), 0, 255)
    grey = np.repeat(rng.integers(0, 256, (200, 200, 1)), 3, axis=2)
    # Colours around a grey of constant strength: a plane that dyes, which begin at white, cannot span.
    around = rng.uniform(-0.5, 0.5, (200, 200, 2)) @ np.array([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
    no_dyes = IO * np.exp(-1.0 - around)
    speck = np.full((200, 200, 3), 240, np.uint8)
    speck[:1, :] = painted((HAEMATOXYLIN, DAB), (2.0, 2.0), 0)[0].repeat(3, axis=0)[:200]

    def why(image: np.ndarray) -> str | None:
        return fit_macenko(image.astype(np.uint8)).fallback

    assert why(np.zeros((0, 3))) == "no stain"
    assert why(np.full((64, 64, 3), 255)) == "no stain"
    assert why(np.zeros((64, 64, 3))) == "one stain"
    assert why(one_dye) == "one stain"
    assert why(grey) == "one stain"
    assert why(no_dyes) == "no stain colours"
    assert why(speck) == "too faint"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_moving_pixels_moves_the_result(seed: int) -> None:
    pixels = painted((HAEMATOXYLIN, EOSIN), (2.0, 1.5), 5).reshape(-1, 3)
    order = np.random.default_rng(seed).permutation(len(pixels))
    fit, moved = fit_macenko(pixels), fit_macenko(pixels[order])
    np.testing.assert_allclose(moved.stains, fit.stains, atol=1e-9)
    transform = he_transform(fit)
    np.testing.assert_array_equal(transform.apply(pixels[order]), transform.apply(pixels)[order])


def test_ihc_is_left_alone_whatever_its_slide_looks_like() -> None:
    image = painted((HAEMATOXYLIN, DAB), (1.0, 2.0), 1)
    assert ihc_transform() is IDENTITY
    assert ihc_transform(fit_macenko(image)) is IDENTITY
    np.testing.assert_array_equal(ihc_transform().apply(image), image)


def test_between_laboratories_ihc_changes_colour_and_keeps_its_strength() -> None:
    other = np.array([0.35, 0.60, 0.70]) / np.linalg.norm([0.35, 0.60, 0.70])
    here, there = (
        fit_macenko(painted((HAEMATOXYLIN, dab), (2.0, strength), 2))
        for dab, strength in ((DAB, 1.2), (other, 2.4))
    )
    transform = ihc_transform(here, there)
    for amount in (0.2, 0.8, 1.6):
        brown = np.rint(IO * np.exp(-amount * DAB) - 1).astype(np.uint8)
        turned = -np.log((transform.apply(brown) + 1.0) / IO)
        assert np.linalg.norm(turned) == pytest.approx(amount, rel=0.05, abs=0.02)
        assert degrees(turned / np.linalg.norm(turned), other) < 3


def test_a_fit_without_a_fit_changes_nothing() -> None:
    blank = fit_macenko(np.full((20, 20, 3), 250, np.uint8))
    fit = fit_macenko(painted((HAEMATOXYLIN, DAB), (2.0, 2.0), 0))
    assert he_transform(fit, blank) is IDENTITY
    assert ihc_transform(blank, fit) is IDENTITY


def test_impossible_stains_are_refused() -> None:
    with pytest.raises(ValueError, match="no stains"):
        MacenkoFit(HE_REFERENCE.stains, (1.0, float("nan")))
    with pytest.raises(ValueError, match="no stains"):
        MacenkoFit(HE_REFERENCE.stains, (0.0, 1.0))


def test_samples_are_even_and_leave_glass_out() -> None:
    image = np.full((200, 200, 3), 245, np.uint8)
    image[:, 100:] = (120, 60, 140)
    drawn = sample_pixels([image, image])
    assert len(drawn) == pytest.approx(PIXELS_AN_IMAGE, rel=0.02)
    assert (drawn == (120, 60, 140)).all()
    assert sample_pixels([]).shape == (0, 3)


def test_a_phantom_slide_is_fitted_once_and_truly(small_pair) -> None:
    stain = json.loads(small_pair.truth_json.read_text())["stain"]["he"]
    with open_slide(small_pair.he) as slide:
        fit = fit_slide(slide, mpp=0.5, tiles=12)
        assert fit == fit_slide(slide, mpp=0.5, tiles=12)
        tiles = [image for batch in slide.tiles(tile_px=256, mpp=0.5) for image in batch.images]
    assert fit.fallback is None
    assert degrees(fit.stains[0], stain["first"]) < 5
    # Hardly any pixel of a blurred slide is eosin alone.
    assert degrees(fit.stains[1], stain["second"]) < 12
    # The sample stands for the whole slide.
    whole = fit_macenko(sample_pixels(tiles))
    assert all(degrees(*pair) < 1.5 for pair in zip(fit.stains, whole.stains, strict=True))
    np.testing.assert_allclose(fit.max_concentrations, whole.max_concentrations, rtol=0.05)


def test_dab_of_a_phantom_slide_is_found(small_pair) -> None:
    stain = json.loads(small_pair.truth_json.read_text())["stain"]["ihc"]
    with open_slide(small_pair.ihc) as slide:
        fit = fit_slide(slide, mpp=0.5, tiles=12)
    assert degrees(fit.stains[0], stain["first"]) < 3
    assert degrees(fit.stains[1], stain["second"]) < 3


def test_a_slide_without_tissue_is_left_as_it_is(tmp_path: Path) -> None:
    with open_slide(write_flat_slide(tmp_path / "blank.tif")) as slide:
        assert fit_slide(slide, mpp=0.5).fallback == "no stain"


def test_real_slides_are_fitted(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "os1_he.ome.tif") as slide:
        fit = fit_slide(slide, mpp=0.46)
    assert fit.fallback is None
    # More red and blue, less green in the share of haematoxylin than in that of eosin.
    assert fit.stains[0][0] > fit.stains[1][0] + 0.15
    assert degrees(*fit.stains) > 10
