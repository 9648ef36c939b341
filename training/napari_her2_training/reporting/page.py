"""The report of a finished run: one page, and the tables behind it.

``OUT/report.html`` stands alone (its pictures are part of it); ``OUT/measures.csv``, ``OUT/calibration.csv``,
``OUT/risk_coverage.csv`` and ``OUT/failed.csv`` hold its numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.export.csv_cells import write_records
from napari_her2.inference.result import Progress
from napari_her2.models.bundle_card import read_card
from napari_her2.models.card import NOTICE
from napari_her2.models.weights_header import read_header
from napari_her2.training_runs.files import REPORT_FILE
from napari_her2.whole_files import whole_file
from napari_her2_training.reporting.cases import misses_of, picture_steps
from napari_her2_training.reporting.curves import draw_learning
from napari_her2_training.reporting.evaluation import evaluate, in_words, read_run, rows_of
from napari_her2_training.reporting.html import write_page
from napari_her2_training.reporting.plots import (
    draw_confusion,
    draw_precision_recall,
    draw_reliability,
    draw_risk,
    draw_roc,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_her2_training.config import MeasureConfig
    from napari_her2_training.measures.arms import Measure, Measured
    from napari_her2_training.reporting.cases import Miss
    from napari_her2_training.reporting.evaluation import Evaluation, FinishedRun

FAILED_SHOWN = 12
LISTED = 60
"""Of more failed cases than these the page says how many there are; failed.csv has them all."""
_FIRST = ("macro AUC", "macro PR-AUC", "balanced accuracy", "accuracy", "macro F1", "MCC", "quadratic kappa")


_BY_CLASS = ("AUC", "PR-AUC", "F1", "recall")
FEW = 30
"""Judged on fewer cases, a report warns of its intervals."""
_DOUBT = 0.05
"""Share of doubt that the limit of cases that may be wrong leaves."""


def report_steps(
    folder: Path, *, cases: int = FAILED_SHOWN, device: str = "auto"
) -> Generator[Progress, None, Path]:
    """Write the report of a finished run.

    Parameters
    ----------
    folder : Path
    cases : int
        So many failed cases are shown with their maps, for which their slides are scored again; the others
        are listed.
    device : str

    Returns
    -------
    Path
        The page.

    Raises
    ------
    JobFailed
        If the folder holds no finished run.
    """
    run = read_run(folder)
    evaluations = []
    for reading in run.readings:
        yield Progress("Measuring", note=in_words(reading, run.record))
        evaluations.append(evaluate(run, reading))
    misses = yield from picture_steps(run, misses_of(run), most=cases, device=device)
    yield Progress("Writing the report")
    _write_tables(run, evaluations, misses)
    return write_page(run.folder / REPORT_FILE, "report", _content(run, evaluations, misses))


def _content(run: FinishedRun, evaluations: Sequence[Evaluation], misses: Sequence[Miss]) -> dict[str, Any]:
    record, main = run.record, evaluations[0]
    card = read_card(run.folder / record["model"]) if record["bundle"] == "written" else None
    threshold = card.min_confidence if card else None
    return {
        "name": record["model"],
        "task": card.task if card else "",
        "method": record["method"],
        "stain": record["stain"],
        "notice": card.notice if card else NOTICE,
        "cases": record["cases"],
        "folds": len(run.folds),
        "mapping": record["mapping"],
        "judged_words": _judged_words(run),
        "blocks": [_block(found, run) for found in evaluations],
        "interval_words": _interval_words(run),
        "published": _published(run, main),
        "plots": _plots(run, main, threshold),
        "pooled_words": "All folds together" if len(run.folds) > 1 else f"The {run.judged} slides",
        "calibration_words": _calibration_words(run, main),
        "risk_words": _risk_words(main, threshold),
        "misses": misses,
        "named": run.named,
        "slides": f"{main.pooled.slides} {run.judged} {record.get('unit', 'slides')}",
        "listed": LISTED,
        "facts": _facts(run),
        "config": json.dumps(record["config"], indent=1, ensure_ascii=False) if record.get("config") else "",
    }


def _judged_words(run: FinishedRun) -> str:
    if run.judged == "test":
        return "Measured on the cases held out: none was learnt from, and none chose the epoch."
    return (
        "There are no cases held out, so it is measured on those that chose the epoch: the numbers are "
        "somewhat too good."
    )


def _block(found: Evaluation, run: FinishedRun) -> dict[str, Any]:
    """Lay out the measures of one reading: a column for each fold, their mean, and all together."""
    columns: dict[str, Measured] = {"all slides": found.pooled}
    if len(found.folds) > 1:
        columns = {f"fold {fold + 1}": measured for fold, measured in found.folds.items()}
        columns |= {"mean": found.mean, "pooled": found.pooled}
    every = dict.fromkeys(name for measured in columns.values() for name in measured.measures)
    names = [*(name for name in _FIRST if name in every), *(name for name in every if name not in _FIRST)]
    shown = {f"{what} {name}": f"{what} {named}" for what in _BY_CLASS for name, named in run.named.items()}
    return {
        "title": in_words(found.reading, run.record) if len(run.readings) > 1 else "",
        "columns": list(columns),
        "rows": [
            {
                "name": shown.get(name, name),
                "cells": [cell(measured.measures.get(name)) for measured in columns.values()],
            }
            for name in names
        ],
    }


def cell(measure: Measure | None) -> dict[str, str]:
    """Lay out a measure: its value, and its interval."""
    if measure is None:
        return {"value": "–", "range": ""}
    text = f"{measure.value:.3f}"
    if measure.sd is not None:
        text += f" ± {measure.sd:.3f}"
    interval = "" if measure.low is None else f"{measure.low:.3f} to {measure.high:.3f}"
    return {"value": text, "range": interval}


def _interval_words(run: FinishedRun) -> str:
    cases = len({case for given in run.of(run.judged).values() for case in given.cases})
    words = interval_words(run.settings(), cases, several=len(run.folds) > 1)
    if len(run.folds) > 1 and run.settings().resamples:
        words += " Pooled: of slides that several folds judged, the mean of their logits."
    return words


def interval_words(settings: MeasureConfig, cases: int, *, several: bool = False) -> str:
    """Say how intervals were made, and how far they are to be believed.

    Parameters
    ----------
    settings : MeasureConfig
    cases : int
        That were judged.
    several : bool, default False
        Whether there are several folds.
    """
    folds = " ± is the standard deviation over the folds."
    # Of cases that were all judged rightly every resample is right too: the bootstrap then sees no doubt.
    few = (
        f" {cases} cases are few: such intervals are too narrow. Even with none of them wrong, as many as "
        f"{1 - _DOUBT ** (1 / cases):.0%} of all cases may be (one-sided 95 % limit, Clopper and Pearson)."
    )
    words = (
        f"In grey the {settings.confidence:.0%} percentile interval of {settings.resamples:,} bootstrap "
        f"samples of whole cases.{folds if several else ''}"
        if settings.resamples
        else "No intervals were asked for."
    )
    return words + (few if cases < FEW else "")


def _published(run: FinishedRun, main: Evaluation) -> list[dict[str, str]]:
    over = main.mean if len(run.folds) > 1 else main.pooled
    rows = []
    for entry in run.record.get("published", ()):
        here = over.measures.get(entry["measure"])
        own = "not measured" if here is None else f"{here.value:.3f}"
        rows.append({**entry, "value": f"{entry['value']:.3f}", "here": own})
    return rows


def _plots(run: FinishedRun, main: Evaluation, threshold: float | None) -> dict[str, Any]:
    several = len(set(main.together.labels.tolist())) > 1
    named = tuple(run.named[name] for name in run.classes)
    return {
        "confusion": draw_confusion(main.pooled.confusion, named),
        "roc": draw_roc(main.together, named) if several else "",
        "precision_recall": draw_precision_recall(main.together, named) if several else "",
        "reliability": draw_reliability(main.before, main.after),
        "risk": draw_risk(main.risk, threshold),
        "curves": draw_learning(run.folder),
    }


def _calibration_words(run: FinishedRun, main: Evaluation) -> str:
    told = ", ".join(f"{value:.2f}" for value in main.temperatures.values())
    where = "" if run.judged == "test" else "; here the same slides are looked at, so the second is too good"
    return (
        f"Calibration: of the answers that are said to be right so often, how many are. Expected calibration "
        f"error {main.before.error:.3f} as trained, {main.after.error:.3f} calibrated (temperature {told}, "
        f"fitted on the validation slides{where})."
    )


def _risk_words(main: Evaluation, threshold: float | None) -> str:
    limit = (
        "The model withholds no more answers than the general limit asks for."
        if threshold is None
        else f"The model answers from {threshold:.0%} on."
    )
    return f"What withholding the least sure answers buys: mean risk {main.risk.area:.3f} (AURC). {limit}"


def _facts(run: FinishedRun) -> list[tuple[str, str]]:
    record = run.record
    facts = [
        ("folder", run.folder.name),
        ("manifest", Path(record["data"]).name),
        ("model", record["model"]),
        ("trained weights", f"{record['parameters']:,}"),
        ("device", record["device"]),
    ]
    if len(run.folds) > 1:
        facts.append(("fold of the bundle", f"{record['fold'] + 1}, the best by its validation cases"))
    if record["bundle"] != "written":
        facts.append(("bundle", record["bundle"]))
    else:
        metadata = read_header(run.folder / record["model"]).metadata
        facts.append(("card", f"{len(metadata['napari_her2']):,} characters, in the file of the model"))
    facts += [(name, str(value)) for name, value in record.get("versions", {}).items()]
    if digest := record.get("sha256"):
        facts.append(("SHA-256 of the model", digest))
    return facts


def _write_tables(run: FinishedRun, evaluations: Sequence[Evaluation], misses: Sequence[Miss]) -> None:
    _write(run.folder / "measures.csv", rows_of(evaluations, run.record))
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


def _write(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    with whole_file(path) as scratch:
        write_records(scratch, columns or rows[0], rows)
