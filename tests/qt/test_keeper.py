"""Work is kept within a second by itself, brought back in the dock, said, and forgotten on request."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from driving import score
from napari.components import ViewerModel

from napari_her2._napari.layers import slide_layer
from napari_her2._napari.regions import add_region_layer
from napari_her2._qt.parts import keeper as keepers
from napari_her2.desk.own_score import ManualScore
from napari_her2.desk.store import Desk
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock

FINGERPRINT = "fingerprint of case-1"
OWN = ManualScore("2+", "pending", "a note")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "KEPT_WITHIN_MS", 50)


def settled(qtbot: QtBot, dock: ScoringDock) -> None:
    qtbot.waitUntil(lambda: not dock.keeper.busy and not dock.keeper.keeping.unsought())


@pytest.fixture
def worked_on(
    qtbot: QtBot,
    make_dock: Callable[[], ScoringDock],
    add_slide: Callable[..., object],
    viewer: ViewerModel,
    asked: list[object],
) -> ScoringDock:
    """A dock with a slide on which two regions were drawn, that was scored, and read."""
    dock = make_dock()
    layer = add_slide(make_slide())
    settled(qtbot, dock)
    regions = add_region_layer(viewer, layer)
    regions.add_rectangles([[10, 10], [10, 50], [30, 50], [30, 10]])
    regions.add_rectangles([[110, 10], [110, 50], [130, 50], [130, 10]])
    score(qtbot, dock)
    dock.session.set_manual(dock.slides.slide_id, OWN)
    settled(qtbot, dock)
    return dock


@pytest.fixture
def reopened(qtbot: QtBot, make_dock: Callable[[], ScoringDock], monkeypatch: pytest.MonkeyPatch) -> object:
    """The slide in another viewer, as after napari was started anew."""
    from napari_her2._qt.scoring.dock import ScoringDock

    docks: list[ScoringDock] = []
    viewers: list[ViewerModel] = []  # a dock holds its viewer weakly

    def reopen() -> ScoringDock:
        viewer = ViewerModel()
        dock = ScoringDock(viewer)
        qtbot.addWidget(dock)
        docks.append(dock)
        data, options, _ = slide_layer(make_slide())
        viewer.add_image(data, **options)
        viewers.append(viewer)
        settled(qtbot, dock)
        return dock

    yield reopen
    while docks:
        docks.pop().shutdown()
    for viewer in viewers:
        viewer.layers.clear()
    del viewer
    viewers.clear()
    gc.collect()


def test_work_is_kept_by_itself_and_comes_back(
    qtbot: QtBot, worked_on: ScoringDock, reopened: Callable[[], ScoringDock]
) -> None:
    kept = Desk().read(FINGERPRINT)
    assert (len(kept.regions), list(kept.results), kept.own_score) == (2, ["hand-model"], OWN)
    assert worked_on.kept.note.text() == "Kept: 2 regions, the result of hand-model, your own score."
    dock = reopened()
    assert dock.kept.isVisibleTo(dock)
    assert dock.kept.note.text().startswith("Brought back from ")
    assert dock.kept.note.text().endswith(": 2 regions, the result of hand-model, your own score.")
    assert dock.result.isVisibleTo(dock)
    assert dock.result.manual.value() == OWN
    assert dock.regions.combo.count() == 2  # the whole slide, and the layer that came back
    assert dock.regions.layer_name == ""  # the whole slide was scored


def test_regions_that_came_back_are_chosen_where_nothing_was_scored_yet(
    qtbot: QtBot,
    make_dock: Callable[[], ScoringDock],
    add_slide: Callable[..., object],
    viewer: ViewerModel,
    reopened: Callable[[], ScoringDock],
) -> None:
    dock = make_dock()
    regions = add_region_layer(viewer, add_slide(make_slide()))
    regions.add_rectangles([[10, 10], [10, 50], [30, 50], [30, 10]])
    settled(qtbot, dock)
    again = reopened()
    assert again.regions.layer_name == regions.name


def test_nothing_is_asked_of_the_main_thread_for_long(
    qtbot: QtBot, worked_on: ScoringDock, reopened: Callable[[], ScoringDock], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow disks are waited for in threads."""
    from napari_her2.desk import store

    read = store.Desk.read

    def slowly(desk: Desk, fingerprint: str) -> object:
        time.sleep(0.3)
        return read(desk, fingerprint)

    monkeypatch.setattr(store.Desk, "read", slowly)
    before = time.thread_time()
    dock = reopened()
    assert dock.result.isVisibleTo(dock)
    assert before < time.thread_time()  # it was brought back here, and waited for elsewhere


