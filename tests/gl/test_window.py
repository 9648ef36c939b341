from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtWidgets import QLabel

from napari_her2._napari.layers import OverlayLook, result_layers, slide_layer
from napari_her2._napari.overlay_layers import make_layer
from napari_her2._napari.sample_data import PhantomCase, ensure_phantom, phantom_layers
from napari_her2._napari.session import session_of
from napari_her2._napari.tags import tag_of
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2.phantom import make_pair
from napari_her2.steps import Progress
from scored import HandSlide, make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pytestqt.qtbot import QtBot

    from napari import Viewer
    from napari_her2._qt.scoring.dock import ScoringDock

CASE = PhantomCase("small", "3+", seed=5, size_px=1536, mpp=0.5)


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Viewer]) -> Viewer:
    # Under xvfb nothing pops up on a person's screen, and an unshown canvas has no size.
    return make_napari_viewer(show=True)


def add(viewer: Viewer, slide: HandSlide) -> Any:
    data, options, _ = slide_layer(slide)
    return viewer.add_image(data, **options)


def open_dock(viewer: Viewer, qtbot: QtBot) -> ScoringDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-her2", "HER2 Scoring")
    qtbot.waitUntil(lambda: dock.whole and not dock.look_job.running, timeout=300_000)
    return dock


def test_a_map_covers_its_tile_to_the_pixel(viewer: Viewer) -> None:
    """The slide has one green tile; the map has one value, on that tile."""
    row, col = 3, 5
    slide = make_slide(mpp=(0.5, 0.5))
    slide.image[row * 50 : (row + 1) * 50, col * 50 : (col + 1) * 50] = (0, 160, 0)
    layer = add(viewer, slide)
    layer.translate = (30.0, -20.0)  # a slide that was moved takes its maps along
    viewer.reset_view()
    bare = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    result = make_result(slide)
    values = np.full(result.grid.shape, np.nan, np.float32)
    values[row, col] = 1.0
    only = replace(result.slides[0], maps=(replace(result.maps[0], values=values),))
    attention = result_layers(replace(result, slides=(only,)), OverlayLook(opacity=1.0))[0]
    overlay = viewer.add_layer(make_layer(attention, layer))
    overlay.colorbar.visible = False
    covered = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    tile = (bare == (0, 160, 0)).all(axis=-1)
    assert tile.sum() > 1000
    np.testing.assert_array_equal(np.abs(covered - bare).max(axis=-1) > 20, tile)


def test_a_phantom_slide_is_drawn_with_its_tissue(viewer: Viewer, phantom: None) -> None:
    for data, options, _ in phantom_layers(CASE):
        viewer.add_image(data, **options)
    viewer.reset_view()
    shot = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    pink = (shot[..., 0] > shot[..., 1] + 30) & (shot[..., 2] > shot[..., 1] + 10)
    assert pink.mean() > 0.05
    assert viewer.layers[0].extent.world[1] == pytest.approx((767.5, 767.5), abs=1)


@pytest.mark.slow
def test_a_slide_is_scored_from_the_dock(
    viewer: Viewer, qtbot: QtBot, random_model: str, phantom: None
) -> None:
    # PyTorch may be loaded only now, when OpenGL already is: see load_torch.
    for data, options, _ in phantom_layers(CASE):
        viewer.add_image(data, **options)
    dock = open_dock(viewer, qtbot)
    assert dock.models.name == random_model or random_model in [e.name for e in dock.models.entries]
    dock.models.combo.setCurrentText(random_model)
    dock.slides.combo.setCurrentIndex(0)
    qtbot.waitUntil(dock.progress.start.isEnabled)
    with qtbot.waitSignal(dock.score_job.running_changed, timeout=600_000, check_params_cb=lambda on: not on):
        dock.progress.start.click()
    qtbot.waitUntil(lambda: dock.result.whole)
    assert dock.message.text.text() == ""
    result = dock.session.result(dock.slides.slide_id)
    assert result is not None
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-4)

    def roles() -> set[str | None]:
        return {getattr(tag_of(layer), "kind", None) for layer in viewer.layers}

    # They come one a turn of the event loop.
    expected = {"attention", "evidence", "tissue", "top tiles", "tiles"}
    qtbot.waitUntil(lambda: expected <= roles(), timeout=300_000)
    assert dock.result.card.task.text() == "H&E-based prediction of the HER2 IHC score"
    with qtbot.waitSignal(dock.result.tiles.tile_job.returned, timeout=300_000):
        dock.result.tiles.inspect(dock.result.tiles.first_tile)
    assert dock.result.tiles.inspector.picture.isVisible()


