"""Slides as a dry run sees them: opened, their tissue found, what would be taken from each counted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.inference.unchanged import identified
from napari_her2.steps import Progress
from napari_her2_training.cohort.manifest import STAINS
from napari_her2_training.cohort.reading import naming_row, opened
from napari_her2_training.cohort.tissue import refuse_empty, tissue_to_learn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from napari_her2.slide.reader import Slide
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.findings import Findings

_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Counted:
    """What would be taken from a slide.

    Parameters
    ----------
    case : Case
    taken : int
        Tiles, images or fields.
    cached : int
        Of them, embedded already.
    """

    case: Case
    taken: int
    cached: int = 0


def count_slides(
    cases: Sequence[Case],
    stain: Stain,
    count: Callable[[Slide, Case], Counted],
    findings: Findings,
    *,
    check: bool,
    identify: bool = False,
) -> Generator[Progress, None, list[Counted]]:
    """Open slides one after the other and count.

    Parameters
    ----------
    cases : sequence of Case
    stain : {"he", "ihc"}
    count : callable
        Raises SlideError where the training would.
    findings : Findings
        A slide that cannot be opened, or holds nothing to take, becomes a fault that names its row.
    check : bool
        Whether a slide that does not look like its stain is a fault, as it is for the training.
    identify : bool
        Whether the cache is asked what it holds of a slide: all of it is read then, the first time.

    Yields
    ------
    Progress
        Before each slide, and while its identity is worked out. Closing the generator stops it.

    Returns
    -------
    list of Counted
        Of those that hold something.
    """
    found: list[Counted] = []
    stage = f"Looking at the {STAINS[stain]} slides"
    for number, case in enumerate(cases):
        yield Progress(stage, number, len(cases), "slides", case.case_id)
        with naming_row(case, findings), opened(case, stain) as slide:
            if identify:
                yield from identified(slide)
            began = time.perf_counter()
            tissue_to_learn(slide, stain, check=check)
            findings.looked.append(time.perf_counter() - began)
            counted = count(slide, case)
            refuse_empty(slide, counted.taken)
            found.append(counted)
    yield Progress(stage, len(cases), len(cases), "slides")
    return found


def refuse_small(cases: Sequence[Case], tiles: Mapping[int, int], least: int) -> None:
    """Refuse slides with fewer tiles than a bag draws.

    Parameters
    ----------
    cases : sequence of Case
    tiles : mapping of int to int
        By row. Slides that are not in it are passed over.
    least : int

    Raises
    ------
    JobFailed
        Naming rows and cases.
    """
    small = [case for case in cases if tiles.get(case.row, least) < least]
    if small:
        named = ", ".join(
            f"row {case.row} (case {case.case_id}, {tiles[case.row]})" for case in small[:_MOST_NAMED]
        )
        more = f" and {len(small) - _MOST_NAMED} more" if len(small) > _MOST_NAMED else ""
        raise JobFailed(
            f"A bag of {least} tiles cannot be drawn from these slides: {named}{more}. Leave them out, or "
            f"lower [bags] size."
        )


def median_taken(counted: Sequence[Counted]) -> int:
    """Return what is taken from a slide in the middle of all; 1 where there is none."""
    return int(np.median([one.taken for one in counted])) if counted else 1
