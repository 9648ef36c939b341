"""How several slides of a case are joined is chosen in the training dock and in the dock of a day's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from qtpy.QtCore import Qt

from napari_her2._qt.day_list.dock import DayListDock
from napari_her2._qt.parts.case_slides import CaseSlides
from napari_her2._qt.training.form import TrainingForm
from napari_her2.cohort.day_list import DayList
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.cohort.entry import Entry
from napari_her2.models.case_slides import EACH, JOINED_ANSWERS, WAYS
from napari_her2.training_runs.processes import RunRequest, train_command
from napari_her2.training_runs.work import ConfigChoice, MethodChoice

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2.cohort.day_items import DaySettings

CONFIGS = (ConfigChoice("protocol", "as published"),)
METHODS = (
    MethodChoice("tiles", "of tiles", CONFIGS, case_ways=WAYS),
    MethodChoice("pixels", "of pixels", CONFIGS, case_ways=(EACH, JOINED_ANSWERS)),
    MethodChoice("patches", "of patches", CONFIGS),
)


@pytest.fixture
def form(qtbot: QtBot, tmp_path: Path) -> TrainingForm:
    (tmp_path / "cases.csv").write_text("case_id,he,score\n")
    form = TrainingForm()
    qtbot.addWidget(form)
    form.set_methods(METHODS)
    form.data.edit.setText(str(tmp_path / "cases.csv"))
    return form


def captions(choice: CaseSlides) -> list[str]:
    return [choice.choice.itemText(row) for row in range(choice.choice.count())]


def test_a_training_is_asked_for_with_the_way_that_was_chosen(form: TrainingForm) -> None:
    assert (form.request.case_slides, form.request.case_rule) == ("", "")
    assert "--case-slides" not in train_command(form.request)
    form.case_slides.choose("joined answers", "highest")
    assert (form.request.case_slides, form.request.case_rule) == ("joined answers", "highest")
    command = train_command(form.request)
    assert command[command.index("--case-slides") + 1] == "joined answers"
    assert command[command.index("--case-rule") + 1] == "highest"


def test_only_what_a_method_can_do_is_offered_and_what_was_chosen_stays_where_it_can(
    form: TrainingForm,
) -> None:
    assert len(captions(form.case_slides)) == 5
    form.case_slides.choose("joined answers", "mean")
    form.method.setCurrentIndex(1)
    assert "Tiles of all its slides" not in captions(form.case_slides)
    assert form.request.case_slides == "joined answers"
    form.method.setCurrentIndex(0)
    form.case_slides.choose("joined bags")
    form.method.setCurrentIndex(1)
    assert form.request.case_slides == "", "it cannot join bags"
    form.method.setCurrentIndex(2)
    assert form.case_slides.isHidden()
    assert form.request.case_slides == ""


def test_a_run_that_goes_on_has_the_way_that_it_began_with(form: TrainingForm, tmp_path: Path) -> None:
    began = RunRequest(
        "tiles",
        "protocol",
        str(tmp_path / "cases.csv"),
        "",
        case_slides="joined answers",
        case_rule="highest",
    )
    form.set_request(began)
    assert (form.request.case_slides, form.request.case_rule) == ("joined answers", "highest")


def test_it_is_chosen_by_keyboard_and_every_entry_says_what_it_does(qtbot: QtBot) -> None:
    choice = CaseSlides("As the model learnt it", "Rows of one case_id are slides of one case.", rules=False)
    qtbot.addWidget(choice)
    choice.show()
    assert choice.caption.buddy() is choice.choice
    assert "&" in choice.caption.text()
    choice.choice.setFocus()
    with qtbot.waitSignal(choice.changed, timeout=60_000):
        qtbot.keyClick(choice.choice, Qt.Key.Key_Down)
    assert choice.way == EACH
    assert choice.choice.accessibleName()
    tips = [choice.choice.itemData(row, Qt.ItemDataRole.ToolTipRole) for row in range(choice.choice.count())]
    assert all(tips)
    assert len(set(tips)) == len(tips) == 4
    assert "row" in choice.toolTip()


@pytest.fixture
def dock(qtbot: QtBot, viewer: ViewerModel) -> DayListDock:
    dock = DayListDock(viewer)
    qtbot.addWidget(dock)
    yield dock
    dock.shutdown()


def rows(folder: Path, *cases: str) -> DayList:
    for number in range(len(cases)):
        (folder / f"{number}.svs").write_bytes(b"x")
    return DayList(tuple(Entry(f"{n}", folder / f"{n}.svs", case_id=case) for n, case in enumerate(cases)))


def settings_of(dock: DayListDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DaySettings:
    """What a list would begin with."""
    seen: list[DaySettings] = []
    monkeypatch.setattr(DayQueue, "begin", lambda *given: seen.append(given[3]))
    dock.form.out.edit.setText(str(tmp_path / "out"))
    dock._beginning()()
    return seen[0]


def test_a_list_is_asked_only_where_a_case_has_several_rows(
    dock: DayListDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dock.form.case_slides.isHidden()
    dock.form.take(rows(tmp_path, "7", "8"))
    assert dock.form.case_slides.isHidden()
    dock.form.case_slides.choose("each")
    assert settings_of(dock, tmp_path, monkeypatch).case_slides == "auto"
    dock.form.take(rows(tmp_path, "7", "7", "8"))
    assert not dock.form.case_slides.isHidden()
    assert settings_of(dock, tmp_path, monkeypatch).case_slides == "each"
    dock.form.case_slides.choose("")
    assert settings_of(dock, tmp_path, monkeypatch).case_slides == "auto"
    dock.form.cases.model.take([1], False)  # the other row of the case is left out
    assert dock.form.case_slides.isHidden()
