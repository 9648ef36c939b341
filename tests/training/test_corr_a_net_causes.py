"""The benchmark of what keeps Corr-A-Net below H&E alone: one change an arm, and right differences."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.signal import correlate2d

from corr_a_net_cause_arms import BASE, CAUSES, SHORT, Cause, config_of
from corr_a_net_causes import balanced_accuracy, difference
from corr_a_net_probe import SCALES, described, kernels, read_out


def changed(cause: Cause) -> set[str]:
    return {name for name, value in asdict(cause).items() if value != asdict(Cause())[name]}


def test_each_cause_is_tried_alone_and_all_together() -> None:
    causes = [cause for cause in CAUSES.values() if cause is not None]
    assert CAUSES[BASE] is None
    alone = {frozenset(changed(cause)) for cause in causes if len(changed(cause)) == 1}
    assert alone == {frozenset({name}) for name in ("stem", "dilation", "scaling", "longer")}
    assert any(len(changed(cause)) == 4 for cause in causes)
    assert len({*causes}) == len(causes)


@pytest.mark.parametrize("name", [name for name in CAUSES if name != BASE])
def test_an_arm_differs_by_its_cause_alone(name: str) -> None:
    cause = CAUSES[name]
    assert cause is not None
    plain, own = (config_of(each, 3, SHORT).sections() for each in (Cause(), cause))
    differ = {
        f"{section}.{key}"
        for section, keys in plain.items()
        for key, value in keys.items()
        if own[section][key] != value
    }
    keys = {
        "stem": "encoder.weights",
        "dilation": "network.dilation",
        "scaling": "network.scaling",
        "longer": "network.epochs",
    }
    assert differ == {keys[change] for change in changed(cause)}
    assert own["compute"]["seed"] == 3


def test_differences_of_arms_by_hand() -> None:
    labels, cases = np.array([0, 0, 1, 1, 0, 1]), np.array(list("aabbcd"))
    right = np.eye(2)[labels]
    wrong = 1 - right
    assert difference([right], [wrong], labels, cases, balanced_accuracy, draws=20) == (1, 1, 1)
    assert difference([right, wrong], [right, wrong], labels, cases, balanced_accuracy, draws=20) == (0, 0, 0)
    # In one of two trainings one of the three fields of class 1 is wrong: its recall is 2/3, 1 in the other.
    half = right.copy()
    half[5] = half[5, ::-1]
    found, low, high = difference([half, right], [right, right], labels, cases, balanced_accuracy)
    assert found == pytest.approx(-1 / 12)
    assert low <= found <= high <= 0
    assert low < -1 / 12  # draws in which case d weighs more


def test_a_description_is_that_of_plain_convolutions() -> None:
    fields = np.random.default_rng(0).integers(0, 256, (3, 3, 40, 36), np.uint8)
    found = described(fields, lambda images: images, seed=1)
    banks = kernels(3, seed=1)
    image = fields[1] / 255
    expected = [image.mean(axis=(1, 2))]
    for bank, (dilation, stride) in zip(banks, SCALES, strict=True):
        spread = np.zeros((3, 4 * dilation + 1, 4 * dilation + 1))
        answers = []
        for kernel in bank.numpy():
            spread[:, ::dilation, ::dilation] = kernel
            whole = sum(correlate2d(image[c], spread[c], mode="valid") for c in range(3))
            answers.append(whole[::stride, ::stride])
        expected += [
            np.array([np.clip(each, 0, None).mean() for each in answers]),
            np.array([np.clip(each, None, 0).mean() for each in answers]),
            np.array([each.std(ddof=1) for each in answers]),
        ]
    np.testing.assert_allclose(found[1], np.concatenate(expected), atol=1e-4)


def test_the_read_out_learns_what_is_there_to_be_learnt() -> None:
    rng = np.random.default_rng(0)
    labels, cases = np.arange(120) % 4, np.arange(120) // 4
    noise = rng.normal(size=(120, 6))
    told = noise.copy()
    told[np.arange(120), labels] += 6
    assert read_out(told, labels, cases).score(told, labels) > 0.9
    other = rng.normal(size=(120, 6))
    assert read_out(noise, labels, cases).score(other, labels) < 0.45
