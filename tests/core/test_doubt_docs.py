"""What docs/doubt.md names exists: keys of result.json, columns of scores.csv, options, settings."""

from __future__ import annotations

import csv
import inspect
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.cohort.run import score_cohort_steps
from napari_her2.cohort.table import write_score_table
from napari_her2.export.tables import write_result
from napari_her2.inference.options import ScoringOptions
from napari_her2.models.answer_sets import threshold
from scored import make_result, with_doubt

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "doubt.md").read_text(encoding="utf-8")


def named_in(table: str) -> list[str]:
    """Names in the first column of the table that begins with a line of columns."""
    lines = GUIDE.split(f"| {table} | what it holds |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    return [name for line in lines for name in re.findall(r"`([^`]+)`", line.split("|")[1])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    write_result(with_doubt(make_result(), "in part", classes=("1+", "2+")), out)
    return out


def test_every_key_that_is_documented_is_in_a_result_and_the_reverse(folder):
    values = json.loads((folder / "case-1" / "result.json").read_text("utf-8"))
    documented = named_in("key")
    assert set(documented) <= values.keys()
    from napari_her2.export.doubt import doubt_values, slide_doubt_values

    result = with_doubt(make_result())
    assert doubt_values(result).keys() <= set(documented)
    assert all(f"`{name}`" in GUIDE for name in slide_doubt_values(result.slides[0]))


def test_every_column_that_is_documented_is_in_the_table(folder):
    with write_score_table(folder, []).open(encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    for name in named_in("column"):
        assert any(column == name or (name == "P(...)" and column.startswith("P(")) for column in columns), (
            name
        )


def test_every_option_that_is_documented_is_one():
    told = CliRunner().invoke(app, ["score", "--help"], env={"COLUMNS": "200"}).stdout
    asked = GUIDE.split("## Changing what is asked")[1].split("## For a researcher")[0]
    options = set(re.findall(r"`(--[a-z-]+)", asked))
    assert {"--coverage", "--min-familiarity", "--show-withheld", "--sort"} <= options
    assert all(option in told for option in options)
    keywords = set(re.findall(r"`(\w+)=", asked))
    known = {*ScoringOptions.__dataclass_fields__, *inspect.signature(score_cohort_steps).parameters}
    assert keywords <= known
    manifest = (ROOT / "src" / "napari_her2" / "napari.yaml").read_text("utf-8")
    dock = "".join(path.read_text("utf-8") for path in (ROOT / "src/napari_her2/_qt/scoring").glob("*.py"))
    titles = re.findall(r"\*([A-Z][^*]+)\*", asked.replace("napari, *Preferences", "napari, "))
    assert len(titles) >= 5
    assert [title for title in titles if title not in manifest + dock] == []


def test_every_command_that_is_shown_has_the_options_that_are_shown():
    shown = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.S) for line in block.splitlines()]
    assert len(shown) >= 3
    for line in shown:
        program, command, *_ = line.split()
        assert program == "napari-her2"
        told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert told.exit_code == 0, line
        for option in re.findall(r"--[a-z-]+", line.split("#")[0]):
            assert option in told.stdout, (line, option)


def test_so_many_cases_of_calibration_are_needed():
    said = re.search(r"at least ((?:\d+ for \d+ %(?:, )?)+)", GUIDE)
    assert said is not None
    pairs = re.findall(r"(\d+) for (\d+) %", said[1])
    assert len(pairs) == 4
    for cases, percent in pairs:
        scores = [0.5] * int(cases)
        assert threshold(scores, int(percent) / 100) is not None
        assert threshold(scores[1:], int(percent) / 100) is None


def test_the_guide_is_found_from_the_first_page_and_from_the_models():
    assert "docs/doubt.md" in (ROOT / "README.md").read_text("utf-8")
    assert "doubt.md" in (ROOT / "docs" / "models.md").read_text("utf-8")


def test_other_pages_that_the_guide_names_are_there():
    for target in re.findall(r"\]\(([\w.]+\.md)\)", GUIDE):
        assert (ROOT / "docs" / target).is_file(), target
