"""Focus from pixels, and what an image must have before its membranes are judged."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_her2 import open_slide
from napari_her2.cells.quality import (
    QualityFacts,
    brown_of,
    overall_blur,
    quality_reasons,
    quality_warnings,
)
from napari_her2.cells.stains import DAB, HAEMATOXYLIN, fit_stains
from napari_her2.slide.focus import focus_of
from napari_her2.slide.stain import dark_background, guess_stain

MPP = 0.5
SHARP = {"mpp": (0.25, 0.25), "nucleus_h": 0.3, "brown": 0.9, "clipped": 0.0}


def facts(cells=5000, blur=0.4, **given):
    return QualityFacts(cells, **{**SHARP, "blur_um": np.full((3, 4), blur, np.float32), **given})


def texture(exponent, blur_um, side=600, seed=0):
    """Noise whose gradient's energy falls with the scale as scale^-2h, blurred: the model of the measure."""
    rng = np.random.default_rng(seed)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(side, MPP), np.fft.rfftfreq(side, MPP), indexing="ij"))
    k[0, 0] = 1
    # Energy of the gradient at a scale: the integral of k³ p(k) exp(-k² scale²); p = k^(2h - 4).
    amplitude = k ** (exponent - 2) * np.exp(-0.5 * (2 * np.pi * k * blur_um) ** 2)
    amplitude[0, 0] = 0
    plane = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * amplitude, (side, side))
    return (0.3 * plane / plane.std()).astype(np.float32)


@pytest.mark.parametrize("exponent", [1.0, 1.4, 1.8])
@pytest.mark.parametrize("blur_um", [0.3, 0.5, 0.8, 1.2])
def test_the_blur_of_a_texture_is_found_whatever_its_spectrum(exponent, blur_um):
    assert overall_blur(focus_of(texture(exponent, blur_um), 200)) == pytest.approx(blur_um, rel=0.08)


def test_the_strength_of_a_stain_does_not_move_the_focus():
    plane = texture(1.4, 0.5)
    usual = focus_of(plane, 200)
    assert focus_of(4 * plane, 200) == pytest.approx(usual, rel=1e-4)
    assert focus_of(0.2 * plane + 1, 200) == pytest.approx(usual, rel=1e-3)


def test_more_blur_adds_in_squares():
    plane = texture(1.4, 0.4)
    for more in (0.5, 1.0):
        found = overall_blur(focus_of(gaussian_filter(plane, more / MPP), 200))
        assert found == pytest.approx(np.hypot(0.4, more), rel=0.1)


def test_glass_has_no_focus_and_what_is_left_over_is_not_judged():
    assert np.isnan(focus_of(np.full((450, 250), 0.02, np.float32), 200)).all()
    assert focus_of(np.zeros((450, 250), np.float32), 200).shape == (2, 1)
    assert focus_of(np.zeros((150, 250), np.float32), 200).shape == (0, 1)
    assert np.isnan(overall_blur(np.zeros((0, 1), np.float32)))


@pytest.fixture(scope="module")
def cores(shared_data):
    """Middles of the real cores at 0.5 µm/px, by the first letters of their names."""
    found = {}
    for path in sorted((shared_data / "her2_ihc_cores").glob("*.jpg")):
        with open_slide(path, mpp=0.23) as slide:
            middle = slide.read(0, 1500, 1500, 2000, 2000)
        side = round(2000 * 0.23 / MPP)
        found[path.name[:6]] = cv2.resize(middle, (side, side), interpolation=cv2.INTER_AREA)
    if not found:
        pytest.skip("the cores of HER2 IHC are absent from the folder of real slides")
    return found


def _focus(rgb):
    h, dab = fit_stains([rgb]).unmixed(rgb)
    return focus_of(h + dab, 150)


def test_sharp_and_blurred_real_cores_are_told_apart(cores):
    """Every sharp core from every one blurred by 0.5 µm, whatever is stained in it."""
    overall, middle = [], []
    for rgb in cores.values():
        blurred = [cv2.GaussianBlur(rgb, (0, 0), sigma / MPP) for sigma in (0.5, 1.0)]
        found = [_focus(each) for each in (rgb, *blurred)]
        overall.append([overall_blur(each) for each in found])
        middle.append([float(np.nanmedian(each)) for each in found])
    sharp, soft, poor = np.array(overall).T
    assert max(sharp) < 0.4 < 0.45 < min(soft)
    assert max(soft) < 0.7 < 0.85 < min(poor)
    sharp, soft, poor = np.array(middle).T
    assert soft == pytest.approx(np.hypot(sharp, 0.5), rel=0.1)
    assert poor == pytest.approx(np.hypot(sharp, 1.0), rel=0.13)


def test_brightness_and_cast_do_not_move_the_focus_of_real_cores(cores):
    for name in ("0_9b0f", "3_a1f1"):
        rgb = cores[name].astype(np.float32)
        for changed in (0.9 * rgb, rgb * np.array([1, 0.95, 0.85], np.float32)):
            found = overall_blur(_focus(changed.astype(np.uint8)))
            assert found == pytest.approx(overall_blur(_focus(cores[name])), abs=0.03)


