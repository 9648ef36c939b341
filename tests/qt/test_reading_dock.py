from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QLabel, QLineEdit, QWidget

from napari_her2._napari.session import session_of
from napari_her2._qt.reading.dock import ReadingDock
from napari_her2.errors import SlideError
from napari_her2.export.kept_result import KEPT_NAME, write_kept
from napari_her2.reading.readings import ReadingFile, read_readings
from napari_her2.reading.sitting import Stopwatch
from napari_her2.reading.study_file import read_study, write_study
from napari_her2.reading.worklist import Study, StudyCase, StudySlide, order_of
from scored import make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "Quentin-Tarrant"


class _Hashed:
    """Identity of a slide by hand."""

    def __init__(self, value: str) -> None:
        self.known = self._value = value
        self.head = value

    def steps(self) -> Iterator[tuple[int, int]]:
        yield 1, 1
        return self._value


@pytest.fixture
def broken() -> set[str]:
    """Names of files that cannot be opened."""
    return set()


@pytest.fixture(autouse=True)
def _slides_by_hand(monkeypatch: pytest.MonkeyPatch, broken: set[str]) -> None:
    def open_slide(path: Path, *, mpp: float | None = None) -> object:
        if path.name in broken:
            raise SlideError(f"{path.name} is no slide: get it again.")
        slide = make_slide((60, 80), name=path.stem)
        slide.path = path
        slide.identity = _Hashed(f"print of {path.stem}")
        return slide

    monkeypatch.setattr("napari_her2.slide.reader.open_slide", open_slide)


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    def make(cases: int = 3, *, pair: bool = False, **options: object) -> Path:
        made = []
        for number in range(cases):
            slides = [StudySlide(Path(f"/slides/{SECRET}-{number}.svs"), "IHC" if pair else "")]
            if pair:
                slides.insert(0, StudySlide(Path(f"/slides/{SECRET}-{number}-HE.svs"), "H&E"))
            made.append(StudyCase(f"{SECRET}-{number}", tuple(slides)))
        folder = tmp_path / "study"
        write_study(folder, Study("HER2 by eye", tuple(made), ("Anna", "Ben"), **options))
        return folder

    return make


@pytest.fixture
def dock(qtbot: object, viewer: object) -> Iterator[ReadingDock]:
    made = ReadingDock(viewer)
    qtbot.addWidget(made)
    made.show()
    yield made
    made.shutdown()


def start(
    qtbot: object, dock: ReadingDock, folder: Path, reader: str = "Anna", round_name: str = "1"
) -> None:
    dock.open_study(folder)
    qtbot.waitUntil(lambda: dock.picker.folder == folder)
    dock.picker.reader.setCurrentText(reader)
    dock.picker.round.setCurrentIndex(dock.picker.round.findData(round_name))
    dock.begin()
    shown(qtbot, dock)


def shown(qtbot: object, dock: ReadingDock) -> None:
    qtbot.waitUntil(
        lambda: bool(dock.view.layers) and dock.panel.form.isEnabled() and bool(dock.view.fingerprints)
    )


def score(qtbot: object, dock: ReadingDock, key: Qt.Key = Qt.Key.Key_1) -> None:
    before = dock.sitting.case.case_id
    qtbot.keyClick(dock, key)
    qtbot.keyClick(dock, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: dock.sitting is None or dock.sitting.case.case_id != before)


def texts_of(window: QWidget) -> set[str]:
    """Everything that the widgets of a window show or speak."""
    found: set[str] = set()
    for widget in (window, *window.findChildren(QWidget)):
        found |= {widget.toolTip(), widget.accessibleName(), widget.windowTitle(), widget.statusTip()}
        found |= {widget.whatsThis(), widget.accessibleDescription()}
        if isinstance(widget, QLabel | QLineEdit | QAbstractButton):
            found.add(widget.text())
        if isinstance(widget, QLineEdit):
            found.add(widget.placeholderText())
        if isinstance(widget, QComboBox):
            for at in range(widget.count()):
                found |= {widget.itemText(at), str(widget.itemData(at, Qt.ItemDataRole.ToolTipRole))}
    return found


