"""Tables of any origin: what a spreadsheet shows is read, and what cannot be read is refused in words."""

from __future__ import annotations

import datetime
import io
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort_folders import touch, workbook
from napari_her2 import spreadsheets
from napari_her2.cohort.day_list import entries_of
from napari_her2.errors import JobFailed
from napari_her2.outside import Reading
from napari_her2.spreadsheets import Merged, read_sheet, read_table

if TYPE_CHECKING:
    from pathlib import Path

READING = Reading(limit=2**20, advice="save it anew")


@pytest.mark.parametrize("strict", [False, True])
def test_a_workbook_is_read_as_it_is_shown(tmp_path: Path, strict: bool) -> None:
    rows = [
        ["Case", "Score"],
        [7, 2.0],
        None or [],
        ["007", "1+"],
        [8, 2.5],
        [datetime.date(2024, 5, 31).isoformat(), True],
    ]
    path = workbook(
        tmp_path / "t.xlsx", rows, merged=[(6, 0, 7, 1, "x")], sheets=("Cases", "Notes"), strict=strict
    )
    sheet = read_sheet(path, READING)
    assert sheet.rows == (
        (1, ("Case", "Score")), (2, ("7", "2")), (4, ("007", "1+")), (5, ("8", "2.5")),
        (6, ("2024-05-31", "yes")), (7, ("x", "")),
    )  # fmt: skip
    assert sheet.merged == (Merged(7, 8, 0, 1),)
    assert (sheet.title, sheet.others) == ("Cases", ("Notes",))
    assert read_sheet(path, READING, sheet="Notes").rows == ((1, ("a note",)),)
    with pytest.raises(JobFailed, match="no sheet 'Other', only Cases, Notes"):
        read_sheet(path, READING, sheet="Other")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_tables_are_read_with_their_own_separator_and_mark(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    path = tmp_path / "t.csv"
    lines = [["Fall", "Präparat"], ["7", f'"a{separator}b"'], ["", ""], ["8", "c"]]
    path.write_text("\n".join(separator.join(line) for line in lines), encoding=encoding)
    assert read_sheet(path, READING).rows == (
        (1, ("Fall", "Präparat")), (2, ("7", f"a{separator}b")), (4, ("8", "c"))
    )  # fmt: skip


def test_what_is_no_table_is_refused_in_words(tmp_path: Path) -> None:
    good = workbook(tmp_path / "good.xlsx", [["a", "b"], [1, 2]]).read_bytes()
    for name, data in {
        "text.xlsx": b"no workbook",
        "cut.xlsx": good[: len(good) // 2],
        "empty.xlsx": b"",
        "old.xls": b"\xd0\xcf\x11\xe0",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(JobFailed, match="save it anew"):
            read_sheet(tmp_path / name, READING)


def test_a_cell_far_away_is_refused_before_room_is_made_for_it(tmp_path: Path) -> None:
    path = workbook(tmp_path / "far.xlsx", [["a", "b"], [1, 2]])
    data = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(data, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if "worksheets" in name:
                text = text.replace(
                    b"</sheetData>", b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
                )
            new.writestr(name, text)
    path.write_bytes(data.getvalue())
    with pytest.raises(JobFailed, match="row 1,048,576, column 16,384"):
        read_sheet(path, READING)


def test_a_workbook_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workbook(tmp_path / "t.xlsx", [["a", "b"], [1, 2]])
    monkeypatch.setattr(spreadsheets, "_MAX_UNPACKED", 2000)
    with pytest.raises(JobFailed, match="unpacks to more"):
        read_sheet(path, READING)


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 5000), byte=st.integers(0, 255))
def test_a_damaged_workbook_never_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "t.xlsx"
    data = bytearray(workbook(path, [["case", "score"], [1, "2+"], [2, "3+"]]).read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(data)
    with suppress(JobFailed):
        read_sheet(path, READING)


def test_columns_are_those_of_the_first_row(tmp_path: Path) -> None:
    table = read_table(workbook(tmp_path / "t.xlsx", [["a", "b"], [1, None], [None, 3]]), READING)
    assert table.columns == ("a", "b")
    assert table.rows == ((2, {"a": "1", "b": ""}), (3, {"a": "", "b": "3"}))
    with pytest.raises(JobFailed, match="column a twice"):
        read_table(workbook(tmp_path / "t.xlsx", [["a", "a"], [1, 2]]), READING)


@pytest.mark.parametrize("strict", [False, True])
def test_a_workbook_is_a_days_list(tmp_path: Path, strict: bool) -> None:
    touch(tmp_path, "a.svs", "b.svs", "c.svs")
    rows = [
        ["case_id", "he", "ihc", "mpp"],
        [1, "a.svs", "b.svs", 0.25],
        [2, "c.svs", None, None],
        [3, "gone.svs"],
    ]
    one, two, three = entries_of(workbook(tmp_path / "day.xlsx", rows, strict=strict)).entries
    assert (one.name, one.he, one.ihc, one.mpp) == ("1", tmp_path / "a.svs", tmp_path / "b.svs", 0.25)
    assert (two.name, two.ihc, two.problem) == ("2", None, "")
    assert "gone.svs" in three.problem
