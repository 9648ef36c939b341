"""From cases to what a bundle keeps: the spaces of its familiarity, and the cases behind its sets of scores.

Training cases tell what the model has seen; validation and calibration cases, which no network learnt from,
how strange further slides may look (Familiarity) and how far down its probabilities the truth lies
(AnswerSets). Of a case with several slides one is drawn for that: the others would count as cases of their
own, and promise too much.

The validation cases have chosen the epoch and the temperature, so that they look a little kinder than cases
that chose nothing: the card says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.inference import appearance
from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
from napari_her2.models.bundle import load_bundle
from napari_her2.models.card import SLIDE
from napari_her2.models.card_doubt import AnswerSetsCard, FamiliarityCard
from napari_her2.models.case_slides import EACH
from napari_her2.models.class_scores import in_order
from napari_her2.models.familiarity import APPEARANCE, FEATURES, Familiarity
from napari_her2.steps import Progress
from napari_her2_training.config_sections import DoubtConfig
from napari_her2_training.doubt.scored_cases import STAGE, Scorer
from napari_her2_training.doubt.spaces import fit_space

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.inference.doubt import Signature
    from napari_her2.models.familiarity import FeatureSpace
    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.doubt.scored_cases import ScoredCase

TRAINING, VALIDATION, CALIBRATION = "training", "validation", "calibration"
"""What cases were to a model."""
_LEARNT, _HELD = 0, 1
"""Streams of random numbers: which training cases, and which slide of a case."""


class FittedDoubt(NamedTuple):
    """What a bundle keeps, in the order in which it is written; None where there is nothing to keep."""

    familiarity: Familiarity | None = None
    familiarity_card: FamiliarityCard | None = None
    answer_sets: AnswerSets | None = None
    answer_sets_card: AnswerSetsCard | None = None


def doubt_steps(
    bundle_path: Path,
    train: Sequence[Case],
    validation: Sequence[Case],
    calibration: Sequence[Case],
    mapping: ClassMapping,
    device: Device,
    *,
    seed: int,
    config: DoubtConfig | None = None,
    any_stain: bool = False,
    remarks: list[str] | None = None,
) -> Generator[Progress, None, FittedDoubt]:
    """Score cases with a finished model, and fit what its bundle is to keep of them.

    Parameters
    ----------
    bundle_path : Path
    train, validation, calibration : sequence of Case
        What the model learnt from, what chose its epoch, and what did neither.
    mapping : ClassMapping
        The classes of the model.
    device : Device
    seed : int
    config : DoubtConfig, optional
    any_stain : bool
        Whether slides that do not look like their column are scored all the same.
    remarks : list of str, optional
        Gets what had to be left out, and why, a sentence each.

    Yields
    ------
    Progress

    Returns
    -------
    FittedDoubt
    """
    wanted, remarks = config or DoubtConfig(), [] if remarks is None else remarks
    scorer = Scorer(load_bundle(bundle_path), mapping, device, any_stain=any_stain)
    parts = {
        TRAINING: draw_cases(train, wanted.slides, seed) if wanted.familiarity else (),
        VALIDATION: tuple(validation),
        CALIBRATION: tuple(calibration),
    }
    whole = scorer.bundle.card.case_slides != EACH
    seen: dict[str, list[ScoredCase]] = {}
    for part, cases in parts.items():
        if not cases:
            seen[part] = []
        elif part == TRAINING:
            seen[part] = yield from scorer.steps(cases, part, remarks)
        elif whole:
            seen[part] = one_look_a_case((yield from scorer.case_steps(cases, part, remarks)), seed)
        else:
            seen[part] = yield from scorer.steps(one_a_case(cases, seed), part, remarks)
    fitted = FittedDoubt()
    if wanted.familiarity:
        looks = {part: [one for case in own for one in case.signatures] for part, own in seen.items()}
        yield Progress(STAGE)
        familiarity, about = fit_familiarity(looks, remarks, seed=seed)
        fitted = fitted._replace(familiarity=familiarity, familiarity_card=about)
    if wanted.sets:
        ordered = in_order(scorer.bundle.card.classes, scorer.bundle.card.class_scores)
        sets, card = fit_sets(seen, mapping.names, remarks, ordered=ordered)
        fitted = fitted._replace(answer_sets=sets, answer_sets_card=card)
    return fitted


def draw_cases(cases: Sequence[Case], most: int, seed: int) -> tuple[Case, ...]:
    """Draw rows to learn from, without replacement, in their order; all where they are few enough."""
    chosen = np.random.default_rng([seed, _LEARNT]).permutation(len(cases))[:most]
    return tuple(cases[number] for number in np.sort(chosen))


def one_a_case(cases: Sequence[Case], seed: int) -> tuple[Case, ...]:
    """Draw a row of each case: slides of one case are no cases of their own."""
    rows: dict[str, list[Case]] = {}
    for case in cases:
        rows.setdefault(case.case_id, []).append(case)
    rng = np.random.default_rng([seed, _HELD])
    return tuple(own[int(rng.integers(len(own)))] for own in rows.values())


def one_look_a_case(scored: Sequence[ScoredCase], seed: int) -> list[ScoredCase]:
    """Keep the looks of one slide of each stain of a case: limits are those of single slides."""
    rng = np.random.default_rng([seed, _HELD])
    found: list[ScoredCase] = []
    for case in scored:
        of = [
            [one for one in case.signatures if one.stain == stain]
            for stain in dict.fromkeys(one.stain for one in case.signatures)
        ]
        found.append(replace(case, signatures=tuple(own[int(rng.integers(len(own)))] for own in of)))
    return found


def fit_familiarity(
    looks: Mapping[str, Sequence[Signature]], remarks: list[str], *, seed: int, unit: str = "slide"
) -> tuple[Familiarity | None, FamiliarityCard | None]:
    """Fit a space for each stain and each kind of description.

    Parameters
    ----------
    looks : mapping of str to sequence of Signature
        By `TRAINING`, `VALIDATION` and `CALIBRATION`.
    remarks : list of str
        Gets what is missing.
    seed : int
    unit : str
        What each signature is of.

    Returns
    -------
    familiarity : Familiarity or None
        None where no space has limits.
    about : FamiliarityCard or None
    """
    spaces: dict[tuple[str, str], FeatureSpace] = {}
    held = [*looks[VALIDATION], *looks[CALIBRATION]]
    for stain in dict.fromkeys(one.stain for one in looks[TRAINING]):
        for kind in (FEATURES, APPEARANCE):
            learnt, limits = _tiles(looks[TRAINING], stain, kind), _tiles(held, stain, kind)
            if not learnt:
                continue
            try:
                spaces[stain, kind] = fit_space(learnt, limits, seed=seed)
            except JobFailed as error:  # too few, or no numbers: the model is whole without them
                remarks.append(f"The {kind} of {stain} {unit}s are left out: {error}")
    if not spaces:
        remarks.append("The model keeps nothing of what it has seen: none of its descriptions has limits.")
        return None, None
    counts = {part: len([one for one in own if _described(one, spaces)]) for part, own in looks.items()}
    about = FamiliarityCard(
        learnt=counts[TRAINING],
        validated=counts[VALIDATION] + counts[CALIBRATION],
        appearance=appearance.VERSION if any(kind == APPEARANCE for _, kind in spaces) else None,
        made_from=f"{_in_words(counts, (TRAINING,), unit)}; limits from "
        f"{_in_words(counts, (VALIDATION, CALIBRATION), unit)}",
    )
    return Familiarity(spaces), about


def _tiles(looks: Sequence[Signature], stain: str, kind: str) -> list[NDArray[np.float32]]:
    """Tiles of each slide of a stain that has any, described in one way."""
    given = [one.features if kind == FEATURES else one.appearance for one in looks if one.stain == stain]
    return [tiles.astype(np.float32) for tiles in given if tiles is not None and tiles.size]


def _described(one: Signature, spaces: Mapping[tuple[str, str], FeatureSpace]) -> bool:
    return any(_tiles([one], stain, kind) for stain, kind in spaces)


def fit_sets(
    seen: Mapping[str, Sequence[ScoredCase]],
    classes: Sequence[str],
    remarks: list[str],
    *,
    ordered: bool = True,
) -> tuple[AnswerSets | None, AnswerSetsCard | None]:
    """Note how far down the probabilities of each head the truth lies.

    Parameters
    ----------
    seen : mapping of str to sequence of ScoredCase
        By `VALIDATION` and `CALIBRATION`.
    classes : sequence of str
    remarks : list of str
        Gets what is missing.
    ordered : bool, default True
        As of `napari_her2.models.answer_sets.class_scores`.

    Returns
    -------
    sets : AnswerSets or None
        None where there is no case.
    about : AnswerSetsCard or None
    """
    held = [*seen[VALIDATION], *seen[CALIBRATION]]
    heads: dict[str, CalibrationCases] = {}
    counts: dict[str, dict[str, int]] = {}
    for head in dict.fromkeys(name for case in held for name in case.probabilities):
        given = [case for case in held if head in case.probabilities]
        labels = np.array([case.label for case in given], np.int64)
        probabilities = np.stack([case.probabilities[head] for case in given])
        heads[head] = CalibrationCases.of(probabilities, labels, ordered=ordered)
        of_class = Counter(labels.tolist())
        counts[head] = {name: of_class[number] for number, name in enumerate(classes) if of_class[number]}
        if absent := [name for name in classes if name not in counts[head]]:
            of = "" if head == SLIDE else f" for the head {head}"
            shares = "it shares the limit of all" if len(absent) == 1 else "they share the limit of all"
            remarks.append(f"No validation or calibration case of {', '.join(absent)}{of}: {shares}.")
    if not heads:
        remarks.append("The model can promise nothing: no validation or calibration case was scored.")
        return None, None
    words = _in_words({part: len(own) for part, own in seen.items()}, (VALIDATION, CALIBRATION), "case")
    chose = "; the validation cases also chose the epoch" if seen[VALIDATION] else ""
    return AnswerSets(heads), AnswerSetsCard(cases=counts, made_from=f"{words}{chose}")


def _in_words(counts: Mapping[str, int], parts: Sequence[str], unit: str) -> str:
    """Say how many of each part there are: "32 validation and 40 calibration slides"."""
    given = [(counts[part], part) for part in parts if counts[part]]
    words = " and ".join(f"{count:,} {part}" for count, part in given)
    return f"{words} {unit if given[-1:] and given[-1][0] == 1 else f'{unit}s'}"
