"""µm/px that the user gives: asked for, corrected, and told with the result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from driving import give_mpp, score

from napari_her2._napari.regions import add_region_layer, drawn_regions
from napari_her2._napari.tags import OverlayTag, RepresentationTag, tag_of
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2.export.tables import write_result
from napari_her2.slide.facts import StatedScale
from napari_her2.steps import Progress
from scored import HandSlide, make_pair, make_result, make_slide

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
    def opened(path: Path, *, mpp: object = None, mpp_source: str = "not stated") -> HandSlide:
        slide = make_slide(mpp=mpp)
        slide.mpp_source = mpp_source
        return slide

    monkeypatch.setattr("napari_her2.slide.reader.open_slide", opened)


def overlays(viewer: ViewerModel) -> list[str]:
    return [
        layer.name for layer in viewer.layers if isinstance(tag_of(layer), OverlayTag | RepresentationTag)
    ]


def test_a_value_that_was_given_can_be_corrected(
    make_dock: Callable[[], ScoringDock], add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    layer = add_slide(make_slide(mpp=None))
    give_mpp(dock, 2.5)
    scale = dock.slides.scale
    assert not scale.panel.isVisibleTo(dock)
    assert scale.change.isVisibleTo(dock)
    scale.change.click()
    scale.choose("type")
    assert scale.mpp.value() == 2.5
    assert not scale.use.isEnabled()  # nothing to change yet
    give_mpp(dock, 0.25)
    np.testing.assert_allclose(layer.scale, (0.25, 0.25))
    assert "0.25 µm/px (given by the user, 20" in dock.slides.facts.text()


def test_a_value_of_the_file_is_not_asked_for_but_can_be_changed(
    make_dock: Callable[[], ScoringDock], add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    slide = make_slide()
    slide.mpp_source, slide.mpp_given = "Aperio header", False
    slide.stated_scales = (StatedScale("Aperio header", (0.5, 0.5)),)
    add_slide(slide)
    scale = dock.slides.scale
    assert not scale.panel.isVisibleTo(dock)
    assert dock.progress.start.isEnabled()
    scale.change.click()
    assert scale.panel.isVisibleTo(dock)
    assert [scale.sources.itemText(at) for at in range(scale.sources.count())] == [
        "choose a source…",
        "Aperio header: 0.5 µm/px",
        "usual at 20×: 0.5 µm/px",
        "measure with a line…",
        "type them…",
    ]


def test_a_contradiction_blocks_the_scoring_until_a_source_is_chosen(
    make_dock: Callable[[], ScoringDock], add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    slide = make_slide()
    words = (
        "The file states 0.5 µm/px (Aperio header) and 0.25 µm/px (TIFF resolution): one of them is wrong."
    )
    slide.mpp_source, slide.mpp_given, slide.header_contradiction = "Aperio header", False, words
    slide.stated_scales = (
        StatedScale("Aperio header", (0.5, 0.5)),
        StatedScale("TIFF resolution", (0.25, 0.25)),
    )
    slide.warnings = (words,)
    add_slide(slide)
    scale = dock.slides.scale
    assert scale.panel.isVisibleTo(dock)
    assert not dock.progress.start.isEnabled()
    assert words in dock.progress.stage.text()
    scale.choose("header 1")
    assert scale.reason.text() == "The file states it."
    scale.use.click()
    assert dock.slides.slide.mpp == (0.25, 0.25)
    assert dock.slides.slide.mpp_source.startswith("TIFF resolution, chosen by the user, 20")
    assert dock.progress.start.isEnabled()


def test_an_erythrocyte_is_measured_with_lines(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    layer = add_slide(make_slide(mpp=None))
    scale = dock.slides.scale
    scale.choose("measure")
    scale.ruler.setCurrentIndex(1)
    assert scale.length.value() == 7.0
    assert "6 to 8" in scale.reason.text()
    scale.draw.click()
    lines = viewer.layers.selection.active
    assert lines.mode == "add_line"
    assert "No line is drawn yet" in scale.lines.text()
    for length in (26.0, 28.0, 30.0):
        lines.add_lines([[50.0, 40.0], [50.0, 40.0 + length]])
    assert scale.lines.text() == "3 lines: 0.25 µm/px, 7% apart"
    scale.use.click()
    np.testing.assert_allclose(layer.scale, (0.25, 0.25))
    assert dock.slides.slide.mpp_source.startswith("measured on 3 erythrocytes of 7 µm, 20")
    assert lines not in viewer.layers
    # Measured again on a slide that has a scale, and elsewhere in the window.
    layer.translate = (1000.0, 500.0)
    scale.change.click()
    scale.choose("measure")
    scale.ruler.setCurrentIndex(0)
    assert scale.length.value() == 0.0
    scale.draw.click()
    viewer.layers.selection.active.add_lines([[10.0, 10.0], [10.0, 110.0]])
    assert "Type how long the scale bar is" in scale.lines.text()
    scale.length.setValue(50)
    scale.use.click()
    np.testing.assert_allclose(layer.scale, (0.5, 0.5))
    assert "measured on 1 scale bar of 50 µm" in dock.slides.slide.mpp_source


def test_lines_go_with_the_slide_and_with_the_choice(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    add_slide(make_slide(mpp=None))
    scale = dock.slides.scale
    scale.choose("measure")
    scale.draw.click()
    assert len(viewer.layers) == 2
    scale.choose("type")
    assert len(viewer.layers) == 1
    scale.choose("measure")
    scale.draw.click()
    viewer.layers.remove(viewer.layers[1])  # by the user
    assert not scale.use.isEnabled()
    scale.draw.click()
    viewer.layers.clear()
    assert scale.lines.text() == ""
    assert not scale.isVisibleTo(dock) or not scale.panel.isVisibleTo(dock)


def test_a_value_that_is_being_typed_stays_when_layers_come_and_go(
    make_dock: Callable[[], ScoringDock], viewer: ViewerModel, add_slide: Callable[..., object]
) -> None:
    dock = make_dock()
    add_slide(make_slide(mpp=None))
    scale = dock.slides.scale
    scale.choose("type")
    scale.mpp.setValue(0.5)
    viewer.add_image(np.zeros((9, 9)))
    assert scale.mpp.value() == 0.5
    assert scale.use.isEnabled()
    add_slide(make_slide(mpp=None, name="another"))
    dock.slides.combo.setCurrentIndex(1)
    assert scale.mpp.text() == "?"


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
    give_mpp(dock, 0.25)
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
    give_mpp(dock, 0.25)
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
    assert not dock.slides.scale.panel.isEnabled()
    with qtbot.waitSignal(dock.score_job.cancelled):
        dock.score_job.cancel()
    assert dock.slides.scale.panel.isEnabled()


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