def texts_of_viewer(viewer: object) -> set[str]:
    """Everything that napari shows or could show of the layers of a viewer."""
    found = {viewer.title, str(viewer.status), str(viewer.help), str(viewer.tooltip.text)}
    for layer in viewer.layers:
        found |= {layer.name, layer.get_source_str(), str(layer.source), repr(layer.metadata), repr(layer)}
        found |= {str(layer.get_status(viewer.cursor.position, world=True)), layer.help}
        found |= {str(getattr(level, "name", "")) for level in layer.data}
    return found


def test_nothing_says_which_slide_is_read_until_it_is_scored(qtbot, viewer, dock, make_dock, make_study):
    scoring = make_dock()
    scoring.show()
    start(qtbot, dock, make_study(pair=True, reveal="never"))
    assert sorted(layer.name for layer in viewer.layers) == ["Case 1 · H&E", "Case 1 · IHC"]
    for number in range(2):
        shown(qtbot, dock)
        assert dock.panel.title.text() == f"Case {number + 1}"
        seen = texts_of(dock) | texts_of(scoring) | texts_of_viewer(viewer)
        assert not [text for text in seen if SECRET in text or "/slides" in text]
        assert "Blinded reading: results appear after you have scored." in texts_of(scoring)
        assert session_of(viewer).slide_layers() == []
        score(qtbot, dock)


def test_a_reader_scores_case_after_case_by_keyboard_alone(qtbot, viewer, dock, make_study):
    folder = make_study(reveal="never")
    start(qtbot, dock, folder)
    order = order_of(read_study(folder), "Anna", "1")
    for key in (Qt.Key.Key_U, Qt.Key.Key_2):
        shown(qtbot, dock)
        score(qtbot, dock, key)
    shown(qtbot, dock)
    dock.panel.form.percentage.setValue(12)
    dock.panel.form.ish.pick("negative")
    dock.panel.form.comment.setFocus()
    qtbot.keyClicks(dock.panel.form.comment, "0123 faint")
    assert dock.panel.form.entered.score == ""  # keys of scores are text there
    dock.panel.form.scores.pick("3+")
    dock.save()
    qtbot.waitUntil(lambda: dock.sitting is None)
    assert "Every case of this round is read: 3 of 3" in dock.picker.facts.text()
    assert list(viewer.layers) == []
    saved = read_readings(folder).readings
    assert [of.case for of in saved] == list(order)
    assert [of.score for of in saved] == ["0, with membrane staining", "2+", "3+"]
    assert (saved[2].percentage, saved[2].ish, saved[2].comment) == (12, "negative", "0123 faint")
    assert all(of.blinded and not of.model_seen for of in saved)
    assert {value for of in saved for value in of.fingerprints.values()} == {
        f"print of {SECRET}-{number}" for number in range(3)
    }
    assert all(of.slides[0].fingerprint for of in read_study(folder).cases)


def test_who_leaves_in_the_middle_goes_on_there_and_two_windows_are_refused(qtbot, viewer, dock, make_study):
    folder = make_study(4, reveal="never")
    start(qtbot, dock, folder)
    score(qtbot, dock)
    shown(qtbot, dock)
    dock.panel.form.scores.pick("3+")  # entered, and not saved
    left = dock.sitting.case.case_id
    other = ReadingDock(viewer.__class__())
    qtbot.addWidget(other)
    other.open_study(folder)
    qtbot.waitUntil(lambda: other.picker.folder == folder)
    other.begin()
    qtbot.waitUntil(lambda: "another window" in other.message.text.text())
    other.shutdown()
    dock.stop()
    assert list(viewer.layers) == []
    start(qtbot, dock, folder)
    assert dock.sitting.case.case_id == left
    assert dock.panel.title.text() == "Case 2"
    assert dock.panel.counts.text() == "2 of 4 · 1 read"
    assert dock.panel.form.entered.score == ""


def test_the_second_round_has_another_order(qtbot, viewer, dock, make_study):
    folder = make_study(5, rounds=2)
    start(qtbot, dock, folder)
    first = dock.sitting.order
    dock.stop()
    start(qtbot, dock, folder, round_name="2")
    assert sorted(dock.sitting.order) == sorted(first)
    assert dock.sitting.order != first


def _kept_result(folder: Path, number: int) -> None:
    slide = make_slide((60, 80), name=f"{SECRET}-{number}")
    slide.fingerprint = f"print of {SECRET}-{number}"
    result = make_result(slide, tile_px=20)
    folder.mkdir(parents=True)
    write_kept(result, folder / KEPT_NAME)
    values = {"model": "hand-model", "label": result.label, "score": "2+", "slide_sha256": slide.fingerprint}
    (folder / "result.json").write_text(json.dumps(values))


