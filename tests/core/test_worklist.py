from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_by_hand import make_study

from napari_her2.errors import JobFailed
from napari_her2.inference.locks import FileLock
from napari_her2.reading.study_file import add_reader, keep_fingerprints, read_study, write_study
from napari_her2.reading.worklist import Study, StudyCase, StudySlide, order_of, washout_words


def test_the_order_is_the_documented_sort_by_sha256():
    study = make_study(7, seed=41)
    ids = [case.case_id for case in study.cases]
    ranked = sorted(ids, key=lambda case: hashlib.sha256(f"41\nAnna\n1\n0\n{case}".encode()).digest())
    assert list(order_of(study, "Anna", "1")) == ranked


@given(st.integers(2, 9), st.integers(0, 10**9), st.text("abc ", min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_each_round_is_a_permutation_in_another_order_than_the_one_before(cases, seed, reader):
    study = make_study(cases, (reader.strip() or "x",), seed=seed, rounds=3)
    orders = [order_of(study, study.readers[0], name) for name in study.round_names]
    assert all(sorted(order) == sorted(case.case_id for case in study.cases) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders == [order_of(study, study.readers[0], name) for name in study.round_names]


def test_readers_and_seeds_have_orders_of_their_own():
    study = make_study(20)
    orders = {order_of(of, reader, "1") for of in (study, replace(study, seed=1)) for reader in study.readers}
    assert len(orders) == 4


def test_every_place_is_as_likely_for_every_case():
    first = Counter(order_of(make_study(4, seed=seed), "Anna", "1")[0] for seed in range(800))
    # 200 each; chi-square of 3 degrees of freedom stays below 16.3 in 999 of 1,000 fair draws.
    assert sum((count - 200) ** 2 / 200 for count in first.values()) < 16.3


def test_a_case_that_is_added_changes_the_order_of_no_others():
    few, more = make_study(6, seed=3), make_study(9, seed=3)
    known = set(order_of(few, "Anna", "1"))
    assert [case for case in order_of(more, "Anna", "1") if case in known] == list(order_of(few, "Anna", "1"))


def test_a_study_is_read_as_it_was_written_and_its_own_slides_move_with_it(tmp_path):
    here = tmp_path / "here"
    slides = (
        StudySlide(here / "slides" / "a_HE.svs", "H&E", 0.25, "f1"),
        StudySlide(Path("/elsewhere/a_HER2.svs"), "IHC"),
    )
    study = Study(
        "Größe", (StudyCase("a", slides),), ("Anna", "İpek"), 2, -5, False, "each", (here / "r",), 30
    )
    write_study(here, study)
    assert read_study(here) == study
    there = tmp_path / "there"
    here.rename(there)
    moved = read_study(there).case("a").slides
    assert (moved[0].path, moved[1].path) == (there / "slides" / "a_HE.svs", Path("/elsewhere/a_HER2.svs"))


def test_a_study_is_not_written_over_another(tmp_path):
    write_study(tmp_path, make_study())
    with pytest.raises(JobFailed, match="holds a study already"):
        write_study(tmp_path, make_study(3))
    assert len(read_study(tmp_path).cases) == 12


def test_fingerprints_are_kept_once_they_are_known_and_never_changed(tmp_path):
    case = StudyCase("a", (StudySlide(tmp_path / "a.svs", "H&E"), StudySlide(tmp_path / "b.svs", "IHC")))
    write_study(tmp_path, Study("t", (case,), ("Anna",)))
    keep_fingerprints(tmp_path, "a", {"H&E": "f1"})
    keep_fingerprints(tmp_path, "a", {"H&E": "f2", "IHC": "f3"})
    assert [slide.fingerprint for slide in read_study(tmp_path).cases[0].slides] == ["f1", "f3"]


def test_readers_are_added_by_one_program_at_a_time(tmp_path):
    write_study(tmp_path, make_study())
    assert add_reader(tmp_path, "Clara").readers == ("Anna", "Ben", "Clara")
    with pytest.raises(JobFailed, match="Two readers"):
        add_reader(tmp_path, "anna")
    lock = FileLock(tmp_path / ".study.lock")
    assert lock.acquire()
    with pytest.raises(JobFailed, match="Another program is writing"):
        add_reader(tmp_path, "Dora")
    lock.release()
    assert read_study(tmp_path).readers == ("Anna", "Ben", "Clara")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values | {"format": 2}, "newer version"),
        (lambda values: values | {"format": "x"}, "no study"),
        (lambda values: values | {"cases": []}, "1 to 100,000 cases"),
        (lambda values: values | {"rounds": True}, "damaged"),
        (lambda values: values | {"seed": 1.5}, "damaged"),
        (lambda values: values | {"reveal": "often"}, "reveal"),
        (lambda values: values | {"readers": ["a", "A"]}, "Two readers"),
        (lambda values: values | {"readers": ["a\nb"]}, "visible characters"),
        (lambda values: values | {"washout_days": -1}, "days between"),
        (lambda values: values | {"cases": [{"case": "a", "slides": []}]}, "0 slides"),
        (lambda values: values | {"cases": values["cases"][:1] * 2}, "Two cases"),
        (lambda values: {name: of for name, of in values.items() if name != "cases"}, "damaged"),
    ],
)
def test_a_study_that_is_not_as_we_write_it_is_refused_in_words(tmp_path, change, words):
    path = write_study(tmp_path, make_study(2))
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(JobFailed, match=words):
        read_study(tmp_path)


def test_a_study_that_is_cut_or_absent_is_refused_in_words(tmp_path):
    with pytest.raises(JobFailed, match=r"study\.json could not be read"):
        read_study(tmp_path)
    path = write_study(tmp_path, make_study(2))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(JobFailed, match="damaged, or no JSON"):
        read_study(tmp_path)


def test_two_slides_of_a_case_are_told_apart_by_their_stain(tmp_path):
    with pytest.raises(JobFailed, match="which is which"):
        StudyCase("a", (StudySlide(tmp_path / "a"), StudySlide(tmp_path / "b")))


def test_a_round_that_follows_too_soon_is_reported():
    now = datetime(2026, 11, 28, tzinfo=UTC)
    study = make_study(rounds=2)
    assert "3.0 days old" in washout_words(study, now - timedelta(days=3), now)
    assert washout_words(study, now - timedelta(days=15), now) == ""
    assert washout_words(study, None, now) == ""


def test_names_and_answers_are_revealed_when_the_study_says_so():
    revealed = {
        reveal: [make_study(rounds=2, reveal=reveal).reveals_after(name) for name in ("1", "2", "consensus")]
        for reveal in ("never", "each", "last")
    }
    assert revealed == {"never": [False] * 3, "each": [True] * 3, "last": [False, True, True]}
