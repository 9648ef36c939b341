"""Which slides and models stand behind the predictions of a run, where they are still there."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import Her2Error, JobFailed
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.card import PAIR
from napari_her2.slide.reader import open_slide
from napari_her2.steps import Progress
from napari_her2_training.cohort.features import holds_features
from napari_her2_training.cohort.manifest import STAINS, read_manifest

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.reporting.evaluation import FinishedRun

_FINEST = 0.25
"""µm/px of the usual finest level of scanners; the others are this times a power of 2."""


def model_of_fold(run: FinishedRun, fold: int) -> Path:
    """Return the bundle of a fold."""
    name = str(run.record["model"])
    if len(run.folds) == 1:
        return run.folder / name
    return run.folder / f"{name.removesuffix(SUFFIX)}-fold{fold}{SUFFIX}"


def rows_by_case(run: FinishedRun) -> dict[str, list[Case]]:
    """Return the rows of each case; none where the manifest or a slide in it is gone."""
    cases: dict[str, list[Case]] = defaultdict(list)
    with suppress(Her2Error, KeyError):
        for case in read_manifest(Path(run.record["data"]), ()):
            cases[case.case_id].append(case)
    return dict(cases)


def row_of(
    number: int, among: int, rows: Sequence[Case], run: FinishedRun, reading: str | None = None
) -> Case | None:
    """Return the row that a judged slide is.

    Parameters
    ----------
    number, among : int
        Which of the judged slides of its case it is, in the order of the manifest, and how many there are.
    rows : sequence of Case
        Of its case.
    run : FinishedRun
    reading : str, optional
        By which it was judged; by default that of the bundle.

    Returns
    -------
    Case or None
        None where it cannot be told.
    """
    if len(rows) == 1:
        return rows[0]
    he, ihc = ([case for case in rows if getattr(case, stain) is not None] for stain in STAINS)
    both = [case for case in rows if case.he is not None and case.ihc is not None]
    # A head for both slides was judged on rows that have both, or on all with H&E and an IHC slide of others.
    of_stain = {STAINS["he"]: [he], STAINS["ihc"]: [ihc]}
    head = run.reading if reading is None else reading
    judged = of_stain.get(head) or of_stain.get(run.record["stain"], [both, he])
    return next((of[number] for of in judged if len(of) == among), None)


def rows_judged(
    run: FinishedRun, judged: Predictions, cases: Mapping[str, Sequence[Case]], reading: str | None = None
) -> list[Case | None]:
    """Return the row of each judged slide; None where it cannot be told."""
    among, seen = Counter(judged.cases), Counter[str]()
    found = []
    for case in judged.cases:
        rows = cases.get(case, ())
        found.append(row_of(seen[case], among[case], rows, run, reading) if rows else None)
        seen[case] += 1
    return found


def slides_of(case: Case, stain: str) -> tuple[Path, ...]:
    """Return the slides of a row that a model of a stain takes, H&E first.

    Raises
    ------
    JobFailed
        If it has none.
    """
    if stain == PAIR:
        return tuple(path for path in (case.he, case.ihc) if path is not None)
    return (case.slide("he" if stain == STAINS["he"] else "ihc"),)


def looked_at(case: Case, stain: str, reading: str) -> Path | None:
    """Return the slide of a row that a reading looks at, of two the first; None where it has none."""
    of_head = {STAINS["he"]: case.he, STAINS["ihc"]: case.ihc}
    if reading in of_head:
        return of_head[reading]
    try:
        return slides_of(case, stain)[0]
    except JobFailed:
        return None


def scale_steps(
    paths: Sequence[Path], given: Mapping[Path, float] | None = None
) -> Generator[Progress, None, dict[Path, str]]:
    """Read the scale of slides from their headers.

    Parameters
    ----------
    paths : sequence of Path
    given : mapping of Path to float, optional
        µm/px that a manifest gives.

    Yields
    ------
    Progress

    Returns
    -------
    dict of Path to str
        Usual scale that the slide is nearest to: "0.25 µm/px". Without those that state none, or that cannot
        be opened.
    """
    found: dict[Path, str] = {}
    different = list(dict.fromkeys(path for path in paths if not holds_features(path)))
    for number, path in enumerate(different):
        yield Progress("Reading scales", number, len(different), "slides", path.name)
        with suppress(Her2Error), open_slide(path, mpp=(given or {}).get(path)) as slide:
            if slide.mpp is not None:
                found[path] = scale_in_words(max(slide.mpp))
    return found


def scale_in_words(mpp: float) -> str:
    """Return the usual scale that one is nearest to.

    Examples
    --------
    >>> scale_in_words(0.2431), scale_in_words(0.499), scale_in_words(1.1)
    ('0.25 µm/px', '0.5 µm/px', '1 µm/px')
    """
    return f"{_FINEST * 2.0 ** np.round(np.log2(mpp / _FINEST)):g} µm/px"
