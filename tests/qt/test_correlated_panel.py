"""The correlated representation in the dock: on, computed for the view alone, off and gone."""

from __future__ import annotations

import gc
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fields_by_hand import HandPyramid, prepared_by_hand
from napari_her2._napari.layers import slide_layer
from napari_her2._napari.session import session_of
from napari_her2._napari.settings import Settings
from napari_her2._qt.scoring import correlated_panel
from napari_her2._qt.scoring.correlated_panel import CorrelatedPanel
from napari_her2.errors import ModelMisfit
from napari_her2.explain.field_store import FieldKey
from napari_her2.steps import Progress
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2.models.card import ModelCard


@pytest.fixture
def pyramid() -> HandPyramid:
    return HandPyramid(make_slide((384, 512)))


@pytest.fixture
def panel(
    qtbot: QtBot,
    viewer: ViewerModel,
    card: ModelCard,
    pyramid: HandPyramid,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CorrelatedPanel]:
    """A panel over one slide, whose model is prepared by hand."""

    def preparing(slide: Any, model: str, settings: Settings) -> Any:
        yield Progress("Looking at the slide", 1, 16, "fields", "cpu")
        assert (slide, model) == (pyramid.slide, "hand-model")
        return prepared_by_hand(pyramid)

    monkeypatch.setattr(correlated_panel, "preparing", preparing)
    data, options, _ = slide_layer(pyramid.slide)
    viewer.add_image(data, **options)
    panel = CorrelatedPanel(session_of(viewer), Settings())
    qtbot.addWidget(panel)
    panel.set_model(SimpleNamespace(name="hand-model", card=replace(card, method="corr-a-net")))
    panel.set_slide(pyramid.slide.slide_id)
    yield panel
    pyramid.go_on.set()
    panel.shutdown()
    gc.collect()


def turn_on(qtbot: QtBot, panel: CorrelatedPanel) -> Any:
    panel.box.setChecked(True)
    qtbot.waitUntil(lambda: panel.layer is not None)
    return panel.layer


def look_at(layer: Any, top: int, left: int, bottom: int, right: int, canvas: int = 32) -> None:
    """What the canvas tells a layer when the view moves: here pixels of level 0."""
    layer._update_draw(
        scale_factor=1.0,
        corner_pixels_displayed=np.array(
            [layer.data_to_world((top, left)), layer.data_to_world((bottom, right))]
        ),
        shape_threshold=(canvas, canvas),
    )


def shown(layer: Any) -> np.ndarray:
    return np.asarray(layer._slice.image.raw)


def wait_until_idle(qtbot: QtBot, panel: CorrelatedPanel) -> None:
    qtbot.waitUntil(
        lambda: (
            panel.source is not None
            and not panel.source.pending
            and not panel.compute_job.running
            and not panel._pause.isActive()
        )
    )


def test_the_view_fills_and_nothing_else_is_computed(
    qtbot: QtBot, panel: CorrelatedPanel, pyramid: HandPyramid, viewer: ViewerModel
) -> None:
    pyramid.go_on.clear()
    layer = turn_on(qtbot, panel)
    assert [each.name for each in viewer.layers] == ["case-1", layer.name]
    look_at(layer, 16, 32, 31, 63)
    assert layer.data_level == 0
    assert not shown(layer).any()
    assert "Computing 3 fields on cpu" in panel.status.text() or panel.source.pending == 3
    pyramid.go_on.set()
    wait_until_idle(qtbot, panel)
    qtbot.waitUntil(lambda: shown(layer)[..., 3].all())
    expected = panel.source.colours.rgba(pyramid.whole(0))[16:32, 32:64]
    np.testing.assert_array_equal(shown(layer), expected)
    assert {key for key, _ in pyramid.computed} == {FieldKey(3, 0, 0), FieldKey(0, 1, 2), FieldKey(0, 1, 3)}
    assert all(thread != "MainThread" for _, thread in pyramid.computed)
    assert "Computed on cpu" in panel.status.text()


def test_turning_it_off_frees_layer_fields_and_pyramid(
    qtbot: QtBot, panel: CorrelatedPanel, pyramid: HandPyramid, viewer: ViewerModel
) -> None:
    layer = turn_on(qtbot, panel)
    look_at(layer, 0, 0, 31, 31)
    wait_until_idle(qtbot, panel)
    source = panel.source
    assert source.nbytes
    panel.box.setChecked(False)
    assert layer not in viewer.layers
    assert source.closed
    assert source.nbytes == 0
    assert panel.source is panel.layer is None
    # napari keeps the layer that was selected last; it holds no more than a picture that is clear.
    assert not np.asarray(layer.data[-1]).any()
    qtbot.waitUntil(lambda: not panel.compute_job.running)


