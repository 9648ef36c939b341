"""Temperature, calibration error and what withholding answers buys, against hand and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from napari_her2_training.measures.calibration import (
    fit_temperature,
    least_confidence,
    reliability,
    risk_coverage,
    scaled,
)


def overconfident(count: int, *, factor: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels drawn from known probabilities, those probabilities, and the same said too loudly."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, 3))
    true = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    labels = np.array([rng.choice(3, p=row) for row in true])
    loud = torch.softmax(torch.from_numpy(logits * factor), dim=1).numpy()
    return labels, true, loud


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_was_said_too_loudly(factor: float) -> None:
    labels, true, loud = overconfident(4000, factor=factor, seed=0)
    temperature = fit_temperature(labels, loud)
    assert temperature == pytest.approx(factor, rel=0.08)
    np.testing.assert_allclose(scaled(loud, factor), true, atol=1e-12)


def test_the_temperature_is_where_the_gradient_of_loss_and_prior_vanishes() -> None:
    labels, _, loud = overconfident(40, factor=2.0, seed=3)
    log_t = torch.tensor(np.log(fit_temperature(labels, loud)), requires_grad=True)
    logits = torch.from_numpy(loud).log() / log_t.exp()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="sum") + log_t**2 / 2
    loss.backward()
    assert abs(float(log_t.grad)) < 1e-3


def test_a_model_that_is_always_right_does_not_become_certain() -> None:
    chances = np.tile([0.6, 0.3, 0.1], (8, 1))
    temperature = fit_temperature(np.zeros(8, int), chances)
    assert 0.2 < temperature < 1
    assert scaled(chances, temperature).max() < 0.999


def test_scaling_keeps_the_answer_and_a_temperature_of_one_changes_nothing() -> None:
    chances = np.random.default_rng(1).dirichlet([1, 1, 1, 1], 50)
    assert scaled(chances, 1.0) is chances or (scaled(chances, 1.0) == chances).all()
    for temperature in (0.3, 5.0):
        found = scaled(chances, temperature)
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert (found.argmax(axis=1) == chances.argmax(axis=1)).all()
    # What is ruled out stays ruled out, and is no error.
    assert np.isfinite(scaled(np.array([[1.0, 0.0]]), 2.0)).all()


@given(st.integers(0, 1000), st.integers(5, 80))
def test_the_calibration_error_is_that_of_torchmetrics(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet([1, 1, 1], count)
    labels = rng.integers(0, 3, count)
    theirs = multiclass_calibration_error(
        torch.from_numpy(chances), torch.from_numpy(labels), num_classes=3, n_bins=10, norm="l1"
    )
    assert reliability(labels, chances).error == pytest.approx(float(theirs), abs=1e-6)


def test_risk_and_coverage_by_hand() -> None:
    # Sure and right, sure and right, less sure and wrong, equally unsure: one right, one wrong.
    chances = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0, 1])
    curve = risk_coverage(labels, chances)
    np.testing.assert_allclose(curve.threshold, [0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(curve.coverage, [0.2, 0.4, 0.6, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 3, 2 / 5])
    assert curve.area == pytest.approx(np.mean([0, 0, 1 / 3, 1 / 4, 2 / 5]))
    assert least_confidence(curve, 0.95) == pytest.approx(0.75)  # half way to the next slide
    assert least_confidence(curve, 0.6) == 0.6
    assert least_confidence(curve, 0.0) is None
    assert least_confidence(risk_coverage(1 - labels[:2], chances[:2]), 0.9) is None
