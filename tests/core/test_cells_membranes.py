"""Filters, territories and membranes one by one, against other implementations and sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from cells_drawn import rings, walls
from napari_her2.cells.centres import bare_glass, blobs, cell_signal, find_centres, smoothed
from napari_her2.cells.membranes import read_membranes, second_derivatives, sector_mass
from napari_her2.cells.stains import fit_stains
from napari_her2.cells.table import ray_directions
from napari_her2.cells.territories import borders_um, territories


def coarse(plane):
    return plane.reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2).mean(axis=(1, 3), dtype=np.float32)


def planes(rgb):
    rgb = rgb[: len(rgb) // 2 * 2, : rgb.shape[1] // 2 * 2]
    stains = fit_stains([rgb])
    h, dab = stains.unmixed(rgb)
    signal = smoothed(coarse(cell_signal(h, dab)), 1.0, 0.5)
    glass = bare_glass(smoothed(coarse(h + dab), 1.0, 0.5))
    return dab, signal, glass, stains


def test_second_derivatives_are_those_of_scipy():
    plane = np.random.default_rng(0).normal(size=(60, 70)).astype(np.float32)
    for sigma_um in (0.45, 0.8):
        sigma = sigma_um / 0.5
        found = second_derivatives(plane, 0.5, sigma_um)
        scale = -2.83 * sigma**2
        inner = np.s_[12:-12, 12:-12]
        for channel, order in enumerate(((2, 0), (1, 1), (0, 2))):
            other = scale * gaussian_filter(plane.astype(float), sigma, order=order, truncate=6)
            # On so few pixels two ways of sampling a derivative differ; both are the same filter.
            assert np.corrcoef(found[inner][..., channel].ravel(), other[inner].ravel())[0, 1] > 0.99
        y = np.arange(60, dtype=np.float32)[:, None] * np.ones(70, np.float32)
        bowl = second_derivatives(0.5 * y**2, 0.5, sigma_um)[20:-20, 20:-20]
        np.testing.assert_allclose(bowl[..., 0], scale, rtol=1e-3)
        np.testing.assert_allclose(bowl[..., 1:], 0, atol=2e-2)


def test_contrast_of_a_line_as_wide_as_the_filter_is_its_height():
    sigma = 0.8 / 0.5
    x = np.arange(81) - 40
    line = np.repeat(0.3 * np.exp(-0.5 * (x / sigma) ** 2)[None].astype(np.float32), 81, axis=0)
    assert second_derivatives(line, 0.5, 0.8)[40, 40, 2] == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize(("inside", "outside"), [(0.0, 0.0), (0.2, 0.0), (0.1, 0.1)])
def test_mass_is_what_stands_above_the_surroundings(inside, outside):
    at = np.linspace(-2, 2, 17)
    step = np.where(at == 0, (inside + outside) / 2, np.where(at < 0, inside, outside))
    for width in (0.25, 0.35, 0.45):
        line = 0.5 * np.exp(-0.5 * (at / width) ** 2)
        drawn = 0.5 * width * np.sqrt(2 * np.pi)
        mass = sector_mass((step + line).astype(np.float32))
        assert mass == pytest.approx(drawn, rel=0.02, abs=1e-3)
    assert sector_mass(np.full(17, 0.4, np.float32)) == pytest.approx(0, abs=1e-6)


def test_a_wide_membrane_that_stands_free_loses_no_mass():
    at = np.linspace(-2, 2, 17)
    fine = np.linspace(-4, 4, 3201)
    box = gaussian_filter((np.abs(fine) <= 1.05).astype(float), 0.33 / (fine[1] - fine[0]))
    profile = 0.5 * np.interp(at, fine, box)
    assert sector_mass(profile.astype(np.float32)) == pytest.approx(0.5 * 2.1, rel=0.05)
    # On a slope it does not stand free: what the minima within 1.5 µm leave of it is taken.
    sloped = sector_mass((profile + 0.15 * (at + 2)).astype(np.float32))
    within = np.abs(at) <= 1.5
    profile = (profile + 0.15 * (at + 2))[within]
    base = (profile[:7].min() + profile[6:].min()) / 2
    assert sloped == pytest.approx(np.trapezoid(profile - base, at[within]), rel=1e-5)


def test_centres_are_those_of_a_peak_finder_of_scikit_image():
    rgb, drawn, _ = walls(width_um=1.0, od=0.4, rows=5)
    _, signal, glass, stains = planes(rgb)
    blob = blobs(signal, 1.0)
    found = find_centres(blob, glass, 1.0, stains.nucleus_h)
    least = np.clip(0.05 * stains.nucleus_h, 0.004, 0.02)
    y, x = np.mgrid[-5:6, -5:6]
    peaks = peak_local_max(blob, footprint=np.hypot(y, x) <= 5, threshold_abs=least, exclude_border=5)
    assert len(found) == len(peaks) > 20
    # Places between pixels lie within half a pixel of the highest one.
    assert np.abs(found[:, None] - peaks[None]).max(axis=2).min(axis=0).max() <= 0.5
    away = np.hypot(*((found[:, None] + 0.5) - drawn[None]).T)
    assert away.min(axis=1).max() < 1.0


@pytest.mark.parametrize("kind", ["walls", "rings"])
def test_territories_agree_with_a_watershed_by_a_queue(kind):
    if kind == "walls":
        rgb = walls(width_um=1.0, od=0.4, rows=5)[0]
    else:
        rgb = rings(width_um=1.2, od=0.6, pitch_um=14.0, radius_um=6.0, side=5).rgb
    _, signal, glass, stains = planes(rgb)
    centres = find_centres(blobs(signal, 1.0), glass, 1.0, stains.nucleus_h)
    places = np.floor(centres + 0.5).astype(int)
    markers = np.zeros(signal.shape, np.int32)
    markers[tuple(places.T)] = np.arange(len(places)) + 1
    away = distance_transform_edt(markers == 0)
    queue = watershed(-signal + 0.03 * away, markers, mask=away <= 9) - 1
    found = territories(signal, centres, 1.0)
    assert ((found >= 0) == (away <= 9)).all()
    both = found >= 0
    assert (found == queue)[both].mean() > 0.93
    every = np.arange(len(centres))
    one, other = (borders_um(each, signal, glass, centres, every, 1.0) for each in (found, queue))
    assert np.abs(one - other).mean() < 0.4


def test_a_membrane_along_the_ray_is_no_membrane_of_the_sector():
    # Spokes: ridges that run from the centre outwards, and none around it.
    y, x = np.mgrid[-40:41, -40:41].astype(np.float32) / 2
    spokes = np.zeros(y.shape, np.float32)
    for at in ray_directions()[::8]:
        across = y * at[1] - x * at[0]
        spokes += 0.5 * np.exp(-0.5 * (across / 0.5) ** 2) * (y * at[0] + x * at[1] > 0)
    border = np.full((1, 32), 7.0, np.float32)
    centre = np.full((1, 2), 40.0, np.float32)
    along = read_membranes(spokes, centre, border, 0.5)
    assert along.contrast[:, ::8].max() < 0.05
    ring = 0.5 * np.exp(-0.5 * ((np.hypot(y, x) - 6.5) / 0.5) ** 2).astype(np.float32)
    around = read_membranes(ring, centre, border, 0.5)
    assert around.contrast.min() > 0.4
    np.testing.assert_allclose(around.radius_um, 6.5, atol=0.26)
    np.testing.assert_allclose(around.dab, 0.5, atol=0.05)
    np.testing.assert_allclose(around.mass, 0.5 * 0.5 * np.sqrt(2 * np.pi), rtol=0.06)
