"""The demonstration drives a dock as a person would; what it draws is looked at in tests/gl."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from driving import with_tissue

from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.overlay_layers import overlays_of
from napari_her2._napari.turns import at_once
from napari_her2._qt import demo
from scored import make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot


def test_the_picture_waits_until_new_overlays_have_taken_the_place_of_those_brought_back(
    qtbot: QtBot,
    viewer: ViewerModel,
    make_dock: object,
    add_slide: object,
    asked: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "_TURN_MS", 1)
    monkeypatch.setattr(demo, "_FRAMES", 1)
    dock, slide = make_dock(), make_slide()
    add_slide(slide)
    dock.session.set_result(with_tissue(make_result(slide)), OverlayLook())  # of an earlier sitting
    brought_back = [layer.name for layer in overlays_of(viewer, slide.slide_id)]
    waiting: list[Iterator[None]] = []
    dock.session.use_turns(waiting.append)
    pictures: list[list[str]] = []

    def screenshot(path: str, **options: object) -> None:
        assert path == "demo.png"
        pictures.append([layer.name for layer in overlays_of(viewer, slide.slide_id)])

    window = SimpleNamespace(
        window=SimpleNamespace(add_plugin_dock_widget=lambda plugin, name: (None, dock)),
        reset_view=viewer.reset_view,
        screenshot=screenshot,
        close=lambda: None,
    )
    demonstration = demo.Demonstration(window, "hand-model", Path("demo.png"))
    with qtbot.waitSignal(dock.score_job.returned):
        dock.session.models_changed.emit()  # it looks for models, and the demonstration goes on from there
    qtbot.waitUntil(lambda: bool(waiting))
    next(waiting[0])
    qtbot.wait(200)
    assert pictures == []
    at_once(waiting[0])
    qtbot.waitUntil(lambda: bool(pictures))
    assert pictures == [brought_back]
    assert len(asked) == 1
    assert demonstration.failure is None
