"""A day's list before it runs: what belongs together, what stands alone, what is refused and why."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2.cohort.day_items import entry_from, entry_values
from napari_her2.cohort.day_list import NamePatterns, entries_of, entries_steps
from napari_her2.cohort.day_pairs import paired
from napari_her2.cohort.entry import Entry
from napari_her2.cohort.score_job import Case, ScoreJob
from napari_her2.desk.kept_scales import kept_scale
from napari_her2.desk.kept_slide import GivenScale, KeptSlide
from napari_her2.desk.store import Desk
from napari_her2.errors import JobFailed
from napari_her2.inference.options import ScoringOptions
from napari_her2.methods.catalogue import available_models
from napari_her2.slide.case_names import stain_in
from napari_her2.steps import finished


@pytest.fixture
def day(tmp_path):
    """Makes files by their names."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return tmp_path

    return make


def pairs(found):
    return [
        tuple(None if path is None else path.name for path in (entry.he, entry.ihc))
        for entry in found.entries
    ]


def test_slides_are_paired_by_the_words_of_their_names(day):
    folder = day(
        "case_1_HE.svs", "case_1_HER2.svs", "Case-2 h&e.ndpi", "case_2-IHC.ndpi", "case_3_HE.svs", "odd.svs"
    )
    found = entries_of(folder)
    assert sorted(pairs(found), key=str) == sorted(
        [
            ("case_1_HE.svs", "case_1_HER2.svs"),
            ("Case-2 h&e.ndpi", "case_2-IHC.ndpi"),
            ("case_3_HE.svs", None),
            ("odd.svs", None),
        ],
        key=str,
    )
    known = {entry.name: entry for entry in found.entries}
    assert known["case_1"].because == "names"
    assert known["case_3"].stain_known
    assert not known["odd"].stain_known
    assert found.in_words() == "4 cases: 2 pairs, 2 single slides"


def test_a_folder_may_name_the_stain(day):
    folder = day("HE/7.svs", "IHC/7.svs", "case 8/HE.svs", "case 8/HER2.svs")
    assert sorted(pairs(entries_of(folder))) == [("7.svs", "7.svs"), ("HE.svs", "HER2.svs")]
    assert {entry.name for entry in entries_of(folder).entries} == {"7", "case 8"}


def test_what_could_be_paired_in_two_ways_is_not_paired_and_says_so(day):
    found = entries_of(day("1_HE.svs", "1_HE.ndpi", "1_HER2.svs"))
    assert all(len(entry.slides) == 1 and "not paired" in entry.note for entry in found.entries)


def test_the_last_word_of_a_name_counts_as_its_stain():
    assert (stain_in("HER2_study_5_HE"), stain_in("HER2_study_5_IHC")) == ("H&E", "IHC")


def test_patterns_of_the_user_pair_and_leave_out_the_rest(day):
    folder = day("A1-first.svs", "A1-second.svs", "A2-first.svs", "note_HE.svs")
    found = entries_of(folder, NamePatterns("*-first.svs", "*-SECOND.svs"))
    assert pairs(found) == [("A1-first.svs", "A1-second.svs"), ("A2-first.svs", None)]
    assert [path.name for path, _ in found.left_out] == ["note_HE.svs"]
    assert found.entries[0].because == "pattern"


@pytest.mark.parametrize("patterns", [("slide.svs", ""), ("*.svs", "*.SVS")])
def test_patterns_that_cannot_tell_cases_or_stains_apart_are_refused(patterns):
    with pytest.raises(JobFailed):
        NamePatterns(*patterns)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=8, unique=True), st.data())
@settings(max_examples=30, deadline=None)
def test_every_slide_is_in_exactly_one_case_whatever_its_name(tmp_path_factory, numbers, data):
    folder = tmp_path_factory.getbasetemp()
    tails = st.sampled_from(["_HE", "_HER2", "", " h&e", "-IHC", "_HE_HER2", "_x"])
    files = sorted({folder / f"c{number}{data.draw(tails)}.svs" for number in numbers for _ in range(2)})
    listed = [path for entry in paired(files).entries for path in entry.slides]
    assert sorted(listed) == files


