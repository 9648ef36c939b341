from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2.desk.own_score import ISH_RESULTS, SCORES
from napari_her2.errors import JobFailed
from napari_her2.reading import readings as readings_module
from napari_her2.reading.readings import (
    Reading,
    ReadingFile,
    counted_readings,
    read_readings,
    reading_path,
)

LONG_AGO = datetime(2026, 11, 28, 19, 2, 1, 250_000, tzinfo=UTC)


def a_reading(case: str = "a", **options: object) -> Reading:
    return Reading("Anna", case, **{"score": "1+", "time": LONG_AGO, "seconds": 12.5} | options)


@given(
    st.sampled_from(SCORES[1:]),
    st.sampled_from(ISH_RESULTS),
    st.none() | st.floats(0, 100),
    st.text(max_size=50).filter(lambda text: text.isprintable()),
)
@settings(max_examples=25, deadline=None)
def test_readings_are_read_as_they_were_saved(tmp_path_factory, score, ish, percentage, comment):
    folder = tmp_path_factory.mktemp("study")
    reading = a_reading(
        score=score, ish=ish, percentage=percentage, comment=comment, fingerprints={"IHC": "f"}
    )
    with ReadingFile(folder, "Anna", "1") as file:
        file.add(reading)
        file.add(a_reading("b", score="", skipped="the file is damaged"))
    found = read_readings(folder)
    assert found.readings == (reading, a_reading("b", score="", skipped="the file is damaged"))
    assert found.notes == ()


def test_a_corrected_reading_keeps_the_first(tmp_path):
    with ReadingFile(tmp_path, "Anna", "1") as file:
        file.add(a_reading(score="2+"))
        file.add(a_reading(score="3+", changed=True))
    assert [(of.score, of.changed) for of in read_readings(tmp_path).readings] == [
        ("2+", False),
        ("3+", True),
    ]


def test_a_half_line_is_sealed_reported_and_costs_no_other(tmp_path):
    path = reading_path(tmp_path, "Anna", "1")
    with ReadingFile(tmp_path, "Anna", "1") as file:
        file.add(a_reading("a"))
        file.add(a_reading("b"))
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second + 1, len(whole) - 1, 7):
        path.write_bytes(whole[:cut])
        with ReadingFile(tmp_path, "Anna", "1") as file:
            assert [of.case for of in file.found.readings] == ["a"]
            assert "Line 2" in file.found.notes[0]
            file.add(a_reading("c"))
        found = read_readings(tmp_path)
        assert [of.case for of in found.readings] == ["a", "c"]
        assert len(found.notes) == 1
    path.write_bytes(whole[:-1])  # only the end of the line is missing: the reading is whole
    with ReadingFile(tmp_path, "Anna", "1") as file:
        file.add(a_reading("c"))
    assert [of.case for of in read_readings(tmp_path).readings] == ["a", "b", "c"]


DIE = """
import os, signal, sys
from pathlib import Path
from napari_her2.reading.readings import Reading, ReadingFile
file = ReadingFile(Path(sys.argv[1]), "Anna", "1")
for number in range(5):
    file.add(Reading("Anna", f"case-{number}", score="1+"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
def test_a_killed_program_loses_nothing_that_was_saved_and_its_lock(tmp_path):
    killed = subprocess.run([sys.executable, "-c", DIE, str(tmp_path)], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    with ReadingFile(tmp_path, "Anna", "1") as file:
        assert [of.case for of in file.found.readings] == [f"case-{number}" for number in range(5)]


def test_two_windows_of_one_reader_are_refused_and_two_readers_are_not(tmp_path):
    with (
        ReadingFile(tmp_path, "Anna", "1"),
        ReadingFile(tmp_path, "Ben", "1"),
        ReadingFile(tmp_path, "Anna", "2"),
        pytest.raises(JobFailed, match="Anna is reading round 1 in another window"),
    ):
        ReadingFile(tmp_path, "Anna", "1")
    with ReadingFile(tmp_path, "Anna", "1"):
        pass


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    def half_written(descriptor: int, data: bytes) -> None:
        os.write(descriptor, bytes(data)[:20])
        raise OSError(28, "No space left on device")

    with ReadingFile(tmp_path, "Anna", "1") as file:
        file.add(a_reading("a"))
        before = file.path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(readings_module, "_write_synced", half_written)
            with pytest.raises(JobFailed, match="No space left"):
                file.add(a_reading("b"))
        assert file.path.read_bytes() == before
        file.add(a_reading("b"))
    assert [of.case for of in read_readings(tmp_path).readings] == ["a", "b"]


def test_every_reading_is_synced(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda of: (synced.append(of), real(of)))
    with ReadingFile(tmp_path, "Anna", "1") as file:
        file.add(a_reading("a"))
        assert len(synced) == 2  # the file, and its name in the folder
        file.add(a_reading("b"))
        assert len(synced) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score": "ultralow"}, "one of the scores"),
        ({"score": ""}, "a score, or a reason"),
        ({"skipped": "why"}, "a score, or a reason"),
        ({"percentage": 101.0}, "between 0 and 100"),
        ({"percentage": float("nan")}, "between 0 and 100"),
        ({"seconds": -1.0}, "number of seconds"),
        ({"comment": "x" * 4001}, "at most 4,000"),
    ],
)
def test_a_reading_that_cannot_be_is_refused(options, words):
    with pytest.raises(JobFailed, match=words):
        a_reading(**options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "newer version"),
        ({"score": 3}, "line 1"),
        ({"time": "soon"}, "line 1"),
        ({"more": 1}, "line 1"),
    ],
)
def test_a_line_of_another_kind_is_refused_in_words(tmp_path, change, words):
    with ReadingFile(tmp_path, "Anna", "1") as file:
        file.add(a_reading())
    path = reading_path(tmp_path, "Anna", "1")
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(JobFailed, match=words):
        read_readings(tmp_path)
    with pytest.raises(JobFailed, match=words):
        ReadingFile(tmp_path, "Anna", "1")
    path.unlink()
    with ReadingFile(tmp_path, "Anna", "1"):  # its lock was given back
        pass


def test_names_of_readers_are_no_paths_and_never_share_a_file(tmp_path):
    names = ["../../etc/passwd", "Anna", "anna", "ANNA ", "安娜", "con", "a" * 60]
    paths = {reading_path(tmp_path, name, "1") for name in names}
    assert len(paths) == len(names)
    assert {path.parent for path in paths} == {tmp_path / "readings"}


def test_the_reading_that_counts_has_no_model_in_it():
    first = a_reading(score="1+")
    corrected = a_reading(score="2+", changed=True)
    after = a_reading(score="3+", changed=True, model_seen=True)
    other_round = replace(first, round="2")
    skipped = a_reading("b", score="", skipped="not there")
    readings = (first, corrected, skipped, after, other_round)
    assert counted_readings(readings) == (corrected, other_round)
    assert counted_readings(readings, corrected=True) == (after, other_round)
    assisted = tuple(replace(of, model_seen=True) for of in (first, after))
    assert counted_readings(assisted) == (assisted[0],)
