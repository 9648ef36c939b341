"""The gain of a laboratory: worked out from controls, checked in words, kept by name."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import replace

import numpy as np
import pytest

from cells_by_hand import cells_by_hand, reading_by_hand
from napari_her2.cells.calibration import (
    LEAST_CELLS,
    REFERENCE_MASS,
    Calibration,
    ControlCells,
    checked_name,
    gain_from,
    judged_controls,
)
from napari_her2.cells.calibration_store import (
    calibration_folder,
    keep_calibration,
    kept_calibrations,
    load_calibration,
    remove_calibration,
)
from napari_her2.errors import CalibrationKept, JobFailed

ALL_STRONG = (0.0, 0.0, 0.0, 1.0)
ALL_NONE = (1.0, 0.0, 0.0, 0.0)


def control(level, n, shares, *, weaker=1.0, seed=0):
    reading = reading_by_hand(n, seed, shares=shares)
    return ControlCells(level, reading.completeness, reading.raw_mass * np.float32(weaker))


def calibration(name="Lab A", **changes):
    values = {
        "name": name,
        "gain": 1.25,
        "date": "2026-11-28",
        "slide": "control.svs",
        "slide_fingerprint": "ab" * 32,
        "cells": 812,
        "laboratory": "Pathology, Großhadern",
        "antibody": "4B5",
        "scanner": "AT2",
        "mpp": 0.2528,
        "version": "1",
    }
    gain, controls, remarks = judged_controls([control("3+", 300, ALL_STRONG), control("0", 200, ALL_NONE)])
    return Calibration(**(values | {"gain": gain, "controls": controls, "remarks": remarks} | changes))


# -- the gain


def test_the_gain_is_the_median_mass_of_the_complete_cells_over_the_reference():
    rng = np.random.default_rng(0)
    complete = rng.choice(np.arange(33) / 32, 400).astype(np.float32)
    mass = rng.uniform(0.1, 2, 400).astype(np.float32)
    chosen = sorted(float(m) for c, m in zip(complete, mass, strict=True) if c >= 0.65)
    middle = len(chosen) // 2
    median = chosen[middle] if len(chosen) % 2 else (chosen[middle - 1] + chosen[middle]) / 2
    assert gain_from(complete, mass) == pytest.approx(median / 0.70, rel=1e-6)
    assert REFERENCE_MASS == 0.70


def test_a_run_that_stains_half_as_strongly_has_half_the_gain_and_the_same_classes():
    usual = judged_controls([control("3+", 400, ALL_STRONG), control("0", 200, ALL_NONE)])
    weak = judged_controls(
        [control("0", 200, ALL_NONE, weaker=0.5), control("3+", 400, ALL_STRONG, weaker=0.5)]
    )
    assert weak[0] == pytest.approx(usual[0] / 2, rel=1e-5)
    assert [item.level for item in weak[1]] == ["3+", "0"]
    for one, other in zip(usual[1], weak[1], strict=True):
        assert one.percentages == pytest.approx(other.percentages)
        assert sum(one.percentages) == pytest.approx(100)
    assert not usual[2]
    # The reference lies a little below the threshold of 3+ cells: somewhat less than half of them reach it.
    assert 40 < usual[1][0].percentages[3] < 50


@pytest.mark.parametrize("count", [0, 1, LEAST_CELLS - 1])
def test_too_few_complete_cells_are_refused(count):
    with pytest.raises(JobFailed, match=rf"{count} cells? with a complete membrane .*needs {LEAST_CELLS}"):
        gain_from(np.r_[np.ones(count), np.full(500, 0.6)], np.full(count + 500, 0.7))
    assert gain_from(np.ones(LEAST_CELLS), np.full(LEAST_CELLS, 0.7)) == pytest.approx(1)


@pytest.mark.parametrize("mass", [0.0, -0.3, 1e-3, 90.0, np.nan])
def test_membranes_that_no_3_control_has_are_refused(mass):
    with pytest.raises(JobFailed, match="no 3\\+ control"):
        gain_from(np.ones(100), np.full(100, mass))


def test_without_a_3_control_there_is_no_gain():
    with pytest.raises(JobFailed, match=r"no 3\+ control"):
        judged_controls([control("0", 200, ALL_NONE)])


@pytest.mark.parametrize(
    ("level", "shares", "said"),
    [
        ("0", (0.8, 0.2, 0, 0), "In the 0 control 20 % of the cells come out above 0"),
        ("1+", (0.1, 0.6, 0.3, 0), r"In the 1\+ control 30 % of the cells come out above 1\+"),
        ("1+", ALL_NONE, r"In the 1\+ control only 0 % of the cells come out as 1\+ or above"),
    ],
)
def test_a_control_that_comes_out_otherwise_is_said(level, shares, said):
    strong = control("3+", 400, ALL_STRONG)
    gain = gain_from(strong.completeness, strong.raw_mass)
    doubted = control(level, 500, shares, weaker=gain)  # made as the classes of a gain of 1
    _, _, remarks = judged_controls([strong, doubted])
    assert len(remarks) == 1
    assert re.search(said, remarks[0]), remarks


def test_a_control_of_few_cells_is_no_check_and_says_so():
    _, _, remarks = judged_controls([control("3+", 400, ALL_STRONG), control("0", 12, (0, 0, 0, 1.0))])
    assert remarks == ("The 0 control holds 12 cells, too few to check the gain by.",)


def test_a_3_control_whose_cells_are_mostly_incomplete_is_doubted():
    complete = np.r_[np.ones(60), np.full(940, 0.4)].astype(np.float32)
    mass = np.tile([0.8, 1.0], 500).astype(np.float32)  # K = 0.62 and 0.78
    _, judged, remarks = judged_controls([ControlCells("3+", complete, mass)])
    assert judged[0].complete == 60
    assert any("only 3 % of the cells come out as 3+" in remark for remark in remarks)


# -- kept by name


def test_a_calibration_is_read_as_it_was_kept():
    kept = calibration()
    path = keep_calibration(kept)
    assert load_calibration("Lab A") == kept
    assert load_calibration("  Lab A ") == kept
    assert kept_calibrations() == ((kept,), ())
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    remove_calibration("Lab A")
    assert kept_calibrations() == ((), ())
    with pytest.raises(JobFailed, match="No calibration is called Lab A"):
        load_calibration("Lab A")
    with pytest.raises(JobFailed, match="nothing was removed"):
        remove_calibration("Lab A")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b\\c", "..", "CON", "x" * 80, "Prüfung µ 染色", "-rf"]
)
def test_a_name_never_leads_out_of_the_folder(name):
    path = keep_calibration(calibration(name))
    assert path.parent == calibration_folder()
    assert path.name.isascii()
    assert len(path.name) < 64
    assert load_calibration(name).name == name


def test_names_that_differ_in_case_or_marks_alone_are_two():
    for name in ("lab a", "Lab A", "lab-a"):
        keep_calibration(calibration(name))
    assert {item.name for item in kept_calibrations()[0]} == {"lab a", "Lab A", "lab-a"}


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "two\nlines", "\x1b[2J", "a\0b"])
def test_a_name_that_cannot_be_shown_is_refused(name):
    with pytest.raises(JobFailed, match="1 to 80 printable characters"):
        checked_name(name)
    with pytest.raises(JobFailed):
        calibration(name)


def test_a_name_that_is_taken_is_replaced_only_when_asked():
    keep_calibration(calibration())
    with pytest.raises(CalibrationKept, match="choose another name"):
        keep_calibration(calibration(gain=2.0))
    assert load_calibration("Lab A").gain != 2.0
    keep_calibration(calibration(gain=2.0), replace=True)
    assert load_calibration("Lab A").gain == 2.0
    assert len(kept_calibrations()[0]) == 1


def test_a_file_from_a_colleague_is_found_by_its_name_whatever_it_is_called():
    path = keep_calibration(calibration())
    path.rename(path.with_name("from Lab A.json"))
    assert load_calibration("Lab A").name == "Lab A"
    with pytest.raises(CalibrationKept):
        keep_calibration(calibration())
    keep_calibration(calibration(gain=2.0), replace=True)
    assert [item.gain for item in kept_calibrations()[0]] == [2.0]


# -- files that are damaged


def test_two_of_one_name_are_refused_until_one_is_gone():
    path = keep_calibration(calibration())
    twin = path.with_name("copy.json")
    twin.write_bytes(path.read_bytes())
    kept, broken = kept_calibrations()
    assert not kept
    assert {item.path for item in broken} == {path, twin}
    with pytest.raises(JobFailed, match=r"Several calibrations are called Lab A \(.*copy.json"):
        load_calibration("Lab A")
    twin.unlink()
    assert load_calibration("Lab A").name == "Lab A"


def test_a_file_cut_anywhere_is_said_and_hides_no_other():
    keep_calibration(calibration("B"))
    path = keep_calibration(calibration("A"))
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:cut])
        kept, broken = kept_calibrations()
        assert [item.name for item in kept] == ["B"]
        assert [item.path for item in broken] == [path]
        assert path.name in broken[0].problem
        with pytest.raises(JobFailed, match=path.name):
            load_calibration("A")
    remove_calibration("A")
    assert kept_calibrations()[1] == ()


def written(path, **changes):
    values = json.loads(path.read_text(encoding="utf-8"))
    values.update(changes)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_a_file_of_a_newer_version_says_so():
    written(keep_calibration(calibration()), format=2)
    with pytest.raises(JobFailed, match="newer version of napari-her2: update"):
        load_calibration("Lab A")


def test_fields_of_later_days_are_left_alone():
    written(keep_calibration(calibration()), colour="brown", nested=[[1]])
    assert load_calibration("Lab A").gain == calibration().gain


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gain", "1.2"),
        ("gain", True),
        ("gain", None),
        ("gain", 0),
        ("gain", 400.0),
        ("gain", -1.0),
        ("cells", [1]),
        ("cells", 10**12),
        ("name", 5),
        ("name", ""),
        ("antibody", {"a": 1}),
        ("controls", {"level": "3+"}),
        ("controls", [{"level": "4+"}]),
        ("controls", [{"level": "3+", "percentages": [1, 2]}]),
        ("controls", [{"level": []}]),
        ("controls", [{}] * 1000),
        ("remarks", "none"),
        ("kind", "model"),
        ("format", "1"),
    ],
)
def test_a_field_that_cannot_be_is_refused_in_one_line(field, value):
    path = keep_calibration(calibration())
    written(path, **{field: value})
    kept, broken = kept_calibrations()
    assert not kept
    assert broken[0].problem.isprintable()
    assert "holds no calibration" in broken[0].problem
    assert len(broken[0].problem) < 300


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_pipes_links_and_huge_files_are_not_waited_for_or_followed(tmp_path):
    folder = keep_calibration(calibration()).parent
    os.mkfifo(folder / "pipe.json")
    (tmp_path / "elsewhere.json").write_text("{}")
    (folder / "link.json").symlink_to(tmp_path / "elsewhere.json")
    (folder / "huge.json").write_bytes(b"[" + b" " * 100_000 + b"]")
    (folder / "folder.json").mkdir()
    kept, broken = kept_calibrations()
    assert [item.name for item in kept] == ["Lab A"]
    assert len(broken) == 4


def test_a_folder_that_cannot_be_written_is_said(monkeypatch):
    monkeypatch.setenv("NAPARI_HER2_CALIBRATIONS", "/dev/null/calibrations")
    assert kept_calibrations() == ((), ())
    with pytest.raises(JobFailed, match="could not be kept"):
        keep_calibration(calibration())


def test_text_of_a_file_is_shown_without_control_characters():
    written(keep_calibration(calibration()), laboratory="a\x1b[2Jb" + "x" * 5000)
    held = load_calibration("Lab A").laboratory
    assert held.isprintable()
    assert len(held) <= 200


def test_the_words_hold_what_a_result_should_say():
    words = replace(calibration(), gain=1.25).words
    for part in ("Lab A", "4B5", "1.250", "812", "control.svs", "2026-11-28"):
        assert part in words


def test_the_cells_made_by_hand_are_what_these_tests_take_them_for():
    _, made_as = cells_by_hand(300, shares=ALL_STRONG)
    assert (made_as == 3).all()
