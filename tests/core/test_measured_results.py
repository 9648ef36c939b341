"""A method that measures and gives no probabilities: its result in files, tables, facts and words."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from napari_her2.cohort.facts import scored_facts
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.cohort.table import write_score_table
from napari_her2.export.request import Request
from napari_her2.export.result_files import finished_result, is_of_result
from napari_her2.export.tables import result_values, write_result
from napari_her2.inference.assemble import score_label
from napari_her2.methods.catalogue import METHODS

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.inference.result import SlideResult

MEASURES = {
    "percentages": {"0": 10.0, "1+": 20.0, "2+": 30.0, "3+": math.nan},
    "cells": 1234,
    "membrane_staining": 90.0,
    "h_score": 123.4,
    "borderline": "",
    "calibration": "",
}


@pytest.fixture
def measured(scored: SlideResult, monkeypatch: pytest.MonkeyPatch) -> SlideResult:
    with_a_file(monkeypatch, scored, "cells.csv")
    return replace(scored, probabilities={}, uncertainty=None, measures=MEASURES)


def with_a_file(monkeypatch: pytest.MonkeyPatch, result: SlideResult, name: str) -> None:
    """Let the method of a result add a file."""

    def write(path: Path) -> None:
        path.write_text("cell\n1\n", encoding="utf-8")

    monkeypatch.setattr(type(METHODS[result.method]), "files", lambda self, scored: ((name, write),))


def test_there_is_no_confidence_without_probabilities(measured: SlideResult) -> None:
    assert math.isnan(measured.confidence)
    assert math.isnan(measured.margin)
    assert METHODS[measured.method].bars(measured).shares == {}


def test_measures_and_files_go_with_the_result(measured: SlideResult, tmp_path: Path) -> None:
    request = Request((measured.slide_sha256,), measured.model_sha256, {}, measured.version)
    folder = write_result(measured, tmp_path, request)
    told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert (told["confidence"], told["margin"], told["probabilities"]) == (None, None, {})
    assert told["percentages"] == {"0": 10.0, "1+": 20.0, "2+": 30.0, "3+": None}
    assert told["slides"][0]["files"] == ["cells.csv"]
    assert (folder / "cells.csv").read_text(encoding="utf-8") == "cell\n1\n"
    assert is_of_result(("cells.geojson",))
    assert finished_result(folder, request) is not None
    (folder / "cells.csv").unlink()
    assert finished_result(folder, request) is None


def test_a_measure_does_not_take_the_place_of_what_every_result_has(measured: SlideResult) -> None:
    with pytest.raises(ValueError, match="score"):
        result_values(replace(measured, measures={"score": "3+"}))


def test_a_file_of_another_name_is_not_written(
    measured: SlideResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_file(monkeypatch, measured, "result.json")
    with pytest.raises(ValueError, match=r"no file result\.json"):
        write_result(measured, tmp_path)


def test_measures_are_columns_of_the_table(
    measured: SlideResult, scored: SlideResult, tmp_path: Path
) -> None:
    write_result(measured, tmp_path)
    write_result(replace(scored, slides=(replace(scored.slides[0], name="other"),)), tmp_path)
    table = write_score_table(tmp_path, [SlideOutcome(tmp_path / "x.svs", "done", "x")])
    with table.open(encoding="utf-8-sig", newline="") as file:
        first, second = csv.DictReader(file)
    row, of_model = (first, second) if first["cells"] else (second, first)
    assert (row["cells 2+ (%)"], row["cells 3+ (%)"], row["cells"]) == ("30.00", "", "1234")
    assert (row["confidence"], row["margin"], row["P(2+)"]) == ("", "", "")
    assert (row["calibration"], row["H-score"]) == ("uncalibrated", "123.4")
    assert of_model["calibration"] == ""
    assert float(of_model["P(2+)"]) == pytest.approx(scored.probabilities["2+"], abs=1e-4)


def test_facts_say_nothing_of_probabilities_that_are_not_there(measured: SlideResult, tmp_path: Path) -> None:
    told = dict(scored_facts(measured, "tiffslide", tmp_path))
    assert "margin" not in told
    assert not [name for name in told if name.startswith("P(")]


def test_an_answer_without_a_score_says_why(tiny_bundle) -> None:
    assert score_label("2+", "", tiny_bundle.card) == ("2+ (equivocal, ISH required)", "")
    assert score_label("", "no tumour was drawn", tiny_bundle.card) == (
        "indeterminate: no tumour was drawn",
        "no tumour was drawn",
    )


def test_only_a_method_with_rules_judges_anew(measured: SlideResult) -> None:
    with pytest.raises(NotImplementedError):
        METHODS[measured.method].rejudged(measured, None, "")  # type: ignore[arg-type]
