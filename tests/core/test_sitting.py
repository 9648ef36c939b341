from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from reading_by_hand import SCORE, make_study, readings_of
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.errors import JobFailed
from napari_her2.reading.cases import cases_of
from napari_her2.reading.model_answers import find_answers
from napari_her2.reading.readings import Reading, ReadingFile, read_readings
from napari_her2.reading.sitting import Sitting, Stopwatch
from napari_her2.reading.study_file import read_study, write_study
from napari_her2.reading.tables import export_study
from napari_her2.reading.worklist import StudyCase, StudySlide, order_of


def sit(folder: Path, study: object, reader: str = "Anna", round_name: str = "1") -> Sitting:
    return Sitting(folder, study, reader, round_name)


def test_a_reader_who_leaves_in_the_middle_goes_on_where_they_were(tmp_path):
    study = make_study(5)
    sitting = sit(tmp_path, study)
    assert sitting.order == order_of(study, "Anna", "1")
    for _case in range(2):
        sitting.save("1+", seconds=3)
        sitting.at = sitting.next_open(sitting.at)
    sitting.skip("the file is damaged")
    assert sitting.counts == (2, 1, 5)
    left = sitting.order[3]
    sitting.close()

    again = sit(tmp_path, study)
    assert again.case.case_id == left
    assert (again.neutral_name, again.counts) == ("Case 4", (2, 1, 5))
    again.save("2+")
    again.at = again.next_open(again.at)
    again.save("3+")
    # What was skipped comes when nothing else is left, and no case comes twice.
    assert again.next_open(again.at) == 2
    again.at = 2
    again.save("0, with membrane staining")
    assert again.next_open(again.at) is None
    again.close()
    assert {of.score for of in read_readings(tmp_path).readings if of.case == again.order[2]} == {
        "",
        SCORE[1],
    }


def test_a_corrected_reading_says_what_had_been_seen(tmp_path):
    for reveal, seen in (("each", True), ("never", False)):
        folder = tmp_path / reveal
        sitting = sit(folder, make_study(2, reveal=reveal))
        first = sitting.save("1+")
        assert (first.changed, first.model_seen, first.blinded) == (False, False, True)
        second = sitting.save("2+")
        assert (second.changed, second.model_seen, second.blinded) == (True, seen, not seen)
        sitting.close()
        assert len(read_readings(folder).readings) == 2


def test_who_leaves_in_the_midst_of_two_windows_is_told(tmp_path):
    sitting = sit(tmp_path, make_study())
    with pytest.raises(JobFailed, match="another window"):
        sit(tmp_path, make_study())
    sitting.close()
    sit(tmp_path, make_study()).close()


def test_a_second_round_that_comes_too_soon_is_noted(tmp_path):
    study = make_study(2, rounds=2, washout_days=14)
    for days, noted in ((20, False), (3, True)):
        with ReadingFile(tmp_path, "Anna", "1") as file:
            moment = datetime.now(UTC) - timedelta(days=days)
            file.add(Reading("Anna", "case-1", "1", "1+", time=moment))
        sitting = sit(tmp_path, study, round_name="2")
        assert any("14 days between rounds" in note for note in sitting.notes) == noted
        sitting.close()


def test_the_consensus_round_holds_what_readers_part_on(tmp_path):
    study = make_study(4)
    with pytest.raises(JobFailed, match="nothing is to be agreed on"):
        sit(tmp_path, study, round_name="consensus")
    for reading in readings_of({"Anna": [0, 1, 4, 2], "Ben": [0, 2, 2, 2]}):
        with ReadingFile(tmp_path, reading.reader, "1") as file:
            file.add(reading)
    alone = sit(tmp_path, study)
    assert alone.scores_of_others() == ()
    alone.close()
    sitting = sit(tmp_path, study, "Ben", "consensus")
    assert sitting.order == ("case-3", "case-2")
    assert sitting.scores_of_others() == ("1+", "3+")
    sitting.close()


def test_an_entry_that_cannot_be_leaves_the_case_open(tmp_path):
    sitting = sit(tmp_path, make_study(2))
    for refused in (
        lambda: sitting.save(""),
        lambda: sitting.save("1+", percentage=120),
        lambda: sitting.skip(" "),
    ):
        with pytest.raises(JobFailed):
            refused()
    assert sitting.counts == (0, 0, 2)
    sitting.close()


def test_pauses_do_not_count():
    now = [100.0]
    watch = Stopwatch(lambda: now[0])
    watch.run(True)
    now[0] += 5
    watch.run(True)
    assert watch.seconds == 5
    watch.run(False)
    now[0] += 60
    assert (watch.seconds, watch.running) == (5, False)
    watch.run(True)
    now[0] += 2.5
    assert watch.seconds == 7.5
    watch.reset()
    assert (watch.seconds, watch.running) == (0, False)


