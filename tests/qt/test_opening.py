"""Slides come into the window: dropped on the dock, chosen, or named on the command line."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QLineEdit
from typer.testing import CliRunner

from napari_her2._napari.opening import add_slides, opening_slides
from napari_her2._napari.session import session_of
from napari_her2._qt import window
from napari_her2.cli import app
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock
    from napari_her2.slide.whole_slide import Slide


def picture(folder: Path, name: str, shape: tuple[int, int] = (300, 400), grey: int = 200) -> Path:
    path = folder / f"{name}.png"
    cv2.imwrite(str(path), np.full((*shape, 3), grey, np.uint8))
    return path


def mime_of(*what: Path | str) -> QMimeData:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(w)) if isinstance(w, Path) else QUrl(w) for w in what])
    return mime


def drop(dock: ScoringDock, mime: QMimeData) -> bool:
    """Drag something over a dock and let it go there; return whether the dock takes it."""
    copy, button, none = (
        Qt.DropAction.CopyAction,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    enter = QDragEnterEvent(QPointF(20, 20).toPoint(), copy, mime, button, none)
    enter.ignore()
    QApplication.sendEvent(dock, enter)
    if enter.isAccepted():
        QApplication.sendEvent(dock, QDropEvent(QPointF(20, 20), copy, mime, button, none))
    return enter.isAccepted()


def names(viewer: ViewerModel) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_a_slide_that_is_dropped_on_the_dock_is_opened_and_chosen(
    qtbot: QtBot, make_dock: Callable[[], ScoringDock], viewer: ViewerModel, tmp_path: Path
) -> None:
    dock = make_dock()
    with qtbot.waitSignal(dock.slides.opener.opened):
        assert drop(dock, mime_of(picture(tmp_path, "core")))
    assert names(viewer) == ["core"]
    assert dock.slides.slide.path == tmp_path / "core.png"


def test_several_are_opened_beside_one_another_and_all_are_in_view(
    qtbot: QtBot, make_dock: Callable[[], ScoringDock], viewer: ViewerModel, tmp_path: Path
) -> None:
    dock = make_dock()
    paths = [picture(tmp_path, name, grey=grey) for name, grey in (("a", 200), ("b", 190), ("c", 180))]
    with qtbot.waitSignal(dock.slides.opener.opened):
        drop(dock, mime_of(*paths))
    assert names(viewer) == ["a", "b", "c"]
    assert dock.slides.slide.name == "a"
    lefts = [float(layer.extent.world[0, 1]) for layer in viewer.layers]
    rights = [float(layer.extent.world[1, 1]) for layer in viewer.layers]
    assert all(right < left for right, left in zip(rights, lefts[1:], strict=False))
    assert viewer.scene.camera.center[-1] == pytest.approx((lefts[0] + rights[-1]) / 2, rel=0.01)


def test_a_drop_while_others_are_being_opened_loses_none(
    qtbot: QtBot,
    make_dock: Callable[[], ScoringDock],
    viewer: ViewerModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()
    from napari_her2.slide import reader

    really = reader.open_slide

    def slowly(path: Path, **options: object) -> Slide:
        go_on.wait(60)
        return really(path, **options)

    monkeypatch.setattr(reader, "open_slide", slowly)
    dock = make_dock()
    for name, grey in (("a", 200), ("b", 190), ("c", 180)):
        drop(dock, mime_of(picture(tmp_path, name, grey=grey)))
    go_on.set()
    qtbot.waitUntil(lambda: names(viewer) == ["a", "b", "c"], timeout=60_000)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [("notes.txt", b"hello", "text file"), ("folder", None, "DICOM"), ("cut.png", b"\x89PNG\r\n", "cut.png")],
)
def test_what_is_no_slide_is_refused_in_one_sentence(
    qtbot: QtBot,
    make_dock: Callable[[], ScoringDock],
    viewer: ViewerModel,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    word: str,
) -> None:
    dock = make_dock()
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    with qtbot.waitSignal(dock.slides.opener.failed):
        assert drop(dock, mime_of(path))
    assert word in dock.message.text.text()
    assert "\n" not in dock.message.text.text()
    assert not dock.message.details_button.isVisibleTo(dock.message)
    assert names(viewer) == []


def test_one_that_is_no_slide_keeps_no_other_from_opening(
    qtbot: QtBot, make_dock: Callable[[], ScoringDock], viewer: ViewerModel, tmp_path: Path
) -> None:
    dock = make_dock()
    (tmp_path / "notes.txt").write_text("hello")
    with qtbot.waitSignal(dock.slides.opener.failed):
        drop(dock, mime_of(tmp_path / "notes.txt", picture(tmp_path, "core"), tmp_path / "gone.svs"))
    assert names(viewer) == ["core"]
    for fact in ("2 of 3", "notes.txt", "gone.svs", "text file"):
        assert fact in dock.message.text.text()


def test_an_address_in_the_network_is_refused_in_one_sentence(
    make_dock: Callable[[], ScoringDock],
) -> None:
    dock = make_dock()
    assert drop(dock, mime_of("https://example.org/case.svs"))
    assert "https://example.org/case.svs" in dock.message.text.text()
    assert "download" in dock.message.text.text()


def test_text_is_not_taken_and_no_field_takes_a_file(make_dock: Callable[[], ScoringDock]) -> None:
    dock = make_dock()
    mime = QMimeData()
    mime.setText("case.svs")
    assert not drop(dock, mime)
    fields = dock.findChildren(QLineEdit)
    assert fields
    assert not any(field.acceptDrops() for field in fields)


def test_a_folder_of_dicom_files_is_dropped_as_one_slide(
    qtbot: QtBot, make_dock: Callable[[], ScoringDock], viewer: ViewerModel, shared_data: Path
) -> None:
    pytest.importorskip("openslide")
    dock = make_dock()
    with qtbot.waitSignal(dock.slides.opener.opened, timeout=60_000):
        drop(dock, mime_of(shared_data / "slides" / "dicom-cmu1-pyramid"))
    assert names(viewer) == ["dicom-cmu1-pyramid"]
    assert viewer.canvas.overlays.scale_bar.visible


def test_a_slide_is_put_right_of_a_slide_that_was_moved() -> None:
    viewer = ViewerModel()
    add_slides(viewer, [make_slide((400, 600))])  # 200 x 300 µm
    viewer.layers[0].translate = (100, 1000)
    add_slides(viewer, [make_slide((100, 100), name="b")])
    np.testing.assert_allclose(viewer.layers[1].translate, (100, 1000 + 300 + 0.05 * 300), rtol=1e-2)


def test_opening_that_is_cancelled_leaves_no_slide_open(tmp_path: Path) -> None:
    steps = opening_slides([picture(tmp_path, "a"), picture(tmp_path, "b")])
    next(steps)
    next(steps)
    opened = steps.gi_frame.f_locals["slides"][0]
    steps.close()
    with pytest.raises(Exception, match="closed"):
        opened.read(0, 0, 0, 10, 10)


# -- napari-her2 open


def run(*arguments: object) -> object:
    return CliRunner().invoke(app, ["open", *map(str, arguments)])


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The window is not opened; the names of its slides are kept."""
    shown: list[list[str]] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(window, "open_window", lambda slides: shown.append([slide.name for slide in slides]))
    return shown


