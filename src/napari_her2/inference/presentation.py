"""How a score is worded: the one place, so that the dock, the command line and the files say the same.

A prediction from H&E is never called an IHC score; what a class is called stands in
`napari_her2.inference.class_words`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.inference.class_words import class_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_her2.inference.result import ScoredSlide

MIN_CONFIDENCE = 0.5
"""Below this probability of the top class the answer is "indeterminate"."""
MIN_TILES = 100
"""With fewer tiles of tissue the answer is "indeterminate"."""

INDETERMINATE = "indeterminate"


def task_in_words(task: str, slides: Sequence[ScoredSlide]) -> str:
    """Stain and task of an answer; of a slide that looks like another stain with that said.

    A user may insist that a slide is what its colours deny. What comes out must not pass for an IHC score of
    H&E.

    Parameters
    ----------
    task : str
        Of the model.
    slides : sequence of ScoredSlide

    Returns
    -------
    str
        "HER2 IHC score of the slide (given as IHC, but it looks like H&E: then this is no IHC score)".
    """
    for slide in slides:
        if slide.looks_like not in ("", "unknown", slide.stain):
            what = "IHC score" if slide.stain == "IHC" else "prediction from H&E"
            looks = f"given as {slide.stain}, but it looks like {slide.looks_like}"
            return f"{task} ({looks}: then this is no {what})"
    return task


def abstention(
    confidence: float, tiles: Mapping[str, int], *, min_confidence: float, min_tiles: int = MIN_TILES
) -> str:
    """Why no score is given.

    Parameters
    ----------
    confidence : float
        Probability of the top class.
    tiles : mapping of str to int
        Name of each slide to its scored tiles.
    min_confidence : float
    min_tiles : int

    Returns
    -------
    str
        Empty where a score is given.
    """
    fewest = min(tiles, key=lambda name: tiles[name])
    if tiles[fewest] < min_tiles:
        on = f" on {fewest}" if len(tiles) > 1 else ""
        return f"only {tiles[fewest]:,} tiles of tissue{on}, at least {min_tiles} are needed"
    if confidence < min_confidence:
        return f"no class reaches a probability of {min_confidence:.0%}"
    return ""


def result_label(
    name: str,
    confidence: float,
    tiles: Mapping[str, int],
    *,
    min_confidence: float = MIN_CONFIDENCE,
    min_tiles: int = MIN_TILES,
    doubt: str = "",
    own_labels: Mapping[str, str] | None = None,
    class_scores: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[str, str]:
    """How the answer is shown, and why it is withheld.

    Parameters
    ----------
    name, own_labels, class_scores
        As for `class_label`.
    confidence, tiles, min_confidence, min_tiles
        As for `abstention`.
    doubt : str
        A reason that the method has itself to withhold the answer.

    Returns
    -------
    label : str
        "3+ (positive)", or "indeterminate: ..." with the reason.
    reason : str
        Empty where the answer is given.
    """
    reason = abstention(confidence, tiles, min_confidence=min_confidence, min_tiles=min_tiles) or doubt
    if reason:
        return f"{INDETERMINATE}: {reason}", reason
    return class_label(name, own_labels, class_scores), ""