def test_after_the_score_name_answer_and_maps_are_shown_and_the_first_reading_stays(
    qtbot, viewer, dock, make_study, tmp_path
):
    results = tmp_path / "results"
    folder = make_study(2, results=(results,))
    for number in range(2):
        _kept_result(results / f"{SECRET}-{number}", number)
    start(qtbot, dock, folder)
    case = dock.sitting.case.case_id
    assert len(viewer.layers) == 1
    qtbot.keyClick(dock, Qt.Key.Key_1)
    qtbot.keyClick(dock, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: dock.panel.revealed.isVisibleTo(dock))
    words = dock.panel.revealed.text.text()
    assert f"File: {case}.svs" in words
    assert "hand-model: 2+ (equivocal, ISH required)" in words
    assert viewer.layers[0].name == case
    assert len(viewer.layers) > 1
    assert session_of(viewer).shown(dock.view.slides[0].slide_id).score == "2+"
    assert not dock.panel.form.isEnabled()
    assert dock.panel.save.isEnabled()
    qtbot.keyClick(dock, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: dock.sitting.case.case_id != case)
    shown(qtbot, dock)
    assert [layer.name for layer in viewer.layers] == ["Case 2"]
    dock.go_back()
    qtbot.waitUntil(lambda: dock.panel.revealed.isVisibleTo(dock))
    assert viewer.layers[0].name == case
    dock.panel.correct.click()
    qtbot.keyClick(dock, Qt.Key.Key_3)
    qtbot.keyClick(dock, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: len(read_readings(folder).readings) == 2)
    qtbot.waitUntil(lambda: dock.panel.correct.isVisibleTo(dock))
    found = [(of.score, of.changed, of.model_seen) for of in read_readings(folder).readings]
    assert found == [("1+", False, False), ("3+", True, True)]


def test_a_slide_that_cannot_be_opened_is_skipped_with_its_reason(qtbot, viewer, dock, make_study, broken):
    folder = make_study(3, reveal="never")
    first = order_of(read_study(folder), "Anna", "1")[0]
    broken.add(f"{first}.svs")
    start(qtbot, dock, folder)
    assert dock.panel.title.text() == "Case 2"
    assert dock.message.text.text().startswith("Case 1 is skipped, because a file of it is not there.")
    assert not [text for text in texts_of(dock) if SECRET in text]
    (skipped,) = read_readings(folder).readings
    assert (skipped.case, skipped.skipped) == (first, f"{first}.svs is no slide: get it again.")


def test_a_disk_that_is_gone_ends_the_sitting_instead_of_skipping_all(qtbot, dock, make_study, broken):
    folder = make_study(6)
    broken |= {f"{SECRET}-{number}.svs" for number in range(6)}
    dock.open_study(folder)
    qtbot.waitUntil(lambda: dock.picker.folder == folder)
    dock.begin()
    qtbot.waitUntil(lambda: "3 cases in a row" in dock.message.text.text())
    assert dock.sitting is None
    assert len(read_readings(folder).readings) == 2
    ReadingFile(folder, "Anna", "1").close()  # nobody holds it


def test_a_case_is_skipped_for_a_reason_by_keyboard(qtbot, dock, make_study):
    folder = make_study(reveal="never")
    start(qtbot, dock, folder)
    case = dock.sitting.case.case_id
    dock.panel.skip.click()
    qtbot.keyClicks(dock.panel.reason, "no invasive tumour")
    qtbot.keyClick(dock.panel.reason, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: dock.sitting.case.case_id != case)
    (reading,) = read_readings(folder).readings
    assert (reading.case, reading.skipped) == (case, "no invasive tumour")


def test_other_slides_are_closed_before_a_blinded_reading(qtbot, viewer, dock, add_slide, make_study):
    add_slide(make_slide((60, 80)))
    folder = make_study()
    dock.open_study(folder)
    qtbot.waitUntil(lambda: dock.picker.folder == folder)
    dock.begin()
    assert dock.sitting is None
    assert dock.message.action.text() == "Close them"
    dock.message.action.click()
    shown(qtbot, dock)
    assert [layer.name for layer in viewer.layers] == ["Case 1"]


