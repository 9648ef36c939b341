"""The numbers of a report as tables beside it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.export.csv_cells import write_records
from napari_her2.whole_files import whole_file
from napari_her2_training.reporting.evaluation import in_words, rows_of
from napari_her2_training.reporting.sets import SET_COLUMNS, set_table
from napari_her2_training.reporting.strange import SEEN_COLUMNS, seen_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_her2_training.reporting.cases import Miss
    from napari_her2_training.reporting.evaluation import Evaluation, FinishedRun
    from napari_her2_training.reporting.sets import JudgedPromises
    from napari_her2_training.reporting.strange import StrangeSlides


def write_tables(
    run: FinishedRun,
    evaluations: Sequence[Evaluation],
    misses: Sequence[Miss],
    promises: JudgedPromises,
    strange: StrangeSlides | None,
) -> None:
    """Write the numbers of a report as CSV beside it; those of strange slides where they were looked at."""
    measures = rows_of(evaluations, run.record)
    if strange is not None and strange.area is not None:
        measures.append(_area_row(strange))
    _write(run.folder / "measures.csv", measures)
    _write(run.folder / "sets.csv", set_table(promises, run), SET_COLUMNS)
    if strange is not None and not strange.missing:
        _write(run.folder / "familiarity.csv", seen_table(strange), SEEN_COLUMNS)
    _write(
        run.folder / "calibration.csv",
        [
            {
                "what": in_words(found.reading, run.record),
                "state": state,
                "error": curve.error,
                "probability": probability,
                "right": right,
                "slides": int(slides),
            }
            for found in evaluations
            for state, curve in (("as trained", found.before), ("calibrated", found.after))
            for probability, right, slides in zip(curve.probability, curve.right, curve.slides, strict=True)
            if slides
        ],
    )
    _write(
        run.folder / "risk_coverage.csv",
        [
            {"what": in_words(found.reading, run.record), "threshold": t, "coverage": c, "risk": r}
            for found in evaluations
            for t, c, r in zip(found.risk.threshold, found.risk.coverage, found.risk.risk, strict=True)
        ],
    )
    _write(
        run.folder / "failed.csv",
        [
            {
                "case": m.case,
                "fold": m.fold + 1,
                "true": m.true,
                "said": m.predicted,
                "confidence": m.confidence,
                "withheld": {True: "yes", False: "no", None: ""}[m.withheld],
            }
            for m in misses
        ],
        ("case", "fold", "true", "said", "confidence", "withheld"),
    )


def _area_row(strange: StrangeSlides) -> dict[str, object]:
    known = [one for one in strange.seen if np.isfinite(one.familiarity)]
    return {
        "what": "familiarity",
        "over": "strange against judged slides",
        "measure": "AUROC",
        **({} if strange.area is None else asdict(strange.area)),
        "slides": len(known),
        "cases": len({(one.group, one.case or one.slide) for one in known}),
    }


def _write(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    with whole_file(path) as scratch:
        write_records(scratch, columns or rows[0], rows)
