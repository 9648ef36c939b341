"""Text from outside stays text in every table, numbers stay numbers, and our tables come back as given."""

from __future__ import annotations

import ast
import csv
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import napari_her2
import napari_her2_training
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.cohort.table import write_score_table
from napari_her2.errors import JobFailed
from napari_her2.export.csv_cells import as_given, defused, read_table, write_table
from napari_her2.export.tables import write_result
from napari_her2_training.measures.predictions import Part, Predictions, read_predictions, write_predictions
from scored import make_result

FORMULAS = (
    "=HYPERLINK(A1).svs",
    "+1+2",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "  =1+1",
    "'=1+1",
    "\uff1d1+1",
    "-a.svs",
)


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_would_run_begins_with_a_mark(text):
    cell = defused(text)
    assert cell == f"'{text}"
    assert as_given(cell) == text


@pytest.mark.parametrize(
    "number", [-1, -0.5, np.float32(-2.5), "-0.25", "-3", "+4", "-1.5e-07", "nan", "-inf", None]
)
def test_numbers_stay_numbers(number):
    assert defused(number) is number


@pytest.mark.parametrize("text", ["case-7", "2+ (equivocal)", "", "1+", "it's", "'quoted'", "1.2.840"])
def test_other_text_stays_as_it_is(text):
    assert defused(text) == text
    assert as_given(text) == text


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\n")),
            min_size=2,
            max_size=4,
        ),
        min_size=1,
    )
)
def test_every_table_comes_back_as_given(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    write_table(path, rows[0], rows[1:])
    assert list(read_table(path)) == rows


def cells_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [cell for row in csv.reader(file) for cell in row]


def runs(cell):
    """Whether a spreadsheet program would run a cell."""
    try:
        float(cell)
    except ValueError:
        return cell.lstrip()[:1] in tuple("=+-@")
    return False


def test_names_of_files_and_classes_run_nothing_in_the_table_of_scores(tmp_path):
    result = make_result()
    slide = replace(result.slides[0], path=Path("/slides/=cmd|' -C calc'!A0.svs"))
    odd = replace(
        result, slides=(slide,), label="@label", task="+task", model="-model", warnings=("=warning()",)
    )
    write_result(odd, tmp_path)
    failed = SlideOutcome.failure(Path("-failed.svs"), JobFailed("=1+1"))
    cells = cells_of(write_score_table(tmp_path, [failed]))
    assert not [cell for cell in cells if runs(cell)]
    assert {"'=cmd|' -C calc'!A0.svs", "'@label", "'-failed.svs", "'=1+1"} <= set(cells)


def test_evidence_below_zero_is_a_number_in_the_table_of_tiles(tmp_path):
    result = make_result()
    folder = write_result(result, tmp_path)
    with (folder / "tiles.csv").open(newline="", encoding="utf-8") as file:
        said = [float(row["evidence_logit_3+"]) for row in csv.DictReader(file)]
    assert min(said) < 0
    assert np.allclose(said, result.table.evidence[:, 3], rtol=1e-6)


def test_predictions_of_odd_cases_and_classes_come_back(tmp_path):
    cases, classes = ("=case", "-7", "@x"), ("-low", "=high")
    said = Predictions(cases, np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]), 1.5)
    write_predictions(tmp_path / "p.csv", {Part(0, "test"): said}, classes)
    assert not [cell for cell in cells_of(tmp_path / "p.csv") if runs(cell)]
    found, names = read_predictions(tmp_path / "p.csv")
    assert names == classes
    assert found[Part(0, "test")].cases == cases
    assert found[Part(0, "test")].labels.tolist() == [0, 1, 1]


def test_every_table_is_written_here():
    # The phantom's manifest holds names that the phantom gives, and its room is below that of exports.
    allowed = {"csv_cells.py", "phantom/cohort.py"}
    writers = set()
    for package in (napari_her2, napari_her2_training):
        root = Path(package.__file__).parent
        for path in root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in ("writer", "DictWriter", "to_csv"):
                    writers.add(path.relative_to(root).as_posix())
    assert {name for name in writers if not name.endswith(tuple(allowed))} == set()
