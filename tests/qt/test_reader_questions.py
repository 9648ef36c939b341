"""What the dock offers where napari's own reader opened a slide as a picture, or would."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers._source import layer_source
from napari.plugins import _initialize_plugins
from napari.settings import get_plugin_settings, get_settings

from napari_her2._napari.reader import PATTERNS, get_reader
from napari_her2._napari.reader_choice import is_preferred, prefer
from napari_her2._napari.tags import slide_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock

PINK = np.full((512, 640, 3), (230, 180, 205), np.uint8)


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    _initialize_plugins()
    plugins, scoring = get_settings().plugins, get_plugin_settings("napari-her2").scoring
    plugins.extension2reader, scoring.offer_reader = {}, True
    yield
    plugins.extension2reader, scoring.offer_reader = {}, True


@pytest.fixture
def svs(tmp_path: Path) -> Path:
    path = tmp_path / "case.svs"
    tifffile.imwrite(path, PINK, tile=(256, 256), photometric="rgb")
    return path


def by_napari(viewer: ViewerModel, path: Path) -> list[object]:
    """Open a file as napari does for whoever presses OK."""
    return viewer.open(path, plugin="napari")


def question(dock: ScoringDock) -> str:
    return dock.questions.text.text() if dock.questions.isVisibleTo(dock) else ""


# -- from now on


def test_it_is_offered_once_to_open_slides_here_and_nothing_changes_without_a_yes(
    make_dock: Callable[[], ScoringDock],
) -> None:
    dock = make_dock()
    assert "Always open slides with napari-her2?" in question(dock)
    assert get_settings().plugins.extension2reader == {}
    dock.questions.no.click()
    assert question(dock) == ""
    assert get_settings().plugins.extension2reader == {}
    assert question(make_dock()) == ""  # another time


def test_a_yes_sets_naparis_own_setting_and_keeps_what_else_was_chosen(
    make_dock: Callable[[], ScoringDock], svs: Path
) -> None:
    get_settings().plugins.extension2reader = {"*.csv": "another-plugin"}
    dock = make_dock()
    dock.questions.yes.click()
    assert question(dock) == ""
    chosen = get_settings().plugins.extension2reader
    assert chosen["*.csv"] == "another-plugin"
    assert {chosen[pattern] for pattern in PATTERNS} == {"napari-her2"}
    assert question(make_dock()) == ""
    viewer = ViewerModel()
    (layer,) = viewer.open(svs, plugin=None)  # as a drop in napari's window: no question, no picture
    assert slide_tag(layer) is not None


@pytest.mark.skipif(os.path.normcase("A") == "a", reason="napari does not tell capitals apart here")
def test_capitals_in_the_name_of_a_file_make_no_difference(svs: Path) -> None:
    prefer()
    viewer = ViewerModel()
    (layer,) = viewer.open(svs.rename(svs.with_name("CASE.SVS")), plugin=None)
    assert slide_tag(layer) is not None


def test_it_is_not_offered_where_it_is_so_already(make_dock: Callable[[], ScoringDock]) -> None:
    assert not is_preferred()
    prefer()
    assert is_preferred()
    assert question(make_dock()) == ""


def test_a_picture_that_is_no_slide_is_opened_by_napari_as_before(tmp_path: Path) -> None:
    path = tmp_path / "grey.tif"
    values = np.arange(12, dtype=np.uint16).reshape(3, 4)
    tifffile.imwrite(path, values)
    assert get_reader(str(path)) is None
    prefer()
    viewer = ViewerModel()
    (layer,) = viewer.open(path, plugin=None)
    np.testing.assert_array_equal(layer.data, values)
    assert slide_tag(layer) is None


# -- what is open


def test_a_slide_that_napari_opened_is_recognised_and_opened_as_slide_at_a_yes(
    qtbot: QtBot, make_dock: Callable[[], ScoringDock], viewer: ViewerModel, svs: Path
) -> None:
    dock = make_dock()
    (picture,) = by_napari(viewer, svs)
    assert question(dock) == "case.svs is open as a picture, which cannot be scored."
    assert list(viewer.layers) == [picture]
    beside = []
    viewer.layers.events.inserted.connect(lambda event: beside.append(len(viewer.layers)))
    with qtbot.waitSignal(dock.questions.opened):
        dock.questions.yes.click()
    assert beside == [1]  # never beside its picture: µm and pixels do not go together
    (layer,) = viewer.layers
    assert slide_tag(layer) is not None
    assert layer.name == "case"
    assert dock.slides.slide.path == svs
    assert "Always open" in question(dock)  # now that it is plain why


def test_a_dock_that_is_opened_later_sees_it_too(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, svs: Path
) -> None:
    by_napari(viewer, svs)
    assert "case.svs" in question(make_dock())


def test_a_no_leaves_the_picture_and_is_not_asked_again(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, svs: Path
) -> None:
    dock = make_dock()
    (picture,) = by_napari(viewer, svs)
    dock.questions.no.click()
    viewer.add_image(np.zeros((9, 9)))
    assert "case.svs" not in question(dock)
    assert picture in viewer.layers


def test_the_question_goes_with_the_picture(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, svs: Path
) -> None:
    dock = make_dock()
    by_napari(viewer, svs)
    viewer.layers.clear()
    assert "case.svs" not in question(dock)


def test_all_that_another_reader_made_of_a_slide_goes_and_several_slides_are_one_question(
    qtbot: QtBot, make_dock: Callable[[], ScoringDock], viewer: ViewerModel, tmp_path: Path, svs: Path
) -> None:
    second = tmp_path / "other.tif"
    with tifffile.TiffWriter(second) as file:
        file.write(PINK // 2, tile=(256, 256), photometric="rgb")
        file.write(PINK[::2, ::2] // 2, tile=(256, 256), photometric="rgb", subfiletype=1)
    for path in (svs, svs, second):  # as levels or channels of a reader that makes several layers
        with layer_source(path=str(path), reader_plugin="another-reader"):
            layer = Image(PINK)
        viewer.add_layer(layer)
    mine = viewer.add_image(np.zeros((9, 9)), name="someone else's")
    dock = make_dock()
    assert question(dock) == "case.svs, other.tif are open as pictures, which cannot be scored."
    with qtbot.waitSignal(dock.questions.opened):
        dock.questions.yes.click()
    assert [layer.name for layer in viewer.layers] == ["someone else's", "case", "other"]
    assert viewer.layers[0] is mine


@pytest.mark.parametrize(("name", "offered"), [("core.png", True), ("core.tif", True), ("grey.tif", False)])
def test_a_plain_picture_in_colour_is_offered_and_any_other_is_not(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, tmp_path: Path, name: str, offered: bool
) -> None:
    import imageio.v3 as imageio

    dock = make_dock()
    path = tmp_path / name
    imageio.imwrite(path, PINK[..., 0] if "grey" in name else PINK)
    by_napari(viewer, path)
    assert (name in question(dock)) is offered


def test_what_cannot_be_opened_stays_a_picture_and_is_said_in_words(
    qtbot: QtBot, make_dock: Callable[[], ScoringDock], viewer: ViewerModel, tmp_path: Path
) -> None:
    dock = make_dock()
    path = tmp_path / "broken.svs"
    path.write_bytes(b"no slide at all " * 99)
    with layer_source(path=str(path), reader_plugin="another-reader"):
        layer = Image(PINK)
    viewer.add_layer(layer)
    with qtbot.waitSignal(dock.questions.failed):
        dock.questions.yes.click()
    assert list(viewer.layers) == [layer]
    assert "broken.svs" in dock.message.text.text()
    assert "broken.svs" not in question(dock)


def test_our_own_slides_and_a_file_that_is_gone_are_no_question(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, svs: Path
) -> None:
    dock = make_dock()
    viewer.open(svs, plugin="napari-her2")
    with layer_source(path="/gone/case.svs", reader_plugin="another-reader"):
        layer = Image(PINK)
    viewer.add_layer(layer)
    assert "Always open" in question(dock)


def test_a_name_in_the_question_is_plain_text(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, svs: Path
) -> None:
    from qtpy.QtCore import Qt

    dock = make_dock()
    by_napari(viewer, svs.rename(svs.with_name("<h1>HER2 3+<h1>.svs")))
    assert "<h1>HER2 3+<h1>.svs" in question(dock)
    assert dock.questions.text.textFormat() == Qt.TextFormat.PlainText
