"""One answer a case, from what was said of its slides; and the temperature at which those answers are right.

`napari_her2.models.case_slides` has the rules, which scoring joins by too: of the probabilities that a model
tells of slides, at its temperature. So the temperature is fitted to the joined answers, not to the slides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.models.case_slides import joined_probabilities
from napari_her2_training.measures.calibration import TINY, fit_log_temperature, fit_temperature, scaled
from napari_her2_training.measures.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def joined_in_cases(given: Predictions, rule: str) -> Predictions:
    """Join what was said of the slides of each case.

    Parameters
    ----------
    given : Predictions
        Of slides, with the temperature of the model.
    rule : str
        Of `napari_her2.models.case_slides.RULES`.

    Returns
    -------
    Predictions
        Of cases, in the order of the first slide of each. ``calibrated`` are the joined probabilities of the
        slides at that temperature; ``probabilities`` are those that become them by it, of a case with one
        slide the very numbers of the slide.
    """
    slides, temperature = slides_of_cases(given.cases), given.temperature
    answers = np.stack([joined_probabilities(given.calibrated[own], rule) for own in slides])
    raw = scaled(answers, 1 / temperature)
    for number, own in enumerate(slides):
        if len(own) == 1:
            raw[number] = given.probabilities[own[0]]
    first = [own[0] for own in slides]
    return Predictions(tuple(given.cases[at] for at in first), given.labels[first], raw, temperature)


def fit_joined_temperature(given: Predictions, rule: str) -> float:
    """Find the temperature of the slides at which the answers of their cases are most likely.

    Parameters
    ----------
    given : Predictions
        Of slides.
    rule : str

    Returns
    -------
    float
        That of `fit_temperature` where no case has several slides.
    """
    slides = slides_of_cases(given.cases)
    if all(len(own) == 1 for own in slides):
        return fit_temperature(given.labels, given.probabilities)
    labels = given.labels[[own[0] for own in slides]]

    def loss(temperature: float) -> float:
        rows = replace(given, temperature=temperature).calibrated
        answers = np.stack([joined_probabilities(rows[own], rule) for own in slides])
        return float(-np.log(np.maximum(answers[np.arange(len(labels)), labels], TINY)).sum())

    return fit_log_temperature(loss)


def slides_of_cases(cases: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the places of the slides of each case, in the order of the first slide of each.

    Examples
    --------
    >>> [own.tolist() for own in slides_of_cases(["b", "a", "b"])]
    [[0, 2], [1]]
    """
    places: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        places.setdefault(case, []).append(place)
    return [np.array(own, np.int64) for own in places.values()]
