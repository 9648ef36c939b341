"""How a score is worded: the one place, so that the dock, the command line and the files say the same.

A prediction from H&E is never called an IHC score; what a class is called stands in
`napari_her2.inference.class_words`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.inference.class_words import class_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.models.familiarity import Verdict

MIN_CONFIDENCE = 0.5
"""Below this probability of the top class the answer is "indeterminate"."""
MIN_TILES = 100
"""With fewer tiles of tissue the answer is "indeterminate"."""

INDETERMINATE, WITHHELD = "indeterminate", "withheld"
LEARNT = "what the model learnt from"
INSIDE = "the tissue in the regions"
STRANGE, STRANGE_INSIDE = f"the slide is unlike {LEARNT}", f"{INSIDE} is unlike {LEARNT}"
"""Why an answer is withheld; what exactly is strange stands in the doubt of the result."""


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


def doubted_label(result: SlideResult) -> tuple[str, str]:
    """How the answer of a result with probabilities is shown, and why it is withheld.

    Parameters
    ----------
    result : SlideResult
        With its doubt.

    Returns
    -------
    label : str
        "3+ (positive)", "2+ or 3+ (prediction)", "indeterminate: ..." or "withheld: ..." with the reason, or
        an answer with "withheld: ..." behind it where the user asked to see it anyway.
    reason : str
        Empty where the answer is given.
    """
    doubt = result.doubt
    reason, strange = _unscorable(result), STRANGE_INSIDE if doubt.only_inside else STRANGE
    if reason:
        reason = f"{reason}; {strange}" if doubt.withheld else reason
        return f"{INDETERMINATE}: {reason}", reason
    answer, reason = _answered(result)
    if not doubt.withheld:
        return answer, reason
    return (f"{answer}, {WITHHELD}: {strange}" if doubt.shown_anyway else f"{WITHHELD}: {strange}"), strange


def heading(result: SlideResult) -> str:
    """Name the answer without the reason why there is none, or why it is not to be trusted.

    Parameters
    ----------
    result : SlideResult
        As far as it may be seen.

    Returns
    -------
    str
        "3+ (positive)", "2+ or 3+ (prediction)", "indeterminate" or "withheld".
    """
    if result.doubt.hidden:
        return WITHHELD
    if not result.reason:
        return result.label
    if not result.doubt.withheld or _unscorable(result) or _answered(result)[1]:
        return INDETERMINATE
    return _answered(result)[0]


def answer_classes(result: SlideResult) -> tuple[str, ...]:
    """Return the classes of the answer: those of the set, or the one, or none.

    Parameters
    ----------
    result : SlideResult
        As far as it may be seen.
    """
    if result.doubt.hidden:
        return ()
    return _promised(result) or ((result.score,) if result.score else ())


def _promised(result: SlideResult) -> tuple[str, ...]:
    return () if result.doubt.answer is None else result.doubt.answer.classes


def _unscorable(result: SlideResult) -> str:
    """Why there would be no answer of a familiar slide either; empty where there would be one."""
    limits, least = result.limits, result.limits.min_confidence
    if result.doubt.hidden:
        least = 0.0  # how probable the most probable class is would be a part of the answer
    elif least is None:
        least = 0.0 if _promised(result) else MIN_CONFIDENCE
    tiles: dict[str, int] = {}
    for scored in result.slides:  # slides of one stain are one bag
        first = next(of.name for of in result.slides if of.stain == scored.stain)
        tiles[first] = tiles.get(first, 0) + len(scored.table)
    return abstention(result.confidence, tiles, min_confidence=least, min_tiles=limits.min_tiles)


def _answered(result: SlideResult) -> tuple[str, str]:
    """One class, a set of them, or why there is neither."""
    if reason := result.limits.reason:  # which may name classes, and so goes where the answer goes
        return f"{INDETERMINATE}: {reason}", reason
    answer, promised = result.doubt.answer, _promised(result)
    if answer is not None and answer.all_of(result.classes):
        reason = f"none of the scores can be left out at {_percent(answer.coverage)}"
        return f"{INDETERMINATE}: {reason}", reason
    if len(promised) > 1:
        return f"{_any_of([result.named(name) for name in promised])} (prediction)", ""
    return class_label(result.score, result.limits.class_labels, result.class_scores), ""


def _any_of(names: Sequence[str]) -> str:
    """Join names: "0, 1+ or 2+"."""
    return f"{', '.join(names[:-1])} or {names[-1]}"


def trust_line(result: SlideResult) -> str:
    """Say the answer, and how far to trust it, in one line.

    Parameters
    ----------
    result : SlideResult

    Returns
    -------
    str
        "2+ or 3+ · the model's sets hold the truth in 90 % of cases like the 160 it was calibrated on · the
        slide looks like what the model learnt from". Empty of a method without probabilities, which
        measures and predicts nothing.
    """
    parts = trust_parts(result)
    return " · ".join((result.label.removesuffix(" (prediction)"), *parts)) if parts else ""


def trust_parts(result: SlideResult) -> tuple[str, ...]:
    """Say how far to trust an answer: what is promised, how familiar the slides are, whether models agree.

    Parameters
    ----------
    result : SlideResult

    Returns
    -------
    tuple of str
        Empty of a method without probabilities, which measures and predicts nothing.
    """
    if not result.probabilities and not result.doubt.withheld:
        return ()
    parts = (_promise(result), _likeness(result), _parting(result))
    return tuple(part for part in parts if part)


def _promise(result: SlideResult) -> str:
    """Say what is promised of the answer, and with how many cases behind it."""
    doubt = result.doubt
    if doubt.verdict == "unlike":
        return "no promise holds for such a slide"
    if _unscorable(result):
        return "no score is given, so nothing is promised of one"
    if doubt.answer is None:
        return "how often such answers are right is not known"
    if not doubt.answer.classes:
        return f"nothing is promised: {doubt.answer.reason}"
    return (
        f"the model's sets hold the truth in {_percent(doubt.answer.coverage)} of cases like the "
        f"{doubt.answer.cases:,} it was calibrated on"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


# The verdicts by their words: whoever only asks how a score is worded loads no NumPy.
_LIKENESS: Mapping[Verdict, str] = {
    "familiar": f"{{which}} {{looks}} like {LEARNT}",
    "in part": f"{{which}} {{is_}} unlike {LEARNT} in part",
    "unlike": f"{{which}} {{is_}} unlike {LEARNT}",
    "not known": f"whether {{which}} {{looks}} like {LEARNT} is not known",
}


def likeness(verdict: Verdict, which: str = "the slide", *, several: bool = False) -> str:
    """Say how much slides look like what the model learnt from.

    Parameters
    ----------
    verdict : str
    which : str
        The slides.
    several : bool
        Whether they are several.

    Examples
    --------
    >>> likeness("not known", "the IHC slide")
    'whether the IHC slide looks like what the model learnt from is not known'
    """
    looks, is_ = ("look", "are") if several else ("looks", "is")
    return _LIKENESS[verdict].format(which=which, looks=looks, is_=is_)


def _likeness(result: SlideResult) -> str:
    doubt = result.doubt
    verdict, reason = doubt.verdict, doubt.reason
    if any(words in result.label for words in (STRANGE, STRANGE_INSIDE)) and len(result.slides) == 1:
        return reason
    same = [scored for scored in result.slides if scored.familiarity.verdict == verdict]
    if doubt.only_inside:
        words = likeness(verdict, INSIDE)
    elif len(result.slides) == 1 or not same:
        limited = verdict == "familiar" and result.slides[0].familiarity.limited
        words = likeness(verdict, "the slide as a whole" if limited else "the slide")
    elif len(same) == len(result.slides):
        words = likeness(verdict, "both slides" if len(same) == 2 else "all slides", several=True)
    else:
        stains = [scored.stain for scored in result.slides]
        alone = stains.count(same[0].stain) == 1
        words = likeness(verdict, f"the {same[0].stain} slide" if alone else same[0].name)
    return f"{words}: {reason}" if reason else f"{words}{_alike_inside(result, verdict)}"


def _alike_inside(result: SlideResult, verdict: Verdict) -> str:
    """How many of the tiles in the regions are familiar, of a slide that is familiar as a whole."""
    known = result.slides[0].familiarity
    if verdict != "familiar" or not known.limited:
        return ""
    return f", and so do {_percent(round(1 - known.unfamiliar, 2))} of the tiles in the regions"


def _parting(result: SlideResult) -> str:
    """How many models of an ensemble name another class."""
    spread = result.doubt.spread
    if spread is None or spread.agree == spread.models or result.doubt.hidden:
        return ""
    return f"only {spread.agree} of {spread.models} models name {result.named(result.score)}"
