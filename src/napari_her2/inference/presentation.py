"""How a score is worded: the one place, so that the dock, the command line and the files say the same.

A prediction from H&E is never called an IHC score. A 2+ is equivocal, neither positive nor negative. A
class that joins 1+ and 2+ is not "HER2-low", which needs an ISH result that no model here sees. Criteria
of the scores: ASCO/CAP 2018, affirmed 2023 (Wolff et al., doi:10.1200/JCO.22.02864).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.models.fit import sees_all_tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_her2.models.card import ModelCard
    from napari_her2.slide.thumbnail import Thumbnail

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
}
_JOINED = "1+/2+ (ISH unknown)"
_LOW = ("low", "her2-low")
_TWO_PLUS, _HIGH = "2+", "high"

MEMBRANE_UM = 0.64
"""Mean width of the membrane stain of a 1+ (40 biopsies; Scheel et al. 2018, PMC5848460)."""


def class_label(name: str, own_labels: Mapping[str, str] | None = None) -> str:
    """How a class is shown.

    Parameters
    ----------
    name : str
        "2+".
    own_labels : mapping of str to str, optional
        From the card of the model; they go first, but for a class that joins 1+ and 2+.

    Returns
    -------
    str
        "2+ (equivocal, ISH required)"; a class without a wording is shown as it is.

    Examples
    --------
    >>> class_label("2+"), class_label("Low"), class_label("negative")
    ('2+ (equivocal, ISH required)', '1+/2+ (ISH unknown)', 'negative')
    """
    if name.lower() in _LOW:
        return _JOINED
    return (own_labels or {}).get(name) or _LABELS.get(name.lower(), name)


def class_name(name: str) -> str:
    """Return how a class is named beside a number: as in the model, but for one that joins 1+ and 2+.

    Examples
    --------
    >>> class_name("2+"), class_name("Low"), class_name("High")
    ('2+', '1+/2+ (ISH unknown)', 'High')
    """
    return _JOINED if name.lower() in _LOW else name


def looks_at(card: ModelCard) -> str:
    """Say what a model is shown of a slide: "96 px tiles at 0.5 µm/px"."""
    if card.method != "low-resolution":
        return f"{card.tile_px} px tiles at {card.mpp:g} µm/px"
    if sees_all_tissue(card):
        return f"the tissue as one image of {card.tile_px} px, at about {card.mpp:.3g} µm/px"
    return f"the tissue as images of {card.tile_px} px at {card.mpp:.3g} µm/px"


def images_in_words(thumbnails: Sequence[Thumbnail]) -> str:
    """Say what a model of low resolution looked at.

    Parameters
    ----------
    thumbnails : sequence of Thumbnail
        At least one.

    Returns
    -------
    str
        "1 image of 512 × 512 px at 6.1 µm/px".
    """
    first, count = thumbnails[0], len(thumbnails)
    side = first.size_px
    return f"{count} {'image' if count == 1 else 'images'} of {side} × {side} px at {first.mpp:.3g} µm/px"


def blind_spot(mpp: float) -> str:
    """Say what cannot be seen at a resolution, and what follows for the score.

    Parameters
    ----------
    mpp : float
        µm per pixel.

    Returns
    -------
    str
        Empty where a pixel is finer than the membrane stain of a 1+.
    """
    if mpp <= MEMBRANE_UM:
        return ""
    times = mpp / MEMBRANE_UM
    return (
        f"A pixel of it is {mpp:.3g} µm wide, {times:.2g} times the membrane stain of a 1+ (about "
        f"{MEMBRANE_UM:.1f} µm): single membranes are not visible, only how much brown there is and where. "
        "0 against 1+ is the weak spot of such a model."
    )


def with_ish(name: str, ish: str) -> str:
    """Say what an ISH result would mean for a predicted class. The prediction stays as it is.

    Parameters
    ----------
    name : str
        Predicted class: one of the four scores, "0", "Low" or "High"; empty where none was given.
    ish : str
        "positive", "negative", "pending", or empty: as the user enters it, never inferred.

    Returns
    -------
    str
        One line; empty where nothing follows.
    """
    key = name.lower()
    known = key in (*_LABELS, *_LOW, _HIGH)
    if not known or ish not in ("positive", "negative", "pending"):
        return ""
    equivocal = key in _LOW or key == _TWO_PLUS
    if ish == "pending":
        return f"{class_name(name)} stays open until ISH is known." if equivocal else ""
    if key in _LOW:
        return {
            "negative": "With ISH negative: 1+ or 2+ would be HER2-low.",
            "positive": "IHC 2+ with ISH positive is HER2-positive; the model cannot tell 1+ from 2+.",
        }[ish]
    agrees = {
        ("2+", "negative"): "2+ would be HER2-low.",
        ("2+", "positive"): "2+ would be HER2-positive.",
        ("0", "negative"): "0 would be HER2-null or HER2-ultralow; the model cannot tell which.",
        ("1+", "negative"): "1+ would be HER2-low.",
        ("3+", "positive"): "3+ would be HER2-positive.",
        ("high", "positive"): "2+ or 3+ would be HER2-positive.",
    }.get((key, ish))
    if agrees is not None:
        return f"With ISH {ish}: {agrees}"
    return f"ISH {ish} does not agree with a predicted {name}: look at IHC and ISH again."


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
