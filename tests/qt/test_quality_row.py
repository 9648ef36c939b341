"""The dock leaves poor tissue out as the model learnt, and shows the quality of a slide without scoring."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_her2 import open_slide
from napari_her2._napari.layers import slide_layer
from napari_her2._napari.quality import quality_layer, quality_words
from napari_her2._napari.session import session_of
from napari_her2._napari.settings import ALWAYS, Settings
from napari_her2._qt.scoring.quality_row import QualityRow
from napari_her2.explain.quality import QUALITY

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2.models.card import ModelCard


@pytest.fixture
def half_blurred(shared_data: Path):
    """A real slide of which the left half is out of focus."""
    import cv2

    path = shared_data / "stain" / "tiatoolbox_target.png"
    rgb = np.ascontiguousarray(cv2.imread(str(path)))
    rgb[:, :500] = cv2.GaussianBlur(rgb, (0, 0), 5)[:, :500]
    return rgb


def entry(card: ModelCard, name: str, **changes: object) -> SimpleNamespace:
    return SimpleNamespace(name=name, card=replace(card, name=name, **changes))


@pytest.fixture
def make_row(qtbot: QtBot):
    def make(viewer: ViewerModel, settings: Settings) -> QualityRow:
        regions = SimpleNamespace(preset="auto")
        row = QualityRow(session_of(viewer), settings, regions)
        qtbot.addWidget(row)
        rows.append(row)
        return row

    rows: list[QualityRow] = []
    yield make
    for row in rows:
        row.shutdown()


def test_the_tick_begins_as_the_model_learnt_and_keeps_a_wish(make_row, viewer, card) -> None:
    row = make_row(viewer, Settings())
    plain, without = entry(card, "plain"), entry(card, "without", quality="left out")
    row.set_model(plain)
    assert not row.wish
    assert "plain learnt from all tissue" in row.leave_out.toolTip()
    row.set_model(without)
    assert row.wish
    assert "learnt without" in row.leave_out.toolTip()
    row.leave_out.click()
    row.set_model(plain)
    row.set_model(without)
    assert not row.wish
    always = make_row(viewer, Settings(leave_out_poor=ALWAYS))
    always.set_model(plain)
    assert always.wish


def test_quality_is_shown_without_a_score(make_row, viewer, card, qtbot, half_blurred, tmp_path) -> None:
    import cv2

    path = tmp_path / "half.png"
    cv2.imwrite(str(path), half_blurred)
    with open_slide(path, mpp=0.5) as slide:
        viewer.add_layer(make_slide_layer(slide))
        row = make_row(viewer, Settings())
        row.set_slide(slide.slide_id)
        with qtbot.waitSignal(row.look_job.returned, timeout=60_000):
            row.progress.start.click()
        qtbot.waitUntil(lambda: quality_layer(viewer, slide.slide_id) is not None)
        layer = quality_layer(viewer, slide.slide_id)
        assert "out of focus" in row.found.text()
        assert layer.visible
        rows, cols = np.nonzero(np.isfinite(layer.data))
        assert len(rows) > 10
        assert cols.max() <= 6  # tiles of 96 px, blurred to 500
        assert set(layer.data[rows, cols]) == {QUALITY.categories.index("out of focus")}
        viewer.cursor.position = (250.0, 50.0)
        assert quality_words(viewer, slide.slide_id, None) == "poor: out of focus"
        viewer.cursor.position = (250.0, 450.0)
        assert quality_words(viewer, slide.slide_id, None) == ""
        with qtbot.waitSignal(row.look_job.returned, timeout=60_000):
            row.look()
        assert sum(QUALITY.layer_name in other.name for other in viewer.layers) == 1
        viewer.layers.clear()


def make_slide_layer(slide):
    from napari.layers import Layer

    return Layer.create(*slide_layer(slide))