def test_closing_the_dock_in_the_window_stops_its_work(
    viewer: Viewer, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
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
    add(viewer, make_slide())
    widget, dock = viewer.window.add_plugin_dock_widget("napari-her2", "HER2 Scoring")
    dock.score_job.start(lambda: endless(None, ""))
    qtbot.waitUntil(started.is_set)
    viewer.window.remove_dock_widget(widget)
    assert closed.wait(300)
    assert not dock.score_job.running


@pytest.mark.slow
def test_closing_the_window_while_it_scores_ends_the_process_with_no_thread_left() -> None:
    """The step that scoring is in ends when the window is gone: nobody waits for it without end."""
    code = (
        "import sys, threading, napari\n"
        "from qtpy.QtCore import QTimer\n"
        "from napari_her2.steps import Progress\n"
        "from napari_her2._qt.scoring import model_shelf\n"
        "started, closing, closed = threading.Event(), threading.Event(), []\n"
        "def endless(slide, model, **options):\n"
        "    try:\n"
        "        while True:\n"
        "            yield Progress('Embedding tiles')\n"
        "            started.set()\n"
        "            closing.wait(60)\n"
        "    finally:\n"
        "        closed.append(True)\n"
        "def finding_equipment(settings):\n"
        "    yield Progress('Looking')\n"
        "    return model_shelf.Equipment((), (), 'cpu')\n"
        "model_shelf.finding_equipment = finding_equipment  # loads no PyTorch\n"
        "def close():\n"
        "    (dock,) = viewer.window.dock_widgets.values()\n"
        "    if not started.is_set():\n"
        "        if not dock.score_job.running:\n"
        "            dock.score_job.start(lambda: endless(None, ''))\n"
        "        return QTimer.singleShot(100, close)\n"
        "    viewer.close()\n"
        "    print('window closed in a step:', not closed)\n"
        "    closing.set()\n"
        "viewer = napari.Viewer(show=True)\n"
        "viewer.window.add_plugin_dock_widget('napari-her2', 'HER2 Scoring')\n"
        "QTimer.singleShot(100, close)\n"
        "napari.run()\n"
        "jobs = [one for one in threading.enumerate() if one.name.startswith('napari-her2 job')]\n"
        "for one in jobs: one.join(60)\n"
        "print('left:', [one.name for one in jobs if one.is_alive()], 'generator closed:', closed)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    told = done.stdout.splitlines()[-2:]
    assert told == ["window closed in a step: True", "left: [] generator closed: [True]"]


@pytest.mark.slow
def test_closing_the_window_in_the_midst_of_a_real_scoring_leaves_no_thread(tmp_path: Path) -> None:
    """Tiles are read in threads of their own: all of them end, and the process with them."""
    pair = make_pair(tmp_path, "large", score="3+", seed=5, size_px=4096, mpp=0.5)
    # Small batches: the window is closed long before the last of them.
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("closing.py")), str(pair.he), "4"],
        capture_output=True,
        text=True,
        timeout=1000,
        env={**os.environ, "NAPARI_HER2_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["running"], told
    assert 0 < told["done"] < told["of"]
    assert any(name.startswith("her2-tiles") for name in told["worked"])
    assert told["left"] == []


def test_closing_the_viewer_stops_the_work_of_its_docks(
    make_napari_viewer: Callable[..., Viewer], qtbot: QtBot
) -> None:
    closed, started = threading.Event(), threading.Event()

    def endless() -> Generator[Progress, None, None]:
        try:
            while True:
                started.set()
                yield Progress("Embedding tiles")
        finally:
            closed.set()

    viewer = make_napari_viewer(show=True)
    _, dock = viewer.window.add_plugin_dock_widget("napari-her2", "HER2 Scoring")
    dock.score_job.start(endless)
    qtbot.waitUntil(started.is_set)
    del dock
    viewer.close()
    qtbot.waitUntil(closed.is_set, timeout=300_000)


@pytest.mark.slow
def test_overlays_are_deleted_by_hand_and_made_again_without_a_crash() -> None:
    """The scale bar, which comes with the slide, is drawn too: see `OverlaySet._replace`."""
    code = (
        "import gc, napari, napari._qt.qt_main_window\n"
        "from qtpy.QtWidgets import QApplication\n"
        "from napari_her2._napari.layers import OverlayLook, slide_layer\n"
        "from napari_her2._napari.overlay_layers import overlays_of\n"
        "from napari_her2._napari.session import session_of\n"
        "from scored import make_result, make_slide\n"
        "gc.freeze()  # napari collects garbage for each layer that goes: not what was imported\n"
        "viewer = napari.Viewer(show=True)\n"
        "def draw():\n"
        "    for _ in range(3):\n"
        "        QApplication.processEvents()\n"
        "        viewer.window._qt_viewer.canvas._scene_canvas.update(); QApplication.processEvents()\n"
        "session, slide = session_of(viewer), make_slide()\n"
        "data, options, _ = slide_layer(slide)\n"
        "viewer.add_image(data, **options)\n"
        "for _ in range(3):\n"
        "    session.set_result(make_result(slide), OverlayLook())\n"
        "    draw()\n"
        "    for layer in overlays_of(viewer, slide.slide_id):\n"
        "        viewer.layers.remove(layer)\n"
        "    draw()\n"
        "    print(len(viewer.layers), flush=True)\n"
        "viewer.close()"
    )
    folder = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["1", "1", "1"]


@pytest.mark.slow
def test_the_command_opens_a_window_with_the_dock_and_the_slides(phantom: None) -> None:
    code = (
        "import sys, napari\n"
        "from qtpy.QtCore import QTimer\n"
        "from napari_her2.cli import main\n"
        "def tell():\n"
        "    viewer = napari.current_viewer()\n"
        "    (dock,) = viewer.window.dock_widgets.values()\n"
        "    if not dock.whole or dock.look_job.running:\n"
        "        return QTimer.singleShot(100, tell)\n"
        "    print('; '.join(layer.name for layer in viewer.layers))\n"
        "    print(dock.slides.slide.name, dock.progress.start.isEnabled())\n"
        "    print(viewer.canvas.overlays.scale_bar.visible)\n"
        "    viewer.close()\n"
        "go = napari.run\n"
        "napari.run = lambda: (QTimer.singleShot(100, tell), go())\n"
        "main()"
    )
    pair = ensure_phantom(CASE)
    arguments = [sys.executable, "-c", code, "open", str(pair.he), str(pair.ihc)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["small_HE; small_HER2", "small_HE True", "True"]


def test_the_second_dock_is_a_tab_of_the_first_one(viewer: Viewer, qtbot: QtBot) -> None:
    frames = []
    for name in ("HER2 Scoring", "HER2 Training"):
        frame, dock = viewer.window.add_plugin_dock_widget("napari-her2", name)
        frames.append(frame)
        qtbot.waitUntil(dock.isVisible)
    main = frames[0].parentWidget()
    qtbot.waitUntil(lambda: main.tabifiedDockWidgets(frames[0]) == [frames[1]])
    qtbot.waitUntil(lambda: frames[1].widget().height() > 300)


def test_the_status_bar_shows_the_values_of_a_tile_and_no_keys_for_painting(
    viewer: Viewer, qtbot: QtBot
) -> None:
    slide = make_slide()
    add(viewer, slide)
    session_of(viewer).set_result(make_result(slide), OverlayLook())
    viewer.mouse_over_canvas = True
    viewer.cursor.position = (5, 5)
    bar = viewer.window._qt_window.statusBar()
    labels = lambda: " ".join(label.text() for label in bar.findChildren(QLabel))  # noqa: E731
    qtbot.waitUntil(lambda: "tile 1: attention percentile: 1" in labels())
    assert "paint" not in labels()
    for layer in viewer.layers:
        if layer.name.startswith(("tile values", "12 most")):
            viewer.layers.selection.active = layer  # napari makes the controls of the layer
            layer.mode = "paint" if "values" in layer.name else "add_rectangle"
            assert str(layer.mode) == "pan_zoom"
