"""The report of a finished run: one page, and the tables behind it.

``OUT/report.html`` stands alone (its pictures are part of it); ``OUT/measures.csv``, ``OUT/calibration.csv``,
``OUT/risk_coverage.csv``, ``OUT/sets.csv`` and ``OUT/failed.csv`` hold its numbers, ``OUT/familiarity.csv``
those of strange slides that the model was shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.models.bundle_card import read_card
from napari_her2.models.card import NOTICE
from napari_her2.models.case_slides import EACH
from napari_her2.models.case_slides import in_words as in_words_of_cases
from napari_her2.models.familiarity import LEAST_FAMILIARITY
from napari_her2.models.weights_header import read_header
from napari_her2.outside import expanded
from napari_her2.steps import Progress
from napari_her2.training_runs.files import REPORT_FILE
from napari_her2_training.config_sections import CaseSlidesConfig
from napari_her2_training.reporting.cases import misses_of, picture_steps
from napari_her2_training.reporting.curves import draw_learning
from napari_her2_training.reporting.evaluation import evaluate, in_words, read_run
from napari_her2_training.reporting.html import write_page
from napari_her2_training.reporting.plots import (
    draw_confusion,
    draw_familiarity,
    draw_precision_recall,
    draw_promises,
    draw_reliability,
    draw_risk,
    draw_roc,
)
from napari_her2_training.reporting.sets import judge_promises, kept_sets
from napari_her2_training.reporting.sets_page import promise_points, set_blocks, sets_in_words
from napari_her2_training.reporting.slides import looked_at, rows_by_case, rows_judged, scale_steps
from napari_her2_training.reporting.strange import (
    JUDGED,
    STRANGE,
    slides_in,
    strange_in_words,
    strange_steps,
)
from napari_her2_training.reporting.tables import write_tables

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.models.card import ModelCard
    from napari_her2_training.config_sections import MeasureConfig
    from napari_her2_training.measures.arms import Measure, Measured
    from napari_her2_training.reporting.cases import Miss
    from napari_her2_training.reporting.evaluation import Evaluation, FinishedRun
    from napari_her2_training.reporting.sets import JudgedPromises
    from napari_her2_training.reporting.strange import StrangeSlides

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
    folder: Path, *, cases: int = FAILED_SHOWN, device: str = "auto", strange: Path | None = None
) -> Generator[Progress, None, Path]:
    """Write the report of a finished run.

    Parameters
    ----------
    folder : Path
    cases : int
        So many failed cases are shown with their maps, for which their slides are scored again; the others
        are listed.
    device : str
    strange : Path, optional
        Folder of slides that the model was not made for; it is measured whether the model notices.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    JobFailed
        If the folder holds no finished run, or that of the strange slides no slide.
    """
    run = read_run(folder)
    strangers = () if strange is None else slides_in(expanded(strange))
    evaluations = []
    for reading in run.readings:
        yield Progress("Measuring", note=in_words(reading, run.record))
        evaluations.append(evaluate(run, reading))
    card = read_card(run.folder / run.record["model"]) if run.record["bundle"] == "written" else None
    promises = judge_promises(run, card, (yield from _scales(run)), kept_sets(run))
    seen = (yield from strange_steps(run, strangers, device=device)) if strangers else None
    misses = yield from picture_steps(run, misses_of(run), most=cases, device=device)
    yield Progress("Writing the report")
    write_tables(run, evaluations, misses, promises, seen)
    content = {**_content(run, card, evaluations, misses), **_promised(run, promises), **_strange(run, seen)}
    return write_page(run.folder / REPORT_FILE, "report", content)


def _scales(run: FinishedRun) -> Generator[Progress, None, dict[str, list[str]]]:
    """Scale of every test slide, by reading: of two slides, of the first, or of the one of the head."""
    cases, paths = rows_by_case(run), {}
    given: dict[Path, float] = {}
    for reading in run.readings:
        judged = run.of("test", reading)
        rows = rows_judged(run, next(iter(judged.values())), cases, reading) if judged else []
        paths[reading] = [
            None if row is None else looked_at(row, run.record["stain"], reading) for row in rows
        ]
        given |= {
            path: mpp
            for row, path in zip(rows, paths[reading], strict=True)
            if row is not None and path is not None and (mpp := row.scale_of(path)) is not None
        }
    found = yield from scale_steps([path for of in paths.values() for path in of if path is not None], given)
    return {reading: [found.get(path, "") if path else "" for path in of] for reading, of in paths.items()}


def _promised(run: FinishedRun, promises: JudgedPromises) -> dict[str, Any]:
    return {
        "sets_words": sets_in_words(promises, run),
        "set_blocks": set_blocks(promises, run),
        "sets_plot": draw_promises(promise_points(promises, run)),
    }


def _strange(run: FinishedRun, seen: StrangeSlides | None) -> dict[str, Any]:
    if seen is None:
        return {"strange": None}
    usual, strange = seen.values(JUDGED), seen.values(STRANGE)
    drawn = draw_familiarity(usual, strange, LEAST_FAMILIARITY) if len(usual) and len(strange) else ""
    return {"strange": {"words": strange_in_words(seen, run), "slides": seen.of(STRANGE), "plot": drawn}}


def _content(
    run: FinishedRun, card: ModelCard | None, evaluations: Sequence[Evaluation], misses: Sequence[Miss]
) -> dict[str, Any]:
    record, main = run.record, evaluations[0]
    unit = record.get("unit", "slides")
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
        "pooled_words": "All folds together"
        if len(run.folds) > 1
        else f"The {run.judged} {run.record.get('unit', 'slides')}",
        "calibration_words": _calibration_words(run, main),
        "risk_words": _risk_words(main, threshold),
        "misses": misses,
        "named": run.named,
        "slides": f"{main.pooled.slides} {run.judged} {unit}",
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
    columns: dict[str, Measured] = {f"all {run.record.get('unit', 'slides')}": found.pooled}
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
    fitted = ", ".join(f"{value:.2f}" for value in main.temperatures.values())
    where = "" if run.judged == "test" else "; here the same slides are looked at, so the second is too good"
    return (
        f"Calibration: of the answers that are said to be right so often, how many are. Expected calibration "
        f"error {main.before.error:.3f} as trained, {main.after.error:.3f} calibrated (temperature {fitted}, "
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
    cases = CaseSlidesConfig(**(record.get("config") or {}).get("cases", {}))
    facts = [
        ("folder", run.folder.name),
        ("manifest", Path(record["data"]).name),
        ("model", record["model"]),
        ("trained weights", f"{record['parameters']:,}"),
        ("device", record["device"]),
        *(
            [("slides of a case", in_words_of_cases(cases.slides, cases.rule))]
            if cases.slides != EACH
            else ()
        ),
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