def test_closing_the_slide_and_the_dock_at_once_loses_nothing(
    qtbot: QtBot,
    make_dock: Callable[[], ScoringDock],
    add_slide: Callable[..., object],
    viewer: ViewerModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keepers, "KEPT_WITHIN_MS", 60_000)
    dock = make_dock()
    add_slide(make_slide())
    qtbot.waitUntil(lambda: not dock.keeper.keeping.unsought())
    dock.session.set_manual(dock.slides.slide_id, OWN)
    viewer.layers.clear()
    assert Desk().read(FINGERPRINT) is None
    dock.shutdown()
    assert Desk().read(FINGERPRINT).own_score == OWN


def test_a_dock_that_is_destroyed_with_its_window_writes_first(
    qtbot: QtBot,
    make_dock: Callable[[], ScoringDock],
    add_slide: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qtpy.QtWidgets import QWidget

    monkeypatch.setattr(keepers, "KEPT_WITHIN_MS", 60_000)
    dock = make_dock()
    add_slide(make_slide())
    qtbot.waitUntil(lambda: not dock.keeper.keeping.unsought())
    dock.session.set_manual(dock.slides.slide_id, OWN)
    QWidget.deleteLater(dock)
    qtbot.waitUntil(lambda: Desk().read(FINGERPRINT) is not None)
    assert Desk().read(FINGERPRINT).own_score == OWN


def test_a_slide_that_is_closed_without_a_dock_is_kept(
    qtbot: QtBot, worked_on: ScoringDock, viewer: ViewerModel
) -> None:
    session, slide_id = worked_on.session, worked_on.slides.slide_id
    worked_on.shutdown()
    session.set_manual(slide_id, ManualScore("3+"))
    viewer.layers.clear()
    assert Desk().read(FINGERPRINT).own_score == ManualScore("3+")


def test_a_full_disk_is_said_once_and_the_next_change_is_kept(
    qtbot: QtBot, worked_on: ScoringDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock, slide_id, said = worked_on, worked_on.slides.slide_id, []
    dock.keeper.failed.connect(said.append)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        for text in ("one", "two"):
            dock.session.set_manual(slide_id, ManualScore("3+", note=text))
            settled(qtbot, dock)
    assert len(said) == 1
    assert "No space left" in dock.message.text.text()
    dock.session.set_manual(slide_id, ManualScore("3+", note="three"))
    settled(qtbot, dock)
    assert Desk().read(FINGERPRINT).own_score == ManualScore("3+", note="three")


def test_forgetting_asks_first_and_says_what_goes(qtbot: QtBot, worked_on: ScoringDock) -> None:
    dock = worked_on
    dock.kept.button.click()
    question = dock.kept.question
    assert question.isVisibleTo(dock)
    assert "2 regions, the result of hand-model, your own score" in question.text.text()
    assert "on the disk" in question.text.text()
    question.no.click()
    assert Desk().read(FINGERPRINT) is not None
    dock.kept.button.click()
    question.yes.click()
    settled(qtbot, dock)
    assert Desk().read(FINGERPRINT) is None
    assert not dock.kept.isVisibleTo(dock)
    assert not dock.result.isVisibleTo(dock)
    assert dock.regions.combo.count() == 1


def test_nothing_is_kept_where_the_user_does_not_want_it(
    qtbot: QtBot,
    make_dock: Callable[[], ScoringDock],
    add_slide: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_her2._napari.settings import Settings
    from napari_her2._qt.parts import dock as docks

    monkeypatch.setattr(docks, "read_settings", lambda: Settings(keep_work=False))
    dock = make_dock()
    add_slide(make_slide())
    dock.session.set_manual(dock.slides.slide_id, OWN)
    dock.shutdown()
    assert dock.keeper is None
    assert len(Desk()) == 0


def test_a_slide_that_was_moved_on_the_disk_keeps_its_work(
    qtbot: QtBot, make_dock: Callable[[], ScoringDock], viewer: ViewerModel, tmp_path: Path
) -> None:
    """A real file: identified by its content, in a thread."""
    import tifffile

    from napari_her2 import open_slide

    (tmp_path / "before").mkdir()
    path = tmp_path / "before" / "a.svs"
    image = np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8)
    tifffile.imwrite(
        path, image, tile=(256, 256), photometric="rgb", description="Aperio |MPP = 0.5|AppMag = 20"
    )
    dock = make_dock()

    def opened() -> str:
        data, options, _ = slide_layer(open_slide(path))
        viewer.add_image(data, **options)
        settled(qtbot, dock)
        return dock.slides.slide_id

    dock.session.set_manual(opened(), OWN)
    settled(qtbot, dock)
    viewer.layers.clear()
    settled(qtbot, dock)
    path = path.rename(tmp_path / "renamed.svs")
    slide_id = opened()
    assert dock.session.slide_of(slide_id).name == "renamed"
    assert dock.session.manual(slide_id) == OWN
    viewer.layers.clear()
