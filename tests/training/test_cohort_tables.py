"""Tables of the user's own as tables of cases: columns guessed and shown, labels never guessed."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cohort_folders import touch, workbook
from napari_her2.cli import app
from napari_her2.errors import JobFailed
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.cohort_sources.columns import read_columns
from napari_her2_training.cohort_sources.options import ImportOptions
from napari_her2_training.cohort_sources.own_table import find_own
from napari_her2_training.cohort_sources.scores import NoScore, read_map, read_score
from napari_her2_training.cohort_sources.slide_names import SlideIndex, key_of
from napari_her2_training.cohort_sources.writing import write_manifest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "score"),
    [
        *((name, f"{name}+" if name != "0" else "0") for name in "0123"),
        ("2.0", "2+"), ("3,0", "3+"), ("1+", "1+"), ("2+ (equivocal)", "2+"), ("HER2 2+", "2+"),
        ("Score 3+", "3+"), ("HER-2/neu: 1+", "1+"), ("IHC score 0", "0"), ("0 (negative)", "0"),
        ("+++", "3+"), ("++", "2+"), ("3 +", "3+"), ("", ""), ("n/a", ""), ("NaN", ""),
        ("[Not Available]", ""),
    ],
)  # fmt: skip
def test_scores_are_read_as_people_write_them(text: str, score: str) -> None:
    assert read_score(text) == score
    assert read_score(text.upper()) == score


@pytest.mark.parametrize(
    "text",
    [
        "negative",
        "Positive",
        "equivocal",
        "low",
        "4",
        "-1",
        "1-2+",
        "2+/3+",
        "0+",
        "+",
        "10%",
        "2++",
        "1.5",
        "2024",
    ],
)
def test_what_is_no_score_is_refused_and_can_be_mapped(text: str) -> None:
    with pytest.raises(NoScore, match="no score of 0"):
        read_score(text)
    assert read_score(text, read_map([f"{text}=2"])) == "2+"
    assert read_score(text, read_map([f"{text}="])) == ""


@given(st.text(max_size=12))
def test_no_text_becomes_a_score_without_its_digit(text: str) -> None:
    try:
        score = read_score(text)
    except NoScore:
        return
    assert score == "" or score[0] in text or "++" in text


def test_a_map_that_contradicts_itself_is_refused() -> None:
    for items in (["negative"], ["=1"], ["a=9"], ["a=0", "A=1"]):
        with pytest.raises(JobFailed):
            read_map(items)
    with pytest.raises(JobFailed, match="fields are case_id"):
        read_columns(["slide=X"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7", "007.svs"), ("Case 7", "case_007_HE.svs"), ("7", "7-HER2.svs"), ("P-12/3", "p12_03_ihc.tif"),
        ("B2023-0041", "b2023-41 H&E.ndpi"), ("7", "Slide7.mrxs"),
    ],
)  # fmt: skip
def test_names_of_one_case_have_one_key(one: str, other: str) -> None:
    assert key_of(one) == key_of(other.rpartition(".")[0])


def test_names_of_different_cases_have_different_keys() -> None:
    names = ["7", "70", "7-1", "7b", "17", "B7", "2023-7"]
    assert len({key_of(name) for name in names}) == len(names)


def own(
    tmp_path: Path,
    rows: list[list[object]],
    *,
    columns: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    **more: object,
):
    return find_own(
        workbook(tmp_path / "cases.xlsx", rows),
        ImportOptions(read_columns(columns), read_map(labels)),
        **more,
    )


def test_slides_are_found_through_case_zeros_subfolders_endings_and_stains(tmp_path: Path) -> None:
    touch(tmp_path, "he/Case_007_HE.SVS", "ihc/7-HER2.ndpi", "sub/deep/008.mrxs", "009_her2.tiff", "left.svs")
    found = own(tmp_path, [["Patient ID", "HER2"], [7, "2+"], [8, 3], [9, "HER2 1+"], [10, 0]])
    assert [
        (row.case_id, row.he and row.he.name, row.ihc and row.ihc.name, row.score) for row in found.rows
    ] == [
        ("7", "Case_007_HE.SVS", "7-HER2.ndpi", "2+"),
        ("8", "008.mrxs", None, "3+"),
        ("9", None, "009_her2.tiff", "1+"),
    ]
    assert [text for text in found.missing if "Row 5" in text and "case 10" in text]
    assert any("left.svs" in note for note in found.notes)
    assert found.guessed


def test_two_slides_that_could_be_meant_are_named_and_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a/7.svs", "b/7.svs", "8.svs")
    rows = [["case", "score"], [7, 1], [8, 2]]
    found = own(tmp_path, rows)
    assert [row.case_id for row in found.rows] == ["8"]
    assert found.doubled == (
        "Row 2, case 7: 2 slides could be its H&E slide, a/7.svs and b/7.svs: take one out, or name it with "
        "its folder in the table.",
    )
    found = own(tmp_path, [["case", "slide", "score"], [7, "b/7.svs", 1], [8, "8", 2]])
    assert [row.he for row in found.rows] == [tmp_path / "b" / "7.svs", tmp_path / "8.svs"]


def test_a_label_that_is_no_score_refuses_all_until_it_is_mapped(tmp_path: Path) -> None:
    touch(tmp_path, "1.svs", "2.svs", "3.svs")
    rows = [["case", "HER2 status"], [1, "negative"], [2, "positive"], [3, "unclear"]]
    found = own(tmp_path, rows)
    assert [fault[:6] for fault in found.faults] == ["Row 2:", "Row 3:", "Row 4:"]
    assert '--map "negative=0"' in found.faults[0]
    with pytest.raises(JobFailed, match="Nothing is written"):
        write_manifest(found, tmp_path / "m.csv")
    found = own(tmp_path, rows, labels=("Negative=0", "positive=3+", "unclear="))
    assert [(row.case_id, row.score) for row in found.written] == [("1", "0"), ("2", "3+")]
    assert any("without a score left out: 3" in note for note in found.notes)


def test_two_labels_for_a_case_name_both_rows(tmp_path: Path) -> None:
    touch(tmp_path, "7a.svs", "7b.svs")
    rows = [["case", "slide", "score"], [7, "7a.svs", 2], [7, "7b.svs", "3+"]]
    assert own(tmp_path, rows).faults == (
        "Row 3: case 7 has score 3+, and 2+ in row 2: check which is right.",
    )


def test_titles_and_footnotes_are_no_cases_and_merged_cells_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "1.svs", "2.svs", "3.svs")
    rows = [["Cohort of 2023"], [], ["Case No.", "Score"], [1, 0], [2, 1], [3, 2], [], ["* by two readers"]]
    found = own(tmp_path, rows)
    assert [row.case_id for row in found.rows] == ["1", "2", "3"]
    assert any(note.startswith("Row 8 holds") and "footnote" in note for note in found.notes)
    rows[4] = ["a heading within"]
    assert any("Row 5 holds" in fault for fault in own(tmp_path, rows).faults)
    path = workbook(
        tmp_path / "merged.xlsx", [["Case", "Score"], [1], [2], [3, 2]], merged=[(1, 1, 2, 1, "1+")]
    )
    assert find_own(path, ImportOptions()).faults == (
        "Rows 2 to 3: cells of Score are merged into one: unmerge them, and fill each.",
    )


def test_the_column_with_scores_is_taken_before_the_one_with_a_status(tmp_path: Path) -> None:
    touch(tmp_path, "1.svs", "2.svs")
    found = own(
        tmp_path, [["Patient ID", "HER2", "HER2 Expression"], [1, "Negative", "1+"], [2, "Positive", "3+"]]
    )
    assert found.columns.of("score").name == "HER2 Expression"
    found = own(tmp_path, [["id", "ihc", "her2"], [1, "1.svs", 2], [2, "2.svs", 0]])
    assert [(row.ihc.name, row.score) for row in found.rows] == [("1.svs", "2+"), ("2.svs", "0")]


def test_columns_can_be_given_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.svs")
    rows = [["Nummer", "Befund", "Schnitt"], ["A", 2, "1.svs"]]
    with pytest.raises(JobFailed, match="no column that is called like"):
        own(tmp_path, rows)
    found = own(tmp_path, rows, columns=("case_id=Nummer", "score=befund", "he=Schnitt"))
    assert [(row.case_id, row.score, row.he.name) for row in found.rows] == [("A", "2+", "1.svs")]
    assert not found.guessed
    with pytest.raises(JobFailed, match="no column 'Case'"):
        own(tmp_path, rows, columns=("case_id=Case",))


def test_what_is_written_is_a_manifest_with_splits_and_scale(tmp_path: Path) -> None:
    touch(tmp_path / "slides", "1.png", "2.png", "3.png")
    rows = [
        ["case", "score", "fish", "set", "mpp"],
        [1, 0, "", "training", 0.5],
        [2, 2, "amplified", "val", "0,5"],
        [3, 3, "?", "Test", 0.5],
    ]
    found = own(tmp_path, rows, slides=tmp_path / "slides")
    out = write_manifest(found, tmp_path / "out" / "manifest.csv")
    cases = read_manifest(out)
    assert [(case.score, case.ish, case.split, case.mpp) for case in cases] == [
        ("0", "", "train", 0.5), ("2+", "positive", "validation", 0.5), ("3+", "", "test", 0.5),
    ]  # fmt: skip
    assert cases[0].he.resolve() == tmp_path / "slides" / "1.png"


def test_train_and_test_alone_leave_validation_to_the_configuration(tmp_path: Path) -> None:
    touch(tmp_path, "1.svs", "2.svs")
    found = own(tmp_path, [["case", "score", "split"], [1, 0, "train"], [2, 1, "test"]])
    assert [row.split for row in found.rows] == ["", "test"]
    assert any("no validation cases" in note for note in found.notes)


def test_a_path_that_a_spreadsheet_would_run_is_found_again(tmp_path: Path) -> None:
    touch(tmp_path, "=1+1.svs", "-2_he.svs")
    found = own(tmp_path, [["case", "slide", "score"], ["a", "=1+1.svs", 1], ["b", "-2_he.svs", 2]])
    out = write_manifest(found, tmp_path / "manifest.csv")
    assert [row["he"][0] for row in csv.DictReader(out.read_text().splitlines())] == [".", "."]
    assert [case.he.name for case in read_manifest(out)] == ["=1+1.svs", "-2_he.svs"]


def test_semicolons_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "1.svs")
    (tmp_path / "t.csv").write_text("Case;Immunohistochemistry\n1;2\n", encoding="utf-8-sig")
    (row,) = find_own(tmp_path / "t.csv", ImportOptions()).rows
    assert (row.case_id, row.score) == ("1", "2+")


def test_the_command_writes_guesses_only_when_told(tmp_path: Path) -> None:
    touch(tmp_path, "1.svs", "2.svs")
    table = workbook(tmp_path / "cases.xlsx", [["Patient", "HER2 score"], [1, 0], [2, 3]])
    out = tmp_path / "manifest.csv"
    run = CliRunner()
    asked = run.invoke(app, ["cohort", "from-table", str(table), "--out", str(out)])
    assert asked.exit_code == 1
    assert not out.exists()
    assert "guessed" in asked.output
    assert "--yes" in asked.output
    assert run.invoke(app, ["cohort", "from-table", str(table), "--out", str(out), "--yes"]).exit_code == 0
    assert len(read_manifest(out)) == 2
    again = run.invoke(app, ["cohort", "from-table", str(table), "--out", str(out), "--yes"])
    assert (again.exit_code, "--force" in again.output) == (1, True)
    named = ["--column", "case_id=Patient", "--column", "score=HER2 score", "--force"]
    assert run.invoke(app, ["cohort", "from-table", str(table), "--out", str(out), *named]).exit_code == 0


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="cannot be read"):
        SlideIndex(tmp_path / "none")
