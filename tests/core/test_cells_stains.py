"""Light and stains of a slide, against the stains that pictures were painted with."""

from __future__ import annotations

import numpy as np
import pytest

from cells_drawn import DAB, HAEMATOXYLIN, WHITE, brown_cytoplasm, rings
from napari_her2.cells import stains as module
from napari_her2.cells.stains import Stains, fit_stains
from napari_her2.errors import JobFailed


def painted(h, dab, white=WHITE, directions=(HAEMATOXYLIN, DAB)):
    density = np.asarray(h)[..., None] * directions[0] + np.asarray(dab)[..., None] * directions[1]
    return np.clip(np.round((white + 1) * 10**-density - 1), 0, 255).astype(np.uint8)


def angle(one, other):
    return np.degrees(np.arccos(np.clip(one @ other, -1, 1)))


def mixture(seed=0, side=300):
    """A third glass, a third blue, a third brown."""
    draw = np.random.default_rng(seed)
    amount = draw.uniform(0.2, 0.8, (side, side))
    kind = np.arange(side * side).reshape(side, side) % 3
    return amount * (kind == 1), amount * (kind == 2)


def test_light_and_directions_of_a_slide_are_found():
    # Stains of another laboratory than the prior's.
    h = np.array([0.72, 0.62, 0.31]) / np.linalg.norm([0.72, 0.62, 0.31])
    dab = np.array([0.35, 0.55, 0.75]) / np.linalg.norm([0.35, 0.55, 0.75])
    white = np.array([215.0, 221.0, 232.0])
    found = fit_stains([painted(*mixture(), white, (h, dab))])
    np.testing.assert_allclose(found.white, white, atol=1)
    assert angle(found.haematoxylin, h) < 2
    assert angle(found.dab, dab) < 2
    # Amounts of blue pixels run from 0.2 to 0.8, as many as there are brown ones without any.
    assert found.nucleus_h == pytest.approx(0.8, abs=0.03)


def test_few_pixels_are_shrunk_to_the_published_directions():
    turned = np.array([0.40, 0.55, 0.73]) / np.linalg.norm([0.40, 0.55, 0.73])
    off = []
    for side in (6, 45, 600):
        amount = np.zeros((side, side))
        picture = np.concatenate(
            [painted(amount, amount + 0.7, directions=(HAEMATOXYLIN, turned))] * 2, axis=1
        )
        picture[:, :side] = WHITE
        off.append(angle(fit_stains([picture]).dab, module.DAB))
    full = angle(turned, module.DAB)
    n = np.array([6, 45, 600]) ** 2
    # Two directions close to each other: the angle shrinks as the weight does.
    np.testing.assert_allclose(off, full * n / (n + 2000), atol=0.15)


def test_a_slide_without_stain_takes_the_published_directions():
    found = fit_stains([np.full((50, 50, 3), 244, np.uint8)])
    np.testing.assert_allclose(found.haematoxylin, [0.651, 0.701, 0.291], atol=2e-3)
    np.testing.assert_allclose(found.dab, [0.269, 0.568, 0.777], atol=2e-3)
    assert found.nucleus_h == 0


def test_without_samples_a_sentence_says_what_to_do():
    for nothing in ([], [np.zeros((0, 5, 3), np.uint8)]):
        with pytest.raises(JobFailed, match="tissue"):
            fit_stains(nothing)


def test_unmixing_is_that_of_a_least_squares_solution_in_three_stains():
    found = Stains(WHITE, HAEMATOXYLIN, DAB, 0.3)
    rgb = np.random.default_rng(1).integers(0, 256, (301, 47, 3), dtype=np.uint8)
    h, dab = found.unmixed(rgb)
    density = -np.log10((rgb.reshape(-1, 3) + 1.0) / (WHITE + 1))
    basis = np.stack([HAEMATOXYLIN, DAB, np.cross(HAEMATOXYLIN, DAB)], axis=1)
    truth = np.linalg.solve(basis, density.T)
    np.testing.assert_allclose(h.ravel(), truth[0], atol=2e-5)
    np.testing.assert_allclose(dab.ravel(), truth[1], atol=2e-5)
    assert h.dtype == dab.dtype == np.float32


def test_amounts_that_were_painted_come_back():
    h, dab = mixture(seed=3)
    for got, painted_amount in zip(
        fit_stains([painted(h, dab)]).unmixed(painted(h, dab)), (h, dab), strict=True
    ):
        assert np.abs(got - painted_amount).mean() < 0.02


def test_samples_may_be_of_any_size_and_number():
    picture = rings(width_um=1.0, od=0.6, side=3).rgb
    brown = brown_cytoplasm(0.4, side_um=40.0)
    one = fit_stains([picture, brown])
    many = fit_stains([picture[:50], picture[50:], brown[:, :30], brown[:, 30:]])
    np.testing.assert_allclose(one.dab, many.dab, atol=1e-6)
    np.testing.assert_allclose(one.white, many.white)
    assert one.nucleus_h == pytest.approx(many.nucleus_h, abs=1e-6)