def test_the_time_counts_while_napari_is_active(qtbot, dock, make_study):
    now = [0.0]
    dock.watch = Stopwatch(lambda: now[0])
    dock.ticking.stop()
    folder = make_study(reveal="never")
    start(qtbot, dock, folder)
    dock.ticking.stop()
    dock.watch.reset()
    dock.set_active(True)
    now[0] = 65
    dock.set_active(False)
    assert dock.panel.clock.text() == "1:05 (paused)"
    now[0] = 500
    dock.panel.form.scores.pick("1+")
    case = dock.sitting.case.case_id
    dock.save()
    qtbot.waitUntil(lambda: dock.sitting.case.case_id != case)
    assert read_readings(folder).readings[0].seconds == 65


def test_the_time_stands_while_another_program_is_active(qtbot, dock, make_study, monkeypatch):
    start(qtbot, dock, make_study())
    for state in (Qt.ApplicationState.ApplicationInactive, Qt.ApplicationState.ApplicationActive):
        monkeypatch.setattr(QGuiApplication, "applicationState", lambda state=state: state)
        QGuiApplication.instance().applicationStateChanged.emit(state)
        assert dock.watch.running == (state == Qt.ApplicationState.ApplicationActive)


def test_enter_in_a_field_of_napari_saves_nothing(qtbot, dock, make_study):
    start(qtbot, dock, make_study(reveal="never"))
    elsewhere, ours = QLineEdit(), dock.panel.form.comment
    qtbot.addWidget(elsewhere)
    for field, saves in ((elsewhere, False), (ours, True), (elsewhere, False), (None, True)):
        QApplication.instance().focusChanged.emit(None, field)
        assert [shortcut.isEnabled() for shortcut in dock.panel.enter] == [saves, saves]


def test_another_slide_under_the_name_of_a_case_is_noticed(qtbot, dock, make_study):
    folder = make_study(1)
    study = json.loads((folder / "study.json").read_text())
    study["cases"][0]["slides"][0]["fingerprint"] = "of another content"
    (folder / "study.json").write_text(json.dumps(study))
    start(qtbot, dock, folder)
    qtbot.waitUntil(lambda: "another one" in dock.panel.note.text())


def test_a_score_is_asked_for_before_anything_is_saved(qtbot, dock, make_study):
    folder = make_study()
    start(qtbot, dock, folder)
    qtbot.keyClick(dock, Qt.Key.Key_Return)
    assert "Choose a score first" in dock.message.text.text()
    assert read_readings(folder).readings == ()


def test_a_study_is_made_in_the_dock_and_its_paths_do_not_stay(qtbot, dock, tmp_path):
    slides = tmp_path / "slides"
    slides.mkdir()
    for number in range(2):
        (slides / f"{SECRET}-{number}.svs").write_bytes(bytes([number]))
    form = dock.picker.form
    dock.make_study()
    assert dock.message.text.text() == "Choose the folder of the study."
    form.folder.edit.setText(str(tmp_path / "study"))
    form.slides.edit.setText(str(slides))
    form.readers.setText("Anna, Ben ,")
    form.rounds.setValue(2)
    dock.make_study()
    qtbot.waitUntil(lambda: dock.picker.study is not None)
    assert dock.picker.study.readers == ("Anna", "Ben")
    assert dock.picker.facts.text() == "study: 2 cases, 2 rounds, blinded"
    assert not [text for text in texts_of(dock) if SECRET in text or "slides/" in text or str(slides) in text]


def test_closing_the_dock_closes_the_case_and_lets_others_read(qtbot, viewer, make_study):
    dock = ReadingDock(viewer)
    qtbot.addWidget(dock)
    folder = make_study()
    start(qtbot, dock, folder)
    dock.close()
    assert list(viewer.layers) == []
    ReadingFile(folder, "Anna", "1").close()


def test_the_search_for_names_finds_them_in_what_is_not_blinded(qtbot, viewer, dock, make_dock, make_study):
    scoring = make_dock()
    start(qtbot, dock, make_study(blinded=False))
    name = dock.sitting.case.case_id
    assert name in dock.panel.title.text()
    for texts in (texts_of(scoring), texts_of_viewer(viewer)):
        assert [text for text in texts if SECRET in text]
