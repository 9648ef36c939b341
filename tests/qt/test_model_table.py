"""Several models scored one slide: a row for each, and the way between them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from qtpy.QtCore import Qt

from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.session import session_of
from napari_her2._qt.scoring.model_table import COLUMNS, ModelTable
from scored import make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock


@pytest.fixture
def table(qtbot: QtBot, viewer: ViewerModel, add_slide: Callable[..., object]) -> Iterator[ModelTable]:
    slide = make_slide()
    add_slide(slide)
    session = session_of(viewer)
    result = make_result(slide)
    session.set_result(replace(result, model="first", regions="2 drawn regions"), OverlayLook())
    hidden = replace(result.doubt, verdict="unlike", reason="strange")
    withheld = replace(result, model="<b>second</b>", score="3+", doubt=hidden, abstained=True)
    session.set_result(withheld, OverlayLook())
    made = ModelTable(session)
    qtbot.addWidget(made)
    made.show_slide(slide.slide_id)
    made.show()
    yield made
    made.shutdown()


def texts(table: ModelTable) -> list[list[str]]:
    return [
        [table.table.item(row, column).text().replace("\u2060", "").strip() for column in range(len(COLUMNS))]
        for row in range(table.table.rowCount())
    ]


def test_each_model_has_a_row_and_a_withheld_answer_stays_withheld(table: ModelTable) -> None:
    first, second = texts(table)
    assert first[0] == "first"
    assert first[1] == make_result().label
    assert first[3] == "2 drawn regions"
    assert second[0] == "▸ <b>second</b>"  # plain text, and marked as the one that is shown
    assert second[1] == "withheld"
    assert second[2] == "unlike"
    assert second[3] == "whole tissue"
    tips = [table.table.item(1, column).toolTip() for column in range(len(COLUMNS))]
    assert not any("3+" in tip for tip in tips)


def test_a_click_and_enter_show_a_model(qtbot: QtBot, table: ModelTable) -> None:
    slide_id = table._slide_id
    rect = table.table.visualItemRect(table.table.item(0, 1))
    qtbot.mouseClick(table.table.viewport(), Qt.MouseButton.LeftButton, pos=rect.center())
    assert table._session.shown(slide_id).model == "first"
    assert [row[0][:1] for row in texts(table)] == ["▸", "<"]
    table.table.setCurrentCell(1, 0)
    table.show_result.click()
    assert table._session.shown(slide_id).model == "<b>second</b>"


def test_a_removed_model_leaves_the_other(table: ModelTable) -> None:
    table.remove.click()  # of the row that is shown
    assert [row[0] for row in texts(table)] == ["▸ first"]
    assert table._session.shown(table._slide_id).model == "first"


def test_the_table_is_there_once_there_is_a_choice(
    make_dock: Callable[[], ScoringDock], add_slide: Callable[..., object]
) -> None:
    dock, slide = make_dock(), make_slide()
    add_slide(slide)
    result = make_result(slide)
    dock.session.set_result(replace(result, model="first"), OverlayLook())
    assert not dock.result.several_models.isVisibleTo(dock.result)
    dock.session.set_result(replace(result, model="second"), OverlayLook())
    assert dock.result.several_models.isVisibleTo(dock.result)
    dock.session.choose_result(slide.slide_id, "first")
    dock.session.drop_result(slide.slide_id, "second")
    assert not dock.result.several_models.isVisibleTo(dock.result)
