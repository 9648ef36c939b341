"""Damaged files of every kind: a sample of those that benchmarks/fuzz.py makes by the thousand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KINDS = (
    pytest.param("bundle", marks=pytest.mark.slow),
    "geojson",
    "table",
    "toml",
    "json",
    "hdf5",
    "pth",
    "picture",
)
COUNT = 300


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_used_or_refused_in_words(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fuzz = pytest.importorskip("fuzz")
    limits = fuzz.Limits(seconds=120.0, bytes=2 << 30)
    found = dict(fuzz.outcomes(name, list(range(COUNT)), 0, limits, tmp_path, 1))
    assert len(found) == COUNT
    assert {number: outcome for number, outcome in found.items() if outcome.word not in fuzz.FINE} == {}
    # A sample that is refused whole, or read whole, would ask nothing.
    assert {outcome.word for outcome in found.values()} == {"works", "refused"}


def test_the_same_number_is_the_same_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fuzz = pytest.importorskip("fuzz")
    kind = fuzz.load("toml")
    seeds = [path.read_bytes() for path in kind.seeds(tmp_path)]
    assert [fuzz.case(kind, seeds, 7, 3)] * 2 == [fuzz.case(kind, seeds, 7, 3) for _ in range(2)]
    assert fuzz.case(kind, seeds, 7, 3) != fuzz.case(kind, seeds, 7, 4)


def test_the_memory_of_a_child_is_its_own_and_not_that_of_its_parent():
    asks = "import sys; sys.path.insert(0, sys.argv[1]); import fuzz; print(fuzz.peak_bytes())"
    holds = (
        "import subprocess, sys; held = bytearray(b'x') * (1 << 30); "
        "subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True, close_fds=False)"
    )
    told = subprocess.run(
        [sys.executable, "-c", holds, asks, str(BENCHMARKS)], capture_output=True, text=True, check=True
    )
    assert 0 <= int(told.stdout) < 1 << 30
