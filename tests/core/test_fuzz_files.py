"""Damaged files of every kind: a sample of those that benchmarks/fuzz.py makes by the thousand."""

from __future__ import annotations

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