def test_subfolders_hidden_folders_and_pictures(day):
    folder = day(
        "a.svs", "below/b.svs", ".hidden/c.svs", "map.png", "notes.txt", "dicom/1.dcm", "dicom/2.dcm"
    )
    (folder / "below/loop").symlink_to(folder, target_is_directory=True)
    names = lambda found: sorted(path.name for entry in found.entries for path in entry.slides)  # noqa: E731
    deep = entries_of(folder)
    assert names(deep) == ["a.svs", "b.svs", "dicom"]
    assert [path.name for path, _ in deep.left_out] == ["map.png"]
    assert names(entries_of(folder, subfolders=False)) == ["a.svs", "dicom"]


def test_the_same_file_by_two_paths_is_one_slide(day):
    folder = day("a.svs")
    (folder / "b.svs").symlink_to(folder / "a.svs")
    found = entries_of([folder / "a.svs", folder / "b.svs", folder / "a.svs"])
    assert pairs(found) == [("a.svs", None)]
    assert len(found.left_out) == 2
    assert all("the same file" in why for _, why in found.left_out)


def test_two_slides_of_one_name_get_a_folder_each(day):
    found = entries_of(day("mon/x.svs", "tue/x.svs", "y.svs", "x (mon)/z.svs"))
    places = {entry.slides[0].parent.name: entry.place for entry in found.entries}
    assert places["mon"] != places["tue"]
    assert all("x" in places[name] and "another slide" not in places[name] for name in ("mon", "tue"))
    assert sum(bool(entry.place) for entry in found.entries) == 2
    assert all("another slide is called x" in entry.note for entry in found.entries if entry.place)


def test_a_table_of_training_is_a_list(day):
    folder = day("a_HE.svs", "a_IHC.svs", "b.svs")
    table = folder / "manifest.csv"
    table.write_text("case_id,he,ihc,score,fold\n1,a_HE.svs,a_IHC.svs,2+,0\n2,b.svs,,0,1\n3,gone.svs,,0,1\n")
    one, two, three = entries_of(table).entries
    assert (one.name, one.he.name, one.ihc.name, one.because) == ("1", "a_HE.svs", "a_IHC.svs", "table")
    assert two.slides == (folder / "b.svs",)
    assert "no file" in three.problem
    assert not one.problem


def test_semicolons_decimal_commas_and_marks_of_spreadsheets_are_read(day):
    folder = day("=1.svs", "b.svs")
    table = folder / "list.csv"
    table.write_text("case;slide;mpp\nx;'=1.svs;0,25\ny;b.svs;fast\n;;\n", encoding="utf-8-sig")
    first, second = entries_of(table).entries
    assert (first.he.name, first.mpp, first.stain_known) == ("=1.svs", 0.25, False)
    assert "Line 3" in second.problem
    assert "fast" in second.problem


def test_rows_without_a_slide_and_rows_that_come_twice_are_refused(day):
    folder = day("a.svs")
    table = folder / "list.csv"
    table.write_text("case_id,he,ihc\n1,a.svs,\n2,,\n3,a.svs,\n")
    one, two, three = entries_of(table).entries
    assert not one.problem
    assert "names no slide" in two.problem
    assert "the same slides" in three.problem


@pytest.mark.parametrize("name", ["day.xlsx", "empty", "other.csv"])
def test_what_holds_no_list_is_refused_in_words(tmp_path, name):
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
    else:
        path.write_text("patient,age\n1,2\n")
    with pytest.raises(JobFailed):
        entries_of(path)


