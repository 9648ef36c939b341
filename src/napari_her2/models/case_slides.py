"""How several slides of one case give one answer: as one bag, or by joining what is said of each.

Facts that cards are checked against; NumPy is imported where answers are joined, torch never. Which of the
two a method can do is asked of it (`napari_her2.methods.method.Method`); what a model was trained with stands
on its card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

EACH, JOINED_BAGS, JOINED_ANSWERS = "each", "joined bags", "joined answers"
WAYS = (EACH, JOINED_BAGS, JOINED_ANSWERS)
"""Each slide is a case of its own; all tiles of a case are one bag; the answers of its slides are joined."""
MEAN, HIGHEST = "mean", "highest"
RULES: Mapping[str, str] = {
    MEAN: "the mean of the probabilities of its slides",
    HIGHEST: "that of the slide whose probabilities lie highest",
}
"""How answers are joined, in words that follow "the answer of the case is"."""


def joined_probabilities(
    slides: NDArray[np.floating] | Sequence[Sequence[float]], rule: str = MEAN
) -> NDArray[np.float64]:
    """Join the answers of the slides of a case.

    Parameters
    ----------
    slides : (S, C) float
        Probabilities of each slide, in the order of the classes, at the temperature of the model.
    rule : str
        Of `RULES`: the mean over the slides; or the slide with the highest expected place of its class, the
        first of equals, for which the classes have to be in order.

    Returns
    -------
    (C,) float64

    Examples
    --------
    >>> import numpy as np
    >>> joined_probabilities(np.array([[0.5, 0.25, 0.25], [0.0, 0.25, 0.75]]))
    array([0.25, 0.25, 0.5 ])
    >>> joined_probabilities(np.array([[0.5, 0.25, 0.25], [0.0, 0.25, 0.75]]), "highest")
    array([0.  , 0.25, 0.75])
    """
    import numpy as np

    given = np.asarray(slides, np.float64)
    if given.ndim != 2 or not len(given):
        raise ValueError("joining takes the probabilities of at least one slide, (S, C)")
    if rule == MEAN:
        mean: NDArray[np.float64] = given.mean(axis=0)
        return mean
    if rule == HIGHEST:
        highest: NDArray[np.float64] = given[int((given @ np.arange(given.shape[1])).argmax())]
        return highest
    raise ValueError(f"there is no rule {rule!r}")


def in_words(way: str, rule: str = MEAN) -> str:
    """Say how the slides of a case give an answer, for cards.

    Examples
    --------
    >>> in_words("joined answers")
    'one answer a case: the mean of the probabilities of its slides'
    >>> in_words("each")
    'each slide by itself'
    """
    if way == JOINED_ANSWERS:
        return f"one answer a case: {RULES[rule]}"
    return (
        "one answer a case: all tiles of its slides as one bag"
        if way == JOINED_BAGS
        else "each slide by itself"
    )


def promise_refusal(calibrated: tuple[str, str], answered: tuple[str, str], slides: int) -> str:
    """Why the promise of a model says nothing of an answer; empty where it holds.

    Parameters
    ----------
    calibrated, answered : (way, rule)
        How the answers came about that the model was calibrated on, and how this one did. Of bags, and of
        slides each by itself, the rule does not matter.
    slides : int
        Of the case. With one slide all ways give the same answer.

    Returns
    -------
    str
        Words without a full stop.

    Examples
    --------
    >>> promise_refusal(("each", "mean"), ("joined answers", "mean"), 2)
    'the model was calibrated on each slide by itself, and this is one answer of 2 slides'
    >>> promise_refusal(("joined bags", "mean"), ("joined bags", "highest"), 2)
    ''
    """
    same = calibrated[0] == answered[0] and (calibrated[0] != JOINED_ANSWERS or calibrated[1] == answered[1])
    if slides < 2 or same:
        return ""
    if answered[0] == EACH:
        return f"the model was calibrated on whole cases, and this is one of {slides} slides of its case"
    if calibrated[0] == EACH:
        return f"the model was calibrated on each slide by itself, and this is one answer of {slides} slides"
    return f"the model was calibrated on cases that were answered otherwise ({in_words(*calibrated)})"
