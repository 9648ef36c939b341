"""µm/px that the user gives: asked for, corrected, and told with the result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from driving import score

from napari_her2._napari.regions import add_region_layer, drawn_regions
from napari_her2._napari.tags import OverlayTag, RepresentationTag, tag_of
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2.export.tables import write_result
from napari_her2.inference.result import Progress
from scored import make_pair, make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock
    from napari_her2.inference.result import SlideResult

pytestmark = pytest.mark.usefixtures("_reopened")


@pytest.fixture
def _reopened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_her2.slide.reader.open_slide", lambda path, mpp: make_slide(mpp=(mpp, mpp)))


def give(dock: ScoringDock, mpp: float) -> None:
    dock.slides.mpp.setValue(mpp)
    dock.slides.use_mpp.click()


def overlays(viewer: ViewerModel) -> list[str]:
    return [
        layer.name for layer in viewer.layers if isinstance(tag_of(layer), OverlayTag | RepresentationTag)
    ]


def test_a_value_that_was_given_can_be_corrected(
    make_dock: Callable[[], ScoringDock], add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    layer = add_slide(make_slide(mpp=None))
    give(dock, 2.5)
    assert dock.slides.mpp_row.isVisibleTo(dock)
    assert dock.slides.mpp.value() == 2.5
    assert not dock.slides.use_mpp.isEnabled()  # nothing to change yet
    give(dock, 0.25)
    np.testing.assert_allclose(layer.scale, (0.25, 0.25))
    assert "0.25 µm/px (given by the user)" in dock.slides.facts.text()


def test_a_value_of_the_file_is_not_asked_for(
    make_dock: Callable[[], ScoringDock], add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    slide = make_slide()
    slide.mpp_source = "Aperio header"
    add_slide(slide)
    assert not dock.slides.mpp_row.isVisibleTo(dock)


def test_a_value_that_is_being_typed_stays_when_layers_come_and_go(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    add_slide(make_slide(mpp=None))
    dock.slides.mpp.setValue(0.5)
    viewer.add_image(np.zeros((9, 9)))
    assert dock.slides.mpp.value() == 0.5
    assert dock.slides.use_mpp.isEnabled()
    add_slide(make_slide(mpp=None, name="another"))
    dock.slides.combo.setCurrentIndex(1)
    assert dock.slides.mpp.text() == "?"


def test_what_was_scored_with_another_value_goes(
    qtbot: QtBot,
    make_dock: Callable[[], ScoringDock],
    viewer: ViewerModel,
    add_slide: Callable[..., object],
    asked: list[dict[str, object]],
) -> None:
    dock = make_dock()
    layer = add_slide(make_slide())
    score(qtbot, dock)
    region = add_region_layer(viewer, layer)
    region.add_rectangles([[10, 10], [10, 50], [30, 50], [30, 10]])
    assert overlays(viewer)
    give(dock, 0.25)
    assert overlays(viewer) == []
    assert dock.session.result(dock.slides.slide_id) is None
    assert not dock.result.isVisibleTo(dock)
    # The region stays where it was drawn: on the same pixels.
    (drawn,) = drawn_regions(region, layer)
    np.testing.assert_allclose(drawn.polygon.bounds, (10.5, 10.5, 50.5, 30.5))
    score(qtbot, dock)
    assert asked[1]["slide"].mpp == (0.25, 0.25)


def test_the_answer_for_a_case_goes_with_the_value_of_one_of_its_slides(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    he, ihc = make_slide(), make_slide((500, 400), name="case-1-ihc")
    add_slide(he)
    add_slide(ihc)
    dock._on_scored(make_pair(he, ihc))
    assert dock.session.pair(he.slide_id, ihc.slide_id) is not None
    dock.slides.combo.setCurrentIndex(0)
    give(dock, 0.25)
    assert overlays(viewer) == []
    assert dock.session.result(ihc.slide_id) is None


def test_the_value_stays_while_it_is_used(
    qtbot: QtBot,
    make_dock: Callable[[], ScoringDock],
    add_slide: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def endless(slide: object, model: str, **options: object) -> Generator[Progress, None, None]:
        while True:
            yield Progress("Embedding tiles")

    monkeypatch.setattr(scoring_dock, "scoring", endless)
    dock = make_dock()
    add_slide(make_slide())
    dock.score()
    assert not dock.slides.mpp_row.isEnabled()
    with qtbot.waitSignal(dock.score_job.cancelled):
        dock.score_job.cancel()
    assert dock.slides.mpp_row.isEnabled()


def test_the_result_says_which_value_was_used(
    qtbot: QtBot, make_dock: Callable[[], ScoringDock], add_slide: Callable[..., object], tmp_path: Path
) -> None:
    from dataclasses import replace

    result: SlideResult = make_result()
    result = replace(result, slides=(replace(result.slides[0], mpp_source="given by the user"),))
    dock = make_dock()
    add_slide(make_slide())
    dock._on_scored(result)
    assert "0.5 µm/px (given by the user)" in dock.result.card.facts.text()
    written = json.loads((write_result(result, tmp_path) / "result.json").read_text())
    assert written["slide_mpp"] == [0.5, 0.5]
    assert written["mpp_source"] == "given by the user"
    assert written["slides"][0]["mpp_source"] == "given by the user"
