"""What a person should know of cases that are no fault: results of ISH that do not fit, rows left out.

What costs next to nothing is checked whenever a manifest is read. What needs the slides open (tissue, numbers
of tiles) is checked by the dry run, and by the training just before it learns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.case_slides import EACH, in_words
from napari_her2.models.class_scores import EQUIVOCAL, POSITIVE
from napari_her2.number_words import counted
from napari_her2_training.classes import ish_positive
from napari_her2_training.cohort.manifest import PARTS, in_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.config_sections import CaseSlidesConfig
    from napari_her2_training.findings import Findings


def ish_warnings(cases: Sequence[Case]) -> list[str]:
    """Say where the result of ISH is hard to bring together with the score, or with another row.

    It is no fault: classes rest on ISH only where the configuration says so, and then it is checked strictly.

    Returns
    -------
    list of str
        A sentence for each, which names the row.
    """
    found: list[str] = []
    first: dict[str, tuple[Case, bool | None]] = {}
    for case in cases:
        try:
            positive = ish_positive(case.ish)
        except JobFailed as error:
            found.append(f"Row {case.row}: {error}")
            continue
        before, known = first.setdefault(case.case_id, (case, positive))
        if positive != known:
            found.append(
                f"Row {case.row}: case {case.case_id} has ish {case.ish!r}, in row {before.row} "
                f"{before.ish!r}: check which is right."
            )
        if positive is None or case.score == EQUIVOCAL or positive == (case.score == POSITIVE):
            continue
        found.append(
            f"Row {case.row}: case {case.case_id} has score {case.score} and a "
            f"{'positive' if positive else 'negative'} ISH: it happens, but check the row."
        )
    return found


def add_case_slides(cases: Sequence[Case], config: CaseSlidesConfig, findings: Findings) -> None:
    """Tell findings of cases with several rows, and what these are to the training."""
    rows = [own for own in in_cases(cases) if len(own) > 1]
    if not rows:
        return
    most = max(map(len, rows))
    way = in_words(config.slides, config.rule)
    findings.facts["Several slides"] = f"{counted(len(rows), 'case')} with up to {most} rows; {way}"
    if config.slides == EACH:
        findings.warn(
            f"Cases with several rows: {len(rows):,}. Each row is learnt from and judged by itself: [cases] "
            f"slides can give one answer a case."
        )


def split_warnings(cases: Sequence[Case], splits: Sequence[Split], mapping: ClassMapping) -> list[str]:
    """Say which rows a run leaves out, and which labels rest on an ISH that nobody did.

    Parameters
    ----------
    cases : sequence of Case
        Of the manifest.
    splits : sequence of Split
    mapping : ClassMapping
    """
    found: list[str] = []
    rows = {case.row for split in splits for part in PARTS for case in getattr(split, part)}
    unused = len(cases) - len(rows)
    if unused:
        found.append(
            f"{unused} of {len(cases)} rows are in no part and are not used: their column split is empty."
        )
    if mapping.ish:
        used = {case.case_id: case for case in cases if case.row in rows and case.score == EQUIVOCAL}
        unknown = sum(ish_positive(case.ish) is None for case in used.values())
        if unknown:
            found.append(
                f"{unknown} of {len(used)} cases of 2+ have no ISH result: they are learnt as "
                f"{mapping.of_score[EQUIVOCAL]}."
            )
    return found