def test_removing_the_layer_in_napari_turns_it_off(
    qtbot: QtBot, panel: CorrelatedPanel, viewer: ViewerModel
) -> None:
    layer = turn_on(qtbot, panel)
    source = panel.source
    viewer.layers.remove(layer)
    assert not panel.box.isChecked()
    assert source.closed


def test_closing_the_slide_takes_it_along_while_it_computes(
    qtbot: QtBot, panel: CorrelatedPanel, pyramid: HandPyramid, viewer: ViewerModel
) -> None:
    pyramid.go_on.clear()
    layer = turn_on(qtbot, panel)
    look_at(layer, 0, 0, 95, 95, canvas=90)
    failures = []
    panel.failed.connect(failures.append)
    viewer.layers.remove(viewer.layers["case-1"])
    assert len(viewer.layers) == 0
    pyramid.go_on.set()
    qtbot.waitUntil(lambda: not panel.compute_job.running)
    assert len(pyramid.computed) <= 1
    assert failures == []


def test_other_views_are_coloured_from_memory(
    qtbot: QtBot, panel: CorrelatedPanel, pyramid: HandPyramid
) -> None:
    layer = turn_on(qtbot, panel)
    look_at(layer, 0, 0, 31, 31)
    wait_until_idle(qtbot, panel)
    computed = len(pyramid.computed)
    before = shown(layer).copy()
    for view, channel in (("channel", 1), ("PCA", 0)):
        panel.view.setCurrentIndex(panel.view.findData(view))
        panel.channel.setValue(channel)
        wait_until_idle(qtbot, panel)
        expected = panel.source.colours.rgba(pyramid.whole(0))[:32, :32]
        qtbot.waitUntil(lambda expected=expected: np.array_equal(shown(layer), expected))
        assert not np.array_equal(before, expected)
    assert panel.channel.isHidden()
    assert len(pyramid.computed) == computed
    assert "variance" in panel.status.text()
    assert panel.channel.maximum() == 3


def test_the_slider_goes_between_both(qtbot: QtBot, panel: CorrelatedPanel) -> None:
    layer = turn_on(qtbot, panel)
    panel.opacity.setValue(25)
    assert layer.opacity == 0.25


def test_a_hidden_layer_computes_nothing(qtbot: QtBot, panel: CorrelatedPanel, pyramid: HandPyramid) -> None:
    layer = turn_on(qtbot, panel)
    wait_until_idle(qtbot, panel)
    pyramid.go_on.clear()
    look_at(layer, 0, 0, 95, 95, canvas=90)
    layer.visible = False
    qtbot.waitUntil(lambda: panel.source.pending <= 1)
    pyramid.go_on.set()
    wait_until_idle(qtbot, panel)
    assert len(pyramid.computed) <= 3
    layer.visible = True
    wait_until_idle(qtbot, panel)
    qtbot.waitUntil(lambda: shown(layer)[..., 3].all())


def test_what_fails_is_told_and_turns_it_off(
    qtbot: QtBot, panel: CorrelatedPanel, pyramid: HandPyramid, monkeypatch: pytest.MonkeyPatch
) -> None:
    def field(key: FieldKey) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pyramid, "field", field)
    with qtbot.waitSignal(panel.failed) as told:
        panel.box.setChecked(True)
    assert "out of memory" in told.args[0].message
    assert not panel.box.isChecked()
    assert panel.layer is None

    def refusing(*_: Any) -> Any:
        yield Progress("Loading the model")
        raise ModelMisfit("The slide looks like IHC.")

    monkeypatch.setattr(correlated_panel, "preparing", refusing)
    with qtbot.waitSignal(panel.failed) as told:
        panel.box.setChecked(True)
    assert told.args[0].message == "The slide looks like IHC."
    assert not panel.box.isChecked()


def test_it_is_offered_for_models_that_make_one(panel: CorrelatedPanel, card: ModelCard) -> None:
    assert not panel.isHidden()
    panel.set_model(SimpleNamespace(name="other", card=card))
    assert panel.isHidden()
    panel.set_model(None)
    assert panel.isHidden()


def test_another_slide_or_model_takes_the_layer_away(
    qtbot: QtBot, panel: CorrelatedPanel, card: ModelCard, viewer: ViewerModel
) -> None:
    turn_on(qtbot, panel)
    panel.set_slide("another")
    assert len(viewer.layers) == 1
    panel.box.setChecked(True)  # a slide that is not open
    assert not panel.box.isChecked()
