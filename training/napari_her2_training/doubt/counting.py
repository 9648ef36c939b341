"""What a dry run says of familiarity and sets: who stands behind them, what is missing, and what it takes."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from napari_her2.models.answer_sets import COVERAGE
from napari_her2.models.case_slides import EACH
from napari_her2.models.familiarity import LEAST_SLIDES
from napari_her2.number_words import counted
from napari_her2_training.cohort.features import holds_features
from napari_her2_training.cohort.manifest import label_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.config import CasesRunConfig
    from napari_her2_training.findings import Findings

WHAT = "familiarity and sets"
_FAMILIARITY, _SETS = "Familiarity", "Sets of scores"


def most_promised(cases: int) -> float:
    """Return the highest coverage that so many calibration cases can promise, in whole per cent.

    Examples
    --------
    >>> [most_promised(cases) for cases in (0, 3, 9, 99)]
    [0.0, 0.75, 0.9, 0.99]
    """
    return math.floor(100 * cases / (cases + 1) + 1e-9) / 100


def needed_for(coverage: float) -> int:
    """Return how many calibration cases a coverage needs.

    Examples
    --------
    >>> needed_for(0.9), needed_for(0.99)
    (9, 99)
    """
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def cases_in_words(counts: Counter[int], mapping: ClassMapping) -> str:
    """Say how many calibration cases there are of each class, and what they can promise."""
    cases = sum(counts.values())
    of_class = ", ".join(f"{counts[number]:,} of {name}" for number, name in enumerate(mapping.names))
    few = [name for number, name in enumerate(mapping.names) if counts[number] < needed_for(COVERAGE)]
    promised = cases >= needed_for(COVERAGE)
    shared = f"; {', '.join(few)} share the limit of all at {COVERAGE:.0%}" if few and promised else ""
    return f"{counted(cases, 'case')} ({of_class}) can promise {most_promised(cases):.0%}{shared}"


def count_doubt(splits: Sequence[Split], config: CasesRunConfig, findings: Findings) -> None:
    """Tell findings what fitting familiarity and sets would take, in place of `doubt_steps`.

    Parameters
    ----------
    splits : sequence of Split
        One a fold.
    config : CasesRunConfig
    findings : Findings
        Slides were counted before: what opening one takes is known.
    """
    wanted, mapping = config.doubt, config.data.mapping
    if not wanted.wanted:
        if not {_FAMILIARITY, _SETS} & set(findings.facts):  # variants that are only compared have none
            findings.facts["Familiarity and sets"] = "not wanted: [doubt] leaves both out"
        return
    for split in splits:
        if not split.train or _without_slides(split.train):
            continue
        held = {case.case_id: case for case in (*split.validation, *split.calibration)}
        learnt = min(wanted.slides, len(split.train))
        counts = Counter(label_of(case, mapping) for case in held.values())
        if wanted.familiarity:
            findings.facts[_FAMILIARITY] = (
                f"from {counted(learnt, 'training case')}, limits from {counted(len(held), 'other')}"
            )
        if wanted.sets:
            source = "validation and calibration" if split.calibration else "validation"
            findings.facts[_SETS] = f"{source}: {cases_in_words(counts, mapping)}"
        _warn(len(held), split, config, findings)
    scored = sum(scored_again(split, config) for split in splits)
    if scored:
        seconds = findings.seconds_a_slide
        findings.spend(WHAT, None if seconds is None else seconds * scored, "no slide could be opened")


def scored_again(split: Split, config: CasesRunConfig) -> int:
    """Count the cases of a fold that the finished model scores, for what it is to keep of them."""
    wanted = config.doubt
    if not (wanted.wanted and split.train) or _without_slides(split.train):
        return 0  # of features, and of patches in a folder, no slide is scored
    rows = (*split.validation, *split.calibration)
    # Of a case that is answered as a whole every slide is scored.
    held = rows if config.cases.slides != EACH else {case.case_id for case in rows}
    return len(held) + (min(wanted.slides, len(split.train)) if wanted.familiarity else 0)


def _without_slides(cases: Sequence[Case]) -> bool:
    return any(holds_features(path) for case in cases[:1] for path in (case.he, case.ihc) if path is not None)


def _warn(held: int, split: Split, config: CasesRunConfig, findings: Findings) -> None:
    """Warn of cases that are missing."""
    advice = "add rows whose split is calibration" if not split.calibration else "add cases"
    if config.doubt.sets and held < needed_for(COVERAGE):
        findings.warn(
            f"{counted(held, 'validation or calibration case')} cannot promise sets of {COVERAGE:.0%}, which "
            f"need {needed_for(COVERAGE)}: {advice}."
        )
    if config.doubt.familiarity and held < LEAST_SLIDES:
        findings.warn(
            f"With {counted(held, 'validation or calibration case')} the model cannot tell which slides are "
            f"unlike, which needs {LEAST_SLIDES}: {advice}."
        )