def test_slides_are_opened_before_anything_runs(he_slide, tmp_path):
    shutil.copy(he_slide, tmp_path / "fine_HE.svs")
    (tmp_path / "text_HE.svs").write_text("no slide")
    (tmp_path / "empty_HE.svs").write_bytes(b"")
    (tmp_path / "cut_HE.svs").write_bytes(he_slide.read_bytes()[: he_slide.stat().st_size // 2])
    found = {entry.name: entry for entry in finished(entries_steps(tmp_path)).entries}
    assert not found["fine"].problem
    assert "not a slide" in found["text"].problem
    assert "empty" in found["empty"].problem
    assert "ends early" in found["cut"].problem + found["cut"].note


def test_a_slide_without_scale_says_where_to_give_it(tmp_path):
    import numpy as np
    import tifffile

    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, np.full((600, 600, 3), 255, np.uint8), tile=(256, 256), photometric="rgb")
    (entry,) = finished(entries_steps(path)).entries
    assert "states no µm/px" in entry.problem
    (entry,) = finished(entries_steps(path, mpp=0.5)).entries
    assert not entry.problem


def test_what_a_person_gave_for_a_slide_before_is_taken_with_its_source(tmp_path):
    import numpy as np
    import tifffile

    from napari_her2 import open_slide

    path = tmp_path / "plain_IHC.tif"
    tifffile.imwrite(path, np.full((600, 600, 3), 255, np.uint8), tile=(256, 256), photometric="rgb")
    assert finished(entries_steps(path, known_scale=kept_scale)).entries[0].problem
    with open_slide(path) as slide:
        scale = GivenScale((0.44, 0.44), "measured on 3 erythrocytes", "2026-11-28T14:02:00+01:00")
        Desk().keep(KeptSlide(slide.fingerprint, scale=scale))
    (entry,) = finished(entries_steps(path, known_scale=kept_scale)).entries
    words = "measured on 3 erythrocytes, 2026-11-28 14:02"
    assert (entry.problem, entry.scales, entry.scale_sources) == ("", (0.44,), (words,))
    assert f"0.44 µm/px, {words}" in entry.note
    assert entry_from(entry_values(entry)) == entry
    case = entry.case_for(CARDS["demo-low-resolution"])
    assert (case.mpp, case.mpp_source) == (0.44, words)
    with ScoreJob(case, tmp_path, ScoringOptions(), "cpu", "auto")._open(path, case.mpp, words) as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.44, 0.44), words)
    (entry,) = finished(entries_steps(path, mpp=0.5, ihc_mpp=0.5, known_scale=kept_scale)).entries
    assert entry.scale_sources == ("",)


CARDS = {entry.name: entry.card for entry in available_models()}
HE, IHC, PAIR = (CARDS[name] for name in ("demo-attention-mil", "demo-low-resolution", "demo-wsmcl"))


def test_a_model_takes_what_it_was_made_for(tmp_path):
    he, ihc, drawn = tmp_path / "a.svs", tmp_path / "b.svs", tmp_path / "r.geojson"
    both = Entry("1", he, ihc, 0.25, 0.5, drawn)
    assert both.case_for(HE) == Case(he, None, drawn, 0.25)
    assert both.case_for(IHC) == Case(ihc, None, None, 0.5)  # the regions are those of the H&E slide
    assert both.case_for(PAIR) == Case(he, ihc, drawn, 0.25, 0.5)
    assert Entry("2", None, ihc, None, 0.5).case_for(PAIR) == Case(ihc, None, None, 0.5)
    assert isinstance(Entry("2", None, ihc).case_for(HE), str)
    assert isinstance(Entry("3", he).case_for(IHC), str)
    assert Entry("4", he, stain_known=False).case_for(IHC) == Case(he)
    assert Entry("5", he, problem="gone").case_for(HE) == "gone"
    swapped = both.swapped()
    assert (swapped.he, swapped.ihc, swapped.mpp, swapped.ihc_mpp) == (ihc, he, 0.5, 0.25)


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all"
)
def test_a_folder_that_may_not_be_read_is_said(day):
    folder = day("closed/a.svs")
    (folder / "closed").chmod(0)
    try:
        with pytest.raises(JobFailed, match="cannot be read"):
            entries_of(folder)
    finally:
        (folder / "closed").chmod(0o700)
