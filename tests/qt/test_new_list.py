"""The form of a new list: what is missing, and its cases changed by the user."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from qtpy.QtCore import Qt

from napari_her2._qt.day_list.new_list import NewList
from napari_her2.cohort.day_list import DayList
from napari_her2.cohort.entry import Entry

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_her2.models.card import ModelCard


@pytest.fixture
def form(qtbot: QtBot) -> NewList:
    form = NewList()
    qtbot.addWidget(form)
    return form


def test_what_is_missing_is_named_until_nothing_is(form: NewList, card: ModelCard, tmp_path: Path) -> None:
    assert "slides" in form.missing
    form.take(DayList((Entry("1", tmp_path / "1.svs"),)))
    form.models.set_models((SimpleNamespace(name="hand-model", path=None, card=card),))
    assert "model" in form.missing
    form.models.tick(("hand-model",))
    assert "folder" in form.missing
    form.out.edit.setText(str(tmp_path / "out"))
    assert form.missing == ""
    form.cases.model.take([0], False)
    assert "slides" in form.missing


def test_results_go_beside_the_slides_unless_a_folder_is_named(form: NewList, tmp_path: Path) -> None:
    form.source.paths = (tmp_path,)
    found = DayList((Entry("1", tmp_path / "1.svs"),))
    form.take(found)
    assert form.out.text == str(tmp_path / "her2-results")
    form.out.edit.setText(str(tmp_path / "elsewhere"))
    form.take(found)
    assert form.out.text == str(tmp_path / "elsewhere")


def test_cases_are_swapped_and_left_out_by_keys_and_buttons(form: NewList, tmp_path: Path) -> None:
    he, ihc = tmp_path / "a.svs", tmp_path / "b.svs"
    cases = form.cases
    cases.set_entries((Entry("1", he, ihc), Entry("2", he)))
    cases.mark([0, 1])
    cases.swap_marked()
    assert [entry.slides for entry in cases.model.entries] == [(ihc, he), (he,)]
    assert cases.model.entries[1].ihc == he
    cases.leave.click()
    assert cases.model.chosen() == ()
    cases.leave.click()
    assert len(cases.model.chosen()) == 2
    index = cases.model.index(0, 0)
    assert cases.model.setData(index, Qt.CheckState.Unchecked.value, Qt.ItemDataRole.CheckStateRole)
    assert [entry.name for entry in cases.model.chosen()] == ["2"]


def test_names_with_markup_are_shown_as_they_are(form: NewList, tmp_path: Path) -> None:
    form.cases.set_entries((Entry("<b>x</b>\nsecond line", tmp_path / "a.svs"),))
    model = form.cases.model
    assert not Qt.mightBeRichText(model.data(model.index(0, 0)))
    assert "\n" not in model.data(model.index(0, 0))
    assert not Qt.mightBeRichText(model.data(model.index(0, 0), Qt.ItemDataRole.ToolTipRole))