def _unmixed(rgb):
    stains = fit_stains([rgb])
    return (stains, *stains.unmixed(rgb))


def _painted(stains, h, dab):
    density = h[..., None] * stains.haematoxylin + dab[..., None] * stains.dab
    return np.clip(stains.white * 10.0**-density, 0, 255).astype(np.uint8)


def _measured(rgb, **given):
    stains = fit_stains([rgb])
    brown, clipped = brown_of([rgb], stains)
    return facts(nucleus_h=stains.nucleus_h, brown=brown, clipped=clipped, **given)


def test_real_cores_have_all_that_a_reading_needs(cores):
    for name, rgb in cores.items():
        h, dab = fit_stains([rgb]).unmixed(rgb)
        found = _measured(rgb, blur_um=focus_of(h + dab, 200), mpp=(0.23, 0.23))
        assert quality_reasons(found) == (), name
        assert quality_warnings(found) == (), name


def test_a_real_core_without_one_of_its_stains_gives_no_score(cores):
    stains, h, dab = _unmixed(cores["2_0123"])
    (brown,) = quality_reasons(_measured(_painted(stains, h, 0 * dab)))
    assert "no brown" in brown
    (blue,) = quality_reasons(_measured(_painted(stains, 0 * h, dab)))
    assert "counterstain" in blue
    stains, h, dab = _unmixed(cores["3_a1f1"])
    (black,) = quality_reasons(_measured(_painted(stains, h, 3.5 * np.maximum(dab, 0))))
    assert "over-stained" in black


def test_an_image_out_of_focus_gives_no_score():
    assert quality_reasons(facts(blur=0.42)) == ()
    assert quality_warnings(facts(blur=0.42)) == ()
    (soft,) = quality_warnings(facts(blur=0.7))
    assert "0.70 µm" in soft
    assert quality_reasons(facts(blur=0.7)) == ()
    (reason,) = quality_reasons(facts(blur=1.1))
    assert "1.10 µm" in reason
    assert quality_warnings(facts(blur=1.1)) == ()
    part = np.full((4, 5), 0.4, np.float32)
    part[0], part[1] = 1.4, np.nan
    (warning,) = quality_warnings(facts(blur_um=part))
    assert "33%" in warning
    assert quality_reasons(facts(blur_um=part)) == ()
    part[2] = 1.4
    (reason,) = quality_reasons(facts(blur_um=part))
    assert "67%" in reason


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"cells": 99}, "99"),
        ({"mpp": None}, "µm per pixel"),
        ({"mpp": (0.5, 1.0)}, "1 µm/px"),
        ({"looks_like": "H&E"}, "H&E"),
        ({"dark": True}, "fluorescence"),
        ({"nucleus_h": 0.03}, "counterstain"),
        ({"brown": 0.03}, "no brown"),
        ({"clipped": 0.3}, "30%"),
    ],
)
def test_each_reason_is_one_sentence_that_says_what_to_do(given, word):
    assert quality_reasons(facts()) == quality_warnings(facts()) == ()
    (reason,) = quality_reasons(facts(**given))
    assert word in reason
    assert ": " in reason
    assert reason.endswith(".")
    assert reason.count(". ") == 0


def test_the_wrong_kind_of_slide_is_all_that_is_said_of_it():
    every = facts(cells=0, blur=2.0, nucleus_h=0.0, brown=0.0, mpp=None, dark=True)
    assert len(quality_reasons(every)) == 1
    assert quality_warnings(every) == ()
    many = facts(cells=0, blur=2.0, nucleus_h=0.0, brown=0.0, mpp=(2, 2))
    assert len(quality_reasons(many)) == 5


def test_what_is_asked_of_the_whole_picture_agrees_with_made_pictures():
    rng = np.random.default_rng(0)
    spots = gaussian_filter(rng.random((300, 300)), 4)
    spots = np.clip((spots - spots.mean()) / spots.std(), 0, 3)[..., None]
    glow = np.clip(200 * spots / 3 * np.array([0.1, 0.2, 1.0]) + 5, 0, 255).astype(np.uint8)
    assert dark_background(glow)
    eosin = np.array([0.09, 0.95, 0.28])
    he = np.clip(245 * 10.0 ** -(spots * (0.15 * HAEMATOXYLIN + 0.25 * eosin)), 0, 255).astype(np.uint8)
    ihc = np.clip(245 * 10.0 ** -(spots * (0.1 * HAEMATOXYLIN + 0.25 * DAB)), 0, 255).astype(np.uint8)
    tissue = spots[..., 0] > 0.3
    assert guess_stain(he, tissue) == "H&E"
    assert guess_stain(ihc, tissue) == "IHC"
    brown, clipped = brown_of([ihc], fit_stains([ihc]))
    assert brown == pytest.approx(0.25 * float(np.percentile(spots[tissue], 99.9)), rel=0.35)
    assert clipped == 0
    assert brown_of([np.full((40, 40, 3), 245, np.uint8)], fit_stains([ihc])) == (0.0, 0.0)
