"""Scores as tables write them: 2, 2.0, "2+ (equivocal)", "HER2 2+", "Score 3+", and what is none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.outside import shown
from napari_her2_training.classes import SCORE_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NONE = frozenset(
    {"", "na", "n/a", "n.a.", "nan", "none", "null", "unknown", "missing", "not available", "not evaluated",
     "not done", "not performed", "not applicable", "-", "--", ".", "?", "x"}
)  # fmt: skip
_SCORE = re.compile(
    r"(?:(?:her-?2(?:[/ -]?neu)?|c-?erbb-?2|ihc|score|class|grade)[\s:=_-]*)*"
    r"(?:(?P<number>[0-3])(?:[.,]0+)?\s*(?P<plus>\+?)|(?P<plusses>\+{2,3}))"
    r"\s*(?:[(\[,;-]?\s*(?:equivocal|negative|positive|low|weak|faint|moderate|strong)\s*[)\]]?)?"
)
_ISH: Mapping[str, str] = {
    **dict.fromkeys(
        ("positive", "pos", "+", "amplified", "yes", "fish+", "ish+", "fish positive", "ish positive"),
        "positive",
    ),
    **dict.fromkeys(
        ("negative", "neg", "non-amplified", "not amplified", "non amplified", "unamplified", "no", "fish-",
         "ish-", "fish negative", "ish negative"),
        "negative",
    ),
}  # fmt: skip


class NoScore(JobFailed):
    """A label that says no score of 0 to 3+; the message goes on from the row that it stands in."""


def read_score(text: str, mapped: Mapping[str, str] | None = None) -> str:
    """Read a score.

    Parameters
    ----------
    text : str
        As the table has it.
    mapped : mapping of str to str, optional
        What labels of the user's own mean, in lower case: {"negative": "0"}; goes before all else.

    Returns
    -------
    str
        "0", "1+", "2+", "3+"; empty where the cell says that there is none.

    Raises
    ------
    NoScore
        If it is something else: "positive" may be a 2+ or a 3+, and nobody guesses a label.

    Examples
    --------
    >>> [read_score(text) for text in ("2.0", "HER2 2+ (equivocal)", "Score 3+", "[Not Available]")]
    ['2+', '2+', '3+', '']
    """
    word = " ".join(text.split()).casefold()
    if mapped and word in mapped:
        return mapped[word]
    if word.strip("[]() ") in _NONE:
        return ""
    found = _SCORE.fullmatch(word)
    if found is None or (found["number"] == "0" and found["plus"]):
        raise NoScore(
            f'"{shown(text, 40)}" is no score of 0, 1+, 2+ or 3+: say which it means '
            f'(--map "{shown(text, 40)}=0"), or leave the cell empty.'
        )
    return SCORE_NAMES[found["number"] or str(len(found["plusses"]))]


def read_map(items: Iterable[str]) -> dict[str, str]:
    """Read what labels of the user's own mean: "negative=0", "positive=3+".

    Returns
    -------
    dict
        Label in lower case to score; empty for a label that is to be left out ("indeterminate=").

    Raises
    ------
    JobFailed
        If one is no label and score.
    """
    mapped: dict[str, str] = {}
    for item in items:
        label, sign, score = item.rpartition("=")
        word = " ".join(label.split()).casefold()
        if not sign or not word or (score.strip() and score.strip() not in SCORE_NAMES):
            raise JobFailed(f'--map "{shown(item, 60)}" is none of label=score: write --map "negative=0".')
        if mapped.setdefault(word, SCORE_NAMES.get(score.strip(), "")) != SCORE_NAMES.get(score.strip(), ""):
            raise JobFailed(f'--map gives the label "{shown(label, 40)}" two scores: give it one.')
    return mapped


def read_ish(text: str) -> str | None:
    """Read the result of an ISH: "positive", "negative", empty for none, None where it cannot be told."""
    word = " ".join(text.split()).casefold().strip("[]() ")
    return "" if word in _NONE else _ISH.get(word)
