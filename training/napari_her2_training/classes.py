"""Which scores make which class: a table in the configuration, with the result of ISH where it is used.

"low" is 0, Low and High, as Chauhan et al. (arXiv:2503.22069) group the scores: 1+ and 2+ are Low, 3+ is
High. A 2+ with a positive in situ hybridisation counts as High where the manifest tells it and the
configuration asks for it: 2+ is equivocal, and ISH decides it (ASCO/CAP 2018, affirmed 2023). An ISH result
is read from the manifest and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.inference.class_words import class_names
from napari_her2.models.class_scores import EQUIVOCAL, NO_POSITIVE_ISH, POSITIVE, POSITIVE_ISH, SCORES

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMED: Mapping[str, str] = {
    "scores": "0: 0, 1+: 1+, 2+: 2+, 3+: 3+",
    "low": "0: 0, 1+: Low, 2+: Low, 3+: High",
    "binary": "0: negative, 1+: negative, 2+: positive, 3+: positive",
}
SCORE_NAMES: Mapping[str, str] = {score.rstrip("+"): score for score in SCORES} | {s: s for s in SCORES}
"""How a score may be written."""
_ISH: Mapping[str, bool | None] = (
    dict.fromkeys(("positive", "pos", "+", "amplified", "1", "yes"), True)
    | dict.fromkeys(("negative", "neg", "-", "not amplified", "0", "no"), False)
    | dict.fromkeys(("", "unknown", "not done", "na", "n/a"), None)
)


@dataclass(frozen=True, slots=True)
class ClassMapping:
    """The classes of a model, and which scores each holds.

    Parameters
    ----------
    names : tuple of str
        In the order of the logits, which is that of the scores.
    of_score : mapping of str to str
        Each of the four scores to the name of its class.
    ish : str
        Class of a 2+ whose ISH is positive; empty where ISH is not looked at.

    Examples
    --------
    >>> mapping = class_mapping("low", ish=True)
    >>> mapping.names, mapping.number("2+"), mapping.number("2+", "positive")
    (('0', 'Low', 'High'), 1, 2)
    """

    names: tuple[str, ...]
    of_score: Mapping[str, str]
    ish: str = ""

    def number(self, score: str, ish: str = "") -> int:
        """Return the class number of a score.

        Parameters
        ----------
        score : str
            "0", "1+", "2+" or "3+".
        ish : str, optional
            As the manifest gives it; looked at with a 2+ alone, and where the mapping asks for it.

        Raises
        ------
        JobFailed
            If ISH is to be looked at and is no result that can be told.
        """
        name = self.of_score[score]
        if self.ish and score == EQUIVOCAL and ish_positive(ish):
            name = self.ish
        return self.names.index(name)

    @property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """Which scores each class holds, with what ISH has to say of a 2+, for the card."""
        held: dict[str, list[str]] = {name: [] for name in self.names}
        for score, name in self.of_score.items():
            held[name].append(NO_POSITIVE_ISH if self.ish and score == EQUIVOCAL else score)
        if self.ish:
            held[self.ish].append(POSITIVE_ISH)
        return {name: tuple(findings) for name, findings in held.items()}

    @property
    def named(self) -> dict[str, str]:
        """Each class with what it is called for a person: "Low" as "1+/2+ (ISH unknown)"."""
        return class_names(self.names, self.findings)

    def in_words(self) -> str:
        """Return the mapping in words: "0: 0, 1+: Low, 2+: Low, 3+: High"."""
        text = ", ".join(f"{score}: {self.of_score[score]}" for score in SCORES)
        return f"{text}; 2+ with a positive ISH: {self.ish}" if self.ish else text


def ish_positive(text: str) -> bool | None:
    """Read the result of an ISH.

    Parameters
    ----------
    text : str
        "positive", "negative" or a usual short form; empty or "unknown" where there is none.

    Returns
    -------
    bool or None
        None where there is no result.

    Raises
    ------
    JobFailed
        If it is something else: a label must not rest on a guess.
    """
    known = text.strip().lower()
    if known not in _ISH:
        raise JobFailed(f"ish {text!r:.40} is no result: write positive or negative, or leave it empty.")
    return _ISH[known]


def class_mapping(text: str, *, ish: bool = False) -> ClassMapping:
    """Read a mapping.

    Parameters
    ----------
    text : str
        "scores", "low", "binary", or each score with its class: "0: 0, 1+: Low, 2+: Low, 3+: High".
    ish : bool, default False
        Whether a 2+ with a positive ISH belongs to the class of 3+.

    Raises
    ------
    JobFailed
        Naming the key of the configuration and what is wrong with it.
    """
    of_score: dict[str, str] = {}
    for item in NAMED.get(text, text).split(","):
        given, colon, name = (part.strip() for part in item.partition(":"))
        if not colon or not name:
            names = ", ".join(repr(known) for known in NAMED)
            raise _wrong(
                f"must be one of {names}, or give each score its class, as in {NAMED['low']!r}, "
                f"not {text!r:.80}"
            )
        if given not in SCORE_NAMES:
            raise _wrong(f"has the score {given!r:.40}, which is none of {', '.join(SCORES)}")
        score = SCORE_NAMES[given]
        if score in of_score:
            raise _wrong(f"gives the score {score} twice")
        of_score[score] = name
    missing = [score for score in SCORES if score not in of_score]
    if missing:
        raise _wrong(f"leaves out the score {' and '.join(missing)}: give every score a class")
    of_score = {score: of_score[score] for score in SCORES}
    classes = _names(of_score)
    if ish:
        _check_ish(of_score)
    return ClassMapping(classes, of_score, of_score[POSITIVE] if ish else "")


def _check_ish(of_score: Mapping[str, str]) -> None:
    if of_score[EQUIVOCAL] == of_score[POSITIVE]:
        raise JobFailed(
            f"[data] ish moves a 2+ with a positive ISH to the class of 3+, but both are "
            f"{of_score[POSITIVE]!r:.40} already: leave ish out, or give 2+ and 3+ a class each."
        )
    if of_score[POSITIVE] in SCORES:
        raise JobFailed(
            f"[data] ish would call a 2+ with a positive ISH {of_score[POSITIVE]!r}, which is not its score: "
            'give the class of 3+ another name, as classes = "low" does.'
        )


def _names(of_score: Mapping[str, str]) -> tuple[str, ...]:
    in_order = [of_score[score] for score in SCORES]
    names = tuple(dict.fromkeys(in_order))
    if len(names) < 2:
        raise _wrong(f"has the one class {names[0]!r:.40}: give two classes or more")
    for name in names:
        places = [number for number, own in enumerate(in_order) if own == name]
        if places[-1] - places[0] + 1 != len(places):
            raise _wrong(
                f"has {name!r:.40} twice, with another class between: join neighbouring scores alone"
            )
        if sum(name.lower() == other.lower() for other in names) > 1:
            raise _wrong(f"has the classes {name!r:.40} and the same in other letters: spell them alike")
    return names


def _wrong(problem: str) -> JobFailed:
    return JobFailed(f"[data] classes {problem}.")
