"""Sets of classes with a promise on the page of a report: tables, points of a figure, and words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_her2_training.measures.coverage import spread_by_calibration
from napari_her2_training.reporting.evaluation import in_words
from napari_her2_training.reporting.sets import ALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2_training.reporting.evaluation import FinishedRun
    from napari_her2_training.reporting.sets import JudgedPromises, SetRow


def set_blocks(found: JudgedPromises, run: FinishedRun) -> list[dict[str, Any]]:
    """Lay out the sets of the bundle: a table for each reading."""
    fold = int(run.record["fold"])
    blocks = []
    for reading in run.readings:
        rows = found.of(reading, fold)
        promises = list(dict.fromkeys(row.promise for row in rows))
        if promises:
            groups = dict.fromkeys((row.kind, row.group) for row in rows)
            blocks.append(
                {
                    "title": in_words(reading, run.record) if len(run.readings) > 1 else "",
                    "promises": [_percent(promise) for promise in promises],
                    "rows": [_laid_out(kind, group, rows, promises, run) for kind, group in groups],
                    "sizes": [_sizes(row, len(run.classes)) for row in rows if row.kind == ALL],
                }
            )
    return blocks


def _laid_out(
    kind: str, group: str, rows: Sequence[SetRow], promises: Sequence[float], run: FinishedRun
) -> dict[str, Any]:
    of_group = {row.promise: row for row in rows if (row.kind, row.group) == (kind, group)}
    any_row = next(iter(of_group.values()))
    return {
        "name": {ALL: "all slides", "class": run.named.get(group, group)}.get(kind, group),
        "slides": any_row.measured.slides,
        "calibrated_on": any_row.calibrated_on if kind != "scale" else "–",
        "cells": [_cell(of_group[promise]) for promise in promises],
    }


def promise_points(found: JudgedPromises, run: FinishedRun) -> dict[str, list[SetRow]]:
    """Return the rows that are drawn: of the reading of the bundle, for all slides and each class."""
    points: dict[str, list[SetRow]] = {}
    for row in found.of(run.reading, int(run.record["fold"])):
        if row.kind != "scale":
            name = "all slides" if row.kind == ALL else run.named.get(row.group, row.group)
            points.setdefault(name, []).append(row)
    return points


def _cell(row: SetRow) -> dict[str, str]:
    found = row.measured
    size_range = "" if found.size_low is None else f"{found.size_low:.2f} to {found.size_high:.2f}"
    shared = row.kind == "class" and not row.own
    return {
        "coverage": f"{found.coverage:.1%}{'*' if shared else ''}",
        "range": f"{found.low:.1%} to {found.high:.1%}",
        "size": f"{found.size:.2f}",
        "size_range": size_range,
    }


def _sizes(row: SetRow, classes: int) -> dict[str, str]:
    found = row.measured
    shares = {"one class": found.single, "two": found.double, "all of them": found.every}
    if classes == 2:
        del shares["two"]
    words = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return {"promise": _percent(row.promise), "words": words}


def sets_in_words(found: JudgedPromises, run: FinishedRun) -> str:
    """Say how the sets were made, and what they are worth; empty where there are none to speak of."""
    if run.judged != "test":
        return (
            "Sets are not judged: the cases that would make them are the only ones there are. Hold cases out "
            "([data] test in the configuration, or a column split in the manifest)."
        )
    fold = int(run.record["fold"])
    rows = [row for row in found.rows if row.fold == fold and row.kind == ALL]
    refused = " ".join(f"{words}." for words in found.refused)
    if not rows:
        return refused or "Sets cannot be made: the run kept no answers of validation slides."
    first = next((row for row in rows if row.reading == run.reading), rows[0])
    sentences = [
        f"The answer as a set of classes that holds the truth as often as was asked for, of cases like those "
        f"it was calibrated on: {found.sources[first.reading, fold]}. Judged on the test slides"
        f"{f' by the model of fold {fold + 1}, that of the bundle' if len(run.folds) > 1 else ''}.",
        "A set is a run of neighbouring classes." if found.ordered else "",
        _spread_in_words(first, [row for row in found.rows if row.fold == fold and row.own]),
        "* Too few calibration cases of this class for a promise of its own: it shares the threshold of all."
        if any(not row.own for row in found.rows if row.kind == "class" and row.fold == fold)
        else "",
        "More is held than was asked for where the most probable class alone is right more often."
        if any(row.measured.low > row.promise for row in rows)
        else "",
        refused,
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _spread_in_words(first: SetRow, rows: Sequence[SetRow]) -> str:
    """Say how far coverage may lie from the promise by the draw of the calibration cases alone."""
    spread = spread_by_calibration(first.calibrated_on, first.promise)
    words = f"Which cases happened to calibrate moves the coverage by about ± {spread:.1%}"
    like = (first.reading, first.promise, "class")
    of_class = [row for row in rows if (row.reading, row.promise, row.kind) == like]
    if of_class:
        least = min(of_class, key=lambda row: row.calibrated_on)
        own = spread_by_calibration(least.calibrated_on, least.promise)
        words += f", that of a class with {least.calibrated_on} of them by ± {own:.1%}"
    return f"{words} ({_percent(first.promise)}, standard deviation)."


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
