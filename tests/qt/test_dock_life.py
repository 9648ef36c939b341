from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING

import pytest
from driving import score
from qtpy.QtWidgets import QWidget

from napari_her2._napari.layers import OverlayLook
from napari_her2._qt.parts.jobs import Failure
from napari_her2._qt.parts.turns import one_a_turn
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2._qt.scoring import model_shelf
from napari_her2.errors import ModelNameTaken
from napari_her2.steps import Progress
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot


def test_closing_the_slide_cancels_its_scoring_and_takes_its_overlays_along(
    qtbot: QtBot,
    make_dock: object,
    viewer: ViewerModel,
    add_slide: object,
    asked: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dock = make_dock()
    layer = add_slide(make_slide())
    score(qtbot, dock)
    started = threading.Event()

    def endless(slide: object, model: str, **options: object) -> Generator[Progress, None, None]:
        while True:
            started.set()
            yield Progress("Embedding tiles")

    monkeypatch.setattr(scoring_dock, "scoring", endless)
    with qtbot.waitSignal(dock.score_job.cancelled):
        dock.score()
        qtbot.waitUntil(started.is_set)
        viewer.layers.remove(layer)
    assert len(viewer.layers) == 0
    assert not dock.result.isVisibleTo(dock)


def test_closing_the_dock_while_it_scores_stops_the_work(
    qtbot: QtBot, make_dock: object, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, started = threading.Event(), threading.Event()

    def endless(slide: object, model: str, **options: object) -> Generator[Progress, None, None]:
        try:
            while True:
                started.set()
                yield Progress("Embedding tiles")
        finally:
            closed.set()

    monkeypatch.setattr(scoring_dock, "scoring", endless)
    dock = make_dock()
    add_slide(make_slide())
    dock.score()
    qtbot.waitUntil(started.is_set)
    dock.close()
    assert closed.is_set()


def focus_chain(dock: QWidget) -> list[str]:
    """Widgets in the order in which the Tab key goes through them, by what they are and are called."""
    found, widget = [], dock.nextInFocusChain()
    while widget is not dock:
        found.append(f"{type(widget).__name__} {widget.accessibleName()}")
        widget = widget.nextInFocusChain()
    return found


@pytest.fixture
def at_once_and_by_turns(
    qtbot: QtBot, make_dock: object, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> tuple[scoring_dock.ScoringDock, scoring_dock.ScoringDock]:
    """Two docks of a viewer with a slide: with all its parts, and one whose parts are about to come."""
    add_slide(make_slide())
    at_once = make_dock()
    monkeypatch.setattr(scoring_dock, "one_a_turn", one_a_turn)
    dock = scoring_dock.ScoringDock(at_once.session.viewer)
    qtbot.addWidget(dock)
    return at_once, dock


def test_a_dock_whose_parts_come_one_a_turn_is_that_whose_parts_come_at_once(
    qtbot: QtBot, at_once_and_by_turns: tuple[scoring_dock.ScoringDock, scoring_dock.ScoringDock]
) -> None:
    at_once, dock = at_once_and_by_turns
    assert dock.slides.slide_id == at_once.slides.slide_id  # what is there at once shows the slide
    assert "result" not in vars(dock)
    qtbot.waitUntil(lambda: bool(dock.models.entries) and not dock.look_job.running)
    assert focus_chain(dock) == focus_chain(at_once)
    assert dock.progress.start.isEnabled()
    shown = [child.isVisibleTo(dock) for child in dock.findChildren(QWidget)]
    assert shown == [child.isVisibleTo(at_once) for child in at_once.findChildren(QWidget)]


def test_a_part_that_is_asked_for_early_comes_at_once_with_all_others(
    qtbot: QtBot, at_once_and_by_turns: tuple[scoring_dock.ScoringDock, scoring_dock.ScoringDock]
) -> None:
    at_once, dock = at_once_and_by_turns
    assert "ahead" not in vars(dock)
    assert dock.ahead.job is not None  # before any turn of the event loop
    assert dock.slides.slide_id == at_once.slides.slide_id
    assert dock.whole
    assert vars(dock).keys() >= set(dock.PARTS)
    chain = focus_chain(dock)
    qtbot.wait(50)  # what was to come in turns does not come again
    assert focus_chain(dock) == chain == focus_chain(at_once)
    with pytest.raises(AttributeError, match="no such_part"):
        _ = dock.such_part


@pytest.mark.parametrize("destroyed", [True, False])
def test_a_dock_that_goes_while_its_parts_come_makes_no_more_of_them(
    qtbot: QtBot, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch, destroyed: bool
) -> None:
    monkeypatch.setattr(scoring_dock, "one_a_turn", one_a_turn)
    dock = scoring_dock.ScoringDock(viewer)
    qtbot.waitUntil(lambda: "regions" in vars(dock))
    assert "result" not in vars(dock)
    if destroyed:
        dock.deleteLater()  # as with its window
    else:
        dock.close()
    qtbot.wait(100)
    assert "result" not in vars(dock)


def test_the_dock_can_be_used_with_the_keyboard_and_read_aloud(make_dock: object) -> None:
    dock = make_dock()
    for widget in (
        dock.slides.combo,
        dock.models.combo,
        dock.regions.combo,
        dock.result.overlays.opacity,
    ):
        assert widget.accessibleName()
        assert widget.focusPolicy() != widget.focusPolicy().NoFocus


def test_the_dock_fits_a_small_screen(make_dock: object) -> None:
    dock = make_dock()
    hint = dock.minimumSizeHint()
    assert hint.width() <= 400
    assert hint.height() <= 500


def test_a_closed_dock_leaves_nothing_behind(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    before = list(viewer.mouse_drag_callbacks), list(viewer.mouse_move_callbacks)
    dock = make_dock()
    slide = make_slide()
    slide_ref = weakref.ref(slide)
    layer = add_slide(slide)
    score(qtbot, dock)
    dock.close()
    assert (list(viewer.mouse_drag_callbacks), list(viewer.mouse_move_callbacks)) == before
    viewer.layers.remove(layer)
    asked.clear()
    del slide, layer
    gc.collect()
    assert slide_ref() is None


def test_a_closed_dock_goes_away_itself(
    qtbot: QtBot, viewer: ViewerModel, equipment: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finding_equipment(settings: object) -> Generator[Progress, None, object]:
        yield Progress("Looking for models")
        return equipment

    monkeypatch.setattr(model_shelf, "finding_equipment", finding_equipment)
    dock = scoring_dock.ScoringDock(viewer)
    with qtbot.waitSignal(dock.look_job.returned):
        pass
    seen = weakref.ref(dock)
    dock.close()
    del dock
    gc.collect()
    qtbot.wait(10)
    gc.collect()
    assert seen() is None


def test_smooth_panning_is_naparis_own_setting_and_starts_as_it_is(make_dock: object) -> None:
    from napari.settings import get_settings

    experimental = get_settings().experimental
    before = experimental.async_
    try:
        dock = make_dock()
        assert dock.smooth.isChecked() == before
        dock.smooth.click()
        assert experimental.async_ != before
    finally:
        experimental.async_ = before


def test_a_dock_goes_without_the_garbage_collector(make_dock: object) -> None:
    """What only the collector can free it frees in any thread, and Qt ends the program then."""
    gc.collect()
    gc.disable()
    try:
        dock = make_dock()
        dock.add_job.failed.emit(Failure("Another of its name is there.", kind=ModelNameTaken))
        assert dock.message.action.text() == "Replace it"  # which the dock keeps until it is pressed
        ref = weakref.ref(dock)
        dock.shutdown()
        dock.close()
        del dock
        assert ref() is None
    finally:
        gc.enable()


def test_a_dock_that_is_dropped_leaves_no_part_of_it(make_dock: object) -> None:
    gc.collect()
    gc.disable()
    try:
        dock = make_dock()
        seen = [weakref.ref(part) for part in (dock, dock.questions, dock.slides, dock.case, dock.result)]
        del dock
        assert [ref() for ref in seen] == [None] * len(seen)
    finally:
        gc.enable()


def test_a_dock_that_is_dropped_is_told_nothing_even_where_python_keeps_its_parts(
    make_dock: object, viewer: ViewerModel, add_slide: object, qtbot: QtBot, asked: list[dict[str, object]]
) -> None:
    """As a reference cycle keeps them: what is called then has lost its Qt half."""
    dock = make_dock()
    layer = add_slide(make_slide())
    score(qtbot, dock)
    session, slide_id, result = dock.session, dock.slides.slide_id, dock.session.result(dock.slides.slide_id)
    kept = [dock, *dock.findChildren(QWidget)]
    destroyed: list[bool] = []
    dock.destroyed.connect(lambda: destroyed.append(True))
    dock.deleteLater()
    qtbot.waitUntil(lambda: bool(destroyed))
    session.slides_changed.emit()
    session.models_changed.emit()
    session.pairing_changed.emit()
    session.result_changed.emit(slide_id)
    session.look_changed.emit(slide_id)
    viewer.theme = "light" if viewer.theme == "dark" else "dark"
    session.set_result(result, OverlayLook())
    viewer.layers.remove(layer)
    assert kept