def test_the_command_opens_a_window_with_its_slides(tmp_path: Path, shown: list[list[str]]) -> None:
    done = run(picture(tmp_path, "a"), picture(tmp_path, "b"))
    assert done.exit_code == 0, done.output
    assert shown == [["a", "b"]]


def test_the_command_opens_no_window_where_a_slide_cannot_be_read(
    tmp_path: Path, shown: list[list[str]]
) -> None:
    done = run(picture(tmp_path, "a"), tmp_path / "gone.svs")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("napari-her2: ")
    assert "gone.svs" in line
    assert shown == []
    assert run().exit_code == 2


def test_the_command_without_a_display_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = run(picture(tmp_path, "a"))
    assert done.exit_code == 1
    assert "xvfb-run" in done.stderr
    assert "napari-her2 open" in done.stderr


def test_the_window_has_the_dock_and_the_slides_beside_one_another(
    monkeypatch: pytest.MonkeyPatch, viewer: ViewerModel
) -> None:
    docks, ran = [], []

    class Window:
        def add_plugin_dock_widget(self, plugin: str, name: str) -> None:
            docks.append((plugin, name))
            session_of(viewer)

    class Viewer:
        window = Window()

        def __new__(cls, **options: object) -> ViewerModel:
            object.__setattr__(viewer, "window", cls.window)
            return viewer

    monkeypatch.setattr("napari.Viewer", Viewer)
    monkeypatch.setattr("napari.run", lambda: ran.append(True))
    window.open_window([make_slide(), make_slide(name="case-2")])
    assert docks == [("napari-her2", "HER2 Scoring")]
    assert names(viewer) == ["case-1", "case-2"]
    assert viewer.layers[1].extent.world[0, 1] > viewer.layers[0].extent.world[1, 1]
    assert viewer.canvas.overlays.scale_bar.visible
    assert ran == [True]
