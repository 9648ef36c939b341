"""How a score is worded: the one place, so that the dock, the command line and the files say the same.

A prediction from H&E is never called an IHC score. A 2+ is equivocal, neither positive nor negative. A
class that joins 1+ and 2+ is not "HER2-low", which needs an ISH result that no model here sees. Criteria
of the scores: ASCO/CAP 2018, affirmed 2023 (Wolff et al., doi:10.1200/JCO.22.02864).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_CONFIDENCE = 0.5
"""Below this probability of the top class the answer is "indeterminate"."""
MIN_TILES = 100
"""With fewer tiles of tissue the answer is "indeterminate"."""

INDETERMINATE = "indeterminate"

_LABELS = {
    "0": "0 (negative)",
    "1+": "1+ (negative)",
    "2+": "2+ (equivocal, ISH required)",
    "3+": "3+ (positive)",
    "low": "1+/2+ (ISH unknown)",
    "her2-low": "1+/2+ (ISH unknown)",
}


def class_label(name: str, own_labels: Mapping[str, str] | None = None) -> str:
    """How a class is shown.

    Parameters
    ----------
    name : str
        "2+".
    own_labels : mapping of str to str, optional
        From the card of the model; they go first.

    Returns
    -------
    str
        "2+ (equivocal, ISH required)"; a class without a wording is shown as it is.

    Examples
    --------
    >>> class_label("2+"), class_label("Low"), class_label("negative")
    ('2+ (equivocal, ISH required)', '1+/2+ (ISH unknown)', 'negative')
    """
    return (own_labels or {}).get(name) or _LABELS.get(name.lower(), name)


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
) -> tuple[str, bool]:
    """How the answer is shown, and whether it is withheld.

    Parameters
    ----------
    name, own_labels
        As for `class_label`.
    confidence, tiles, min_confidence, min_tiles
        As for `abstention`.
    doubt : str
        A reason that the method has itself to withhold the answer.

    Returns
    -------
    label : str
        "3+ (positive)", or "indeterminate: ..." with the reason.
    abstained : bool
    """
    reason = abstention(confidence, tiles, min_confidence=min_confidence, min_tiles=min_tiles) or doubt
    return (f"{INDETERMINATE}: {reason}", True) if reason else (class_label(name, own_labels), False)
