"""What a class is called, and what an ISH result would mean for it.

A 2+ is equivocal, neither positive nor negative. A class that joins 1+ and 2+ is not "HER2-low", which needs
an ISH result that no model here sees: what a class holds is told by its scores, whatever its name. Criteria
of the scores: ASCO/CAP 2018, affirmed 2023 (Wolff et al., doi:10.1200/JCO.22.02864).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.models.class_scores import (
    EQUIVOCAL,
    JOINS,
    NO_POSITIVE_ISH,
    POSITIVE_ISH,
    SCORES,
    findings_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LABELS = {
    "0": "0 (negative)",
    "1+": "1+ (negative)",
    "2+": "2+ (equivocal, ISH required)",
    "3+": "3+ (positive)",
}
_CATEGORY: Mapping[tuple[str, str], str] = {
    ("0", "negative"): "HER2-null or HER2-ultralow",
    ("1+", "negative"): "HER2-low",
    (EQUIVOCAL, "negative"): "HER2-low",
    (NO_POSITIVE_ISH, "negative"): "HER2-low",
    # Those without a result were learnt with it: one that comes later decides here too.
    (NO_POSITIVE_ISH, "positive"): "HER2-positive",
    (EQUIVOCAL, "positive"): "HER2-positive",
    (POSITIVE_ISH, "positive"): "HER2-positive",
    ("3+", "positive"): "HER2-positive",
}
"""Category that follows from a finding and an ISH result that agrees with it."""

_DISAGREES = "does not agree with {of}: look at IHC and ISH again."


def class_label(
    name: str,
    own_labels: Mapping[str, str] | None = None,
    class_scores: Mapping[str, tuple[str, ...]] | None = None,
) -> str:
    """How a class is shown as an answer.

    Parameters
    ----------
    name : str
        "2+".
    own_labels : mapping of str to str, optional
        From the card of the model; they go first, but for a class that joins 1+ and 2+.
    class_scores : mapping of str to tuple of str, optional
        Which scores each class holds, from the card of the model.

    Returns
    -------
    str
        "2+ (equivocal, ISH required)"; a class of which nothing is known is shown as it is.

    Examples
    --------
    >>> class_label("2+"), class_label("Low"), class_label("negative")
    ('2+ (equivocal, ISH required)', '1+/2+ (ISH unknown)', 'negative')
    """
    own = (own_labels or {}).get(name)
    if own and name.lower() not in JOINS:
        return own
    held = findings_of(name, class_scores)
    return _LABELS[name] if held == (name,) and name in _LABELS else class_name(name, class_scores)


def class_name(name: str, class_scores: Mapping[str, tuple[str, ...]] | None = None) -> str:
    """How a class is named beside a number: with the scores it holds, where its name does not tell them.

    A class named "Low" is told by its scores alone: it would be read as HER2-low, which needs an ISH result.

    Parameters
    ----------
    name, class_scores
        As for `class_label`.

    Examples
    --------
    >>> class_name("2+"), class_name("Low"), class_name("High"), class_name("negative")
    ('2+', '1+/2+ (ISH unknown)', 'High (3+)', 'negative')
    >>> class_name("positive", {"positive": ("2+", "3+")})
    'positive (2+/3+, ISH unknown)'
    """
    held = findings_of(name, class_scores)
    if held in ((), (name,)):
        return name
    scores = "/".join(score for score in SCORES if _holds(held, score))
    ish = ""
    if EQUIVOCAL in held:
        ish = "ISH unknown"
    elif NO_POSITIVE_ISH in held:
        ish = "no positive ISH"
    elif POSITIVE_ISH in held:
        ish = "or 2+ with a positive ISH"
    if name.lower() in JOINS or name == scores:
        return f"{scores} ({ish})" if ish else scores
    return f"{name} ({scores}, {ish})" if ish else f"{name} ({scores})"


def class_names(
    classes: Sequence[str], class_scores: Mapping[str, tuple[str, ...]] | None = None
) -> dict[str, str]:
    """Return each class of a model with what it is called; see `class_name`."""
    return {name: class_name(name, class_scores) for name in classes}


def _holds(held: Sequence[str], score: str) -> bool:
    return score in held or (score == EQUIVOCAL and NO_POSITIVE_ISH in held)


def with_ish(name: str, ish: str, class_scores: Mapping[str, tuple[str, ...]] | None = None) -> str:
    """Say what an ISH result would mean for a predicted class. The prediction stays as it is.

    Parameters
    ----------
    name : str
        Predicted class; empty where none was given.
    ish : str
        "positive", "negative", "pending", or empty: as the user enters it, never inferred.
    class_scores : mapping of str to tuple of str, optional
        As for `class_label`.

    Returns
    -------
    str
        One line; empty where nothing follows.

    Examples
    --------
    >>> with_ish("2+", "negative")
    'With ISH negative: 2+ would be HER2-low.'
    >>> with_ish("1+", "positive")
    'ISH positive does not agree with a predicted 1+: look at IHC and ISH again.'
    """
    held = findings_of(name, class_scores)
    shown = class_name(name, class_scores)
    if ish == "pending":
        return f"{shown} stays open until ISH is known." if _holds(held, EQUIVOCAL) else ""
    if not held or ish not in ("positive", "negative"):
        return ""
    meant: dict[str, list[str]] = {}
    for finding in held:
        if (category := _CATEGORY.get((finding, ish))) is not None:
            meant.setdefault(category, []).append(_score_of(finding))
    if not meant:
        return f"ISH {ish} {_DISAGREES.format(of=f'a predicted {shown}')}"
    text = ", ".join(f"{' or '.join(scores)} would be {category}" for category, scores in meant.items())
    if sum(map(len, meant.values())) < len(held) or len(meant) > 1:
        text += f"; the model cannot tell {', '.join(map(_score_of, held[:-1]))} from {_score_of(held[-1])}"
    elif " or " in next(iter(meant)):
        text += "; the model cannot tell which"
    return f"With ISH {ish}: {text}."


def ish_disagrees(score: str, ish: str) -> str:
    """Say that a score and an ISH result do not go together.

    Parameters
    ----------
    score : str
        "0", "1+", "2+" or "3+": of the pathologist.
    ish : str

    Returns
    -------
    str
        Empty where they do, or where there is no result.
    """
    if ish not in ("positive", "negative") or (score, ish) in _CATEGORY:
        return ""
    return f"ISH {ish} {_DISAGREES.format(of=f'a score of {score}')}"


def _score_of(finding: str) -> str:
    return finding if finding in SCORES else EQUIVOCAL
