"""What calibrates a model at the end of its training: the validation slides, and no others."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from napari_her2_training.config_sections import CaseSlidesConfig, MeasureConfig
from napari_her2_training.measures.predictions import Predictions
from napari_her2_training.running.arm import calibrated
from napari_her2_training.running.saving import trust_of
from napari_her2_training.running.trained import TrainedFold

WANTED = 0.9


def sure(share, count=40, right=0.95):
    """Slides that are said to be right with 0.95, of which so large a share is."""
    labels = np.arange(count) % 2
    top = np.where(np.arange(count) < share * count, labels, 1 - labels)
    chances = np.full((count, 2), 1 - right)
    chances[np.arange(count), top] = right
    return Predictions(tuple(map(str, range(count))), labels, chances)


def fold(**parts):
    return TrainedFold(nn.Identity(), None, None, {"": parts})


def config(**changes):
    return SimpleNamespace(measure=MeasureConfig(**changes), cases=CaseSlidesConfig())


def test_a_temperature_comes_from_the_validation_slides_alone():
    """Of the training slides all are right, of the validation slides three in four, of the others few."""
    found = calibrated(fold(train=sure(1.0), validation=sure(0.75), test=sure(0.3)), config()).predictions[""]
    temperature = found["validation"].temperature
    assert {own.temperature for own in found.values()} == {temperature}
    # Calibrated, they are right as often as they say; the prior of one slide holds back a little.
    assert found["validation"].calibrated.max(axis=1).mean() == pytest.approx(0.75, abs=0.02)
    others = calibrated(fold(train=sure(0.5), validation=sure(0.75), test=sure(1.0)), config()).predictions[
        ""
    ]
    assert others["validation"].temperature == temperature


def test_the_limit_of_abstention_comes_from_calibrated_validation_slides_alone():
    told = calibrated(fold(train=sure(0.1), validation=sure(1.0)), config(wanted_accuracy=WANTED))
    trust = trust_of(told, config(wanted_accuracy=WANTED))
    assert trust.temperatures == {"slide": told.predictions[""]["validation"].temperature}
    assert trust.min_confidence == pytest.approx(told.predictions[""]["validation"].calibrated.max())
    doubtful = calibrated(fold(train=sure(1.0), validation=sure(0.75)), config(wanted_accuracy=WANTED))
    assert trust_of(doubtful, config(wanted_accuracy=WANTED)).min_confidence is None


def test_without_calibration_probabilities_stay_as_they_are():
    found = calibrated(fold(validation=sure(0.75)), config(calibrate=False)).predictions[""]
    assert found["validation"].temperature == 1