def test_two_slides_of_one_name_and_a_missing_one_are_cases_of_their_own(tmp_path):
    for name in ("a/s1.svs", "b/s1.svs", "c/p_HE.svs", "c/p_HER2.svs"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    table = tmp_path / "list.csv"
    table.write_text("case_id,slide,ihc\nx,a/s1.svs,\nX,b/s1.svs,\ny,gone.svs,\nz,,\n")
    found = cases_of(table)
    assert [case.case_id for case in found.cases] == ["x", "X (b)", "y"]
    assert any("gone.svs is not there now" in note for note in found.notes)
    assert any(note.startswith("z is left out") for note in found.notes)
    folder = cases_of(tmp_path)
    assert len({case.case_id.casefold() for case in folder.cases}) == 3
    pair = next(case for case in folder.cases if len(case.slides) == 2)
    assert [(slide.path.name, slide.stain) for slide in pair.slides] == [
        ("p_HE.svs", "H&E"),
        ("p_HER2.svs", "IHC"),
    ]
    write_study(tmp_path / "study", replace(make_study(), cases=found.cases))
    with pytest.raises(JobFailed):
        cases_of(tmp_path / "nothing")


def _write_result(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True)
    usual = {"model": "m", "label": "1+ (negative)", "score": "1+", "slide_sha256": "f1", "slides": []}
    (folder / "result.json").write_text(json.dumps(usual | values))


def test_answers_of_models_are_found_by_content_and_withheld_ones_stay_so(tmp_path):
    _write_result(tmp_path / "m" / "s1")
    _write_result(tmp_path / "n" / "s1", model="n", score="3+", withheld=True, label="withheld: strange")
    _write_result(tmp_path / "n" / "other", model="n", slide_sha256="f2", slides=[{"slide_sha256": "f3"}])
    (tmp_path / "n" / "broken").mkdir()
    (tmp_path / "n" / "broken" / "result.json").write_text("{")
    found = find_answers((tmp_path / "m", tmp_path / "n", tmp_path / "gone"))
    assert [(of.model, of.score) for of in found.of({"f1", ""})] == [("m", "1+"), ("n", "")]
    assert [of.model for of in found.of({"f3"})] == ["n"]
    assert found.of({""}) == ()
    assert len(found.notes) == 2


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _filled(folder: Path) -> object:
    study = make_study(24, ("Anna", "=Ben"), results=(folder / "results",))
    odd = StudyCase("=cmd|' /C calc'!A0", (StudySlide(Path("/slides/-x.svs")),))
    study = replace(study, cases=(*study.cases[:-1], odd))
    write_study(folder, study)
    _write_result(folder / "results" / "s", slide_sha256="print 1")
    levels = [number % 5 for number in range(23)]
    given = readings_of({"Anna": levels, "=Ben": [*levels[:-1], 1]})
    given.append(Reading("Anna", odd.case_id, "1", "2+", percentage=12.5, comment="+SUM(1)", ish="negative"))
    given.append(Reading("Anna", "case-1", "1", "3+", changed=True, model_seen=True))
    for reading in given:
        with ReadingFile(folder, reading.reader, reading.round) as file:
            file.add(reading)
    return study


def test_a_study_is_exported_whole_and_runs_nothing_in_a_spreadsheet(tmp_path):
    _filled(tmp_path)
    paths = export_study(tmp_path, tmp_path / "out")
    assert [path.name for path in paths] == ["readings.csv", "wide.csv", "agreement.csv", "disagreements.csv"]
    readings, wide, agreement, apart = map(_rows, paths)
    assert len(readings) == 48
    assert [
        (of["score"], of["counts"]) for of in readings if of["case"] == "case-1" and of["reader"] == "Anna"
    ] == [
        ("0, no staining", "yes"),
        ("3+", "no"),
    ]
    assert (wide[0]["Anna, round 1"], wide[23]["Anna, round 1, %"]) == ("0, no staining", "12.5")
    kappa = next(of for of in agreement if of["measure"].startswith("quadratic") and of["levels"] == "five")
    assert float(kappa["low_95"]) <= float(kappa["value"]) <= float(kappa["high_95"]) <= 1
    assert any("(model)" in of["who"] for of in agreement)
    assert [of["case"] for of in apart] == ["case-23"]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    cells = [cell.strip('"') for line in lines for cell in line.split(",")]
    assert not [cell for cell in cells if cell[:1] in "=+-@" and cell and not cell[1:2].isdigit()]
    assert "'=cmd|' /C calc'!A0" in cells


def run(*words: object) -> object:
    return CliRunner().invoke(app, ["reading", *map(str, words)])


def test_a_study_is_made_and_evaluated_from_the_command_line(tmp_path):
    slides = tmp_path / "slides"
    slides.mkdir()
    for number in range(11):
        (slides / f"s{number}.svs").write_bytes(bytes([number]))
    study = tmp_path / "study"
    made = run("new", study, slides, "--reader", "Anna", "--reader", "Ben", "--seed", 7, "--rounds", 2)
    assert made.exit_code == 0, made.output
    assert "11 cases" in made.output
    assert (read_study(study).seed, read_study(study).blinded) == (7, True)
    assert run("new", study, slides, "--reader", "Anna").exit_code == 1
    nothing = run("agreement", study)
    assert "Nothing can be compared yet" in nothing.output
    for number, case in enumerate(read_study(study).cases):
        for reader, level in (("Anna", number % 5), ("Ben", (number % 5 + number // 10) % 5)):
            with ReadingFile(study, reader, "1") as file:
                file.add(Reading(reader, case.case_id, "1", SCORE[level]))
    shown = run("agreement", study, "--levels", "five", "--out", tmp_path / "a.csv")
    assert shown.exit_code == 0, shown.output
    assert "Krippendorff" in shown.output
    assert "Research use only" in shown.output
    assert len(_rows(tmp_path / "a.csv")) == 5
    assert "1 of 11 cases are read differently" in run("disagreements", study).output
    assert run("export", study, "--out", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "wide.csv").exists()
    assert run("agreement", study, "--levels", "six").exit_code == 2
    assert run("agreement", tmp_path / "gone").exit_code == 1
