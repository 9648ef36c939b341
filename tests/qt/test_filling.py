"""The map of a scoring that is not finished."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from driving import with_tissue

from napari_her2._napari.filling import FillingMaps
from napari_her2._napari.tags import OverlayTag, tag_of
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2.errors import JobFailed
from napari_her2.explain.early import READ, EarlyValues, looked_at, votes_so_far
from napari_her2.steps import Progress
from scored import CLASSES, make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.components import ViewerModel
    from napari.layers import Image
    from pytestqt.qtbot import QtBot

    from napari_her2.inference.result import SlideResult
    from scored import HandSlide

SOME = np.array([[0, 0], [1, 2]])


def filled(viewer: ViewerModel, slide: HandSlide, *batches: EarlyValues) -> FillingMaps:
    filling = FillingMaps(viewer, [slide.slide_id], 0.6)
    filling.early.begin(slide.slide_id, make_result(slide).grid, 96)
    for number, found in enumerate(batches):
        filling.early.put(slide.slide_id, SOME + np.array([0, number]), found)
        filling.show()
    return filling


def shown(viewer: ViewerModel) -> list[Image]:
    return [of for of in viewer.layers if isinstance(tag := tag_of(of), OverlayTag) and tag.kind == READ.kind]


def test_the_front_is_the_middle_of_the_view(viewer: ViewerModel, add_slide: Callable[..., Image]) -> None:
    slide = make_slide()  # 0.5 µm/px
    add_slide(slide).translate = (10.0, 20.0)
    viewer.scene.camera.center = (0.0, 110.0, 70.0)
    filling = FillingMaps(viewer, [slide.slide_id, "another"], 0.6)
    assert filling.front.point(slide.slide_id) == (200.5, 100.5)
    viewer.scene.camera.center = (0.0, 10.0, 20.0)
    assert filling.front.point(slide.slide_id) == (0.5, 0.5)
    assert filling.front.point("another") is None
    filling.stop(scored=False)
    viewer.scene.camera.center = (0.0, 110.0, 70.0)  # nobody follows any more
    assert filling.front.point(slide.slide_id) == (0.5, 0.5)


def test_tiles_appear_as_they_come_and_the_window_says_that_it_is_not_finished(
    viewer: ViewerModel, add_slide: Callable[..., Image]
) -> None:
    slide = make_slide()
    add_slide(slide)
    viewer.canvas.overlays.text.text = "the user's own"
    filling = filled(viewer, slide, looked_at(2), looked_at(2))
    (layer,) = shown(viewer)
    assert layer.name == "tiles looked at so far (scoring is not finished) · case-1"
    assert np.argwhere(np.isfinite(layer.data)).tolist() == [[0, 0], [0, 1], [1, 2], [1, 3]]
    assert layer.opacity < 0.5
    assert viewer.canvas.overlays.text.visible
    assert viewer.canvas.overlays.text.text == (
        "Scoring is not finished: 4 of 96 tiles. There is no score yet."
    )
    filling.stop(scored=False)
    assert not shown(viewer)
    assert (viewer.canvas.overlays.text.text, viewer.canvas.overlays.text.visible) == (
        "the user's own",
        False,
    )


def test_colours_only_ever_reach_further(viewer: ViewerModel, add_slide: Callable[..., Image]) -> None:
    slide = make_slide()
    add_slide(slide)
    strong, weak = (
        votes_so_far(np.array([[0, 0, 0, 4.0], [0, 0, 0, -4.0]]) * by, CLASSES) for by in (1, 0.1)
    )
    filling = filled(viewer, slide, weak, strong)
    (layer,) = shown(viewer)
    assert layer.name.startswith("evidence for 3+ of each tile by itself (scoring is not finished)")
    limits = tuple(layer.contrast_limits)
    assert limits[1] > 2.9
    assert limits[0] == -limits[1]
    np.testing.assert_allclose(layer.data[0, :2], (0.3, 3.0), rtol=1e-6)
    filling.early.put(slide.slide_id, SOME + np.array([2, 0]), weak)
    filling.show()
    assert tuple(layer.contrast_limits) == limits
    filling.stop(scored=True)


def test_the_map_is_there_before_its_first_tile_and_gets_its_limits_with_it(
    viewer: ViewerModel, add_slide: Callable[..., Image]
) -> None:
    slide = make_slide()
    add_slide(slide)
    weak = votes_so_far(np.array([[0, 0, 0, 0.4], [0, 0, 0, -0.4]]), CLASSES)
    filling = filled(viewer, slide)
    filling.show()
    assert not shown(viewer)  # nobody knows yet whether anything is to be computed
    filling.early.put(slide.slide_id, SOME[:0], replace(weak, values=weak.values[:0]))
    filling.show()
    (layer,) = shown(viewer)
    assert layer.name.startswith("evidence for 3+ of each tile by itself (scoring is not finished)")
    assert layer.visible
    assert not np.isfinite(layer.data).any()
    assert viewer.canvas.overlays.text.text.startswith("Scoring is not finished: 0 of 96 tiles.")
    filling.early.put(slide.slide_id, SOME, weak)
    filling.show()
    assert shown(viewer) == [layer]
    np.testing.assert_allclose(layer.contrast_limits, (-0.3, 0.3), rtol=1e-2)
    filling.stop(scored=False)
    assert not shown(viewer)


def test_a_map_that_the_user_takes_away_stays_away(
    viewer: ViewerModel, add_slide: Callable[..., Image]
) -> None:
    slide = make_slide()
    add_slide(slide)
    filling = filled(viewer, slide, looked_at(2))
    viewer.layers.remove(shown(viewer)[0])
    filling.early.put(slide.slide_id, SOME + np.array([2, 0]), looked_at(2))
    filling.show()
    assert not shown(viewer)
    filling.stop(scored=False)


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
def test_a_scoring_that_ends_before_its_first_tile_leaves_no_empty_map(
    qtbot: QtBot,
    make_dock: Callable[[], scoring_dock.ScoringDock],
    viewer: ViewerModel,
    add_slide: Callable[..., Image],
    monkeypatch: pytest.MonkeyPatch,
    ends: str,
) -> None:
    go_on = threading.Event()

    def scoring(slide: HandSlide, model: str, **options: object) -> Generator[Progress, None, None]:
        early = options["early"]
        early.begin(slide.slide_id, make_result(slide).grid, 96)
        early.put(slide.slide_id, SOME[:0], looked_at(0))
        while not go_on.is_set():
            time.sleep(0.01)
            yield Progress("Embedding tiles", 0, 96, "tiles")
        raise JobFailed("the disk is gone")

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    dock = make_dock()
    before = [*viewer.layers, add_slide(make_slide())]
    dock.score()
    qtbot.waitUntil(lambda: bool(shown(viewer)))
    if ends == "cancelled":
        dock.score_job.cancel()
    else:
        go_on.set()
    qtbot.waitUntil(lambda: not dock.score_job.running)
    assert list(viewer.layers) == before
    assert all(layer.visible for layer in viewer.layers)
    assert not viewer.canvas.overlays.text.visible


def test_the_dock_shows_it_until_there_is_a_result(
    qtbot: QtBot,
    make_dock: Callable[[], scoring_dock.ScoringDock],
    viewer: ViewerModel,
    add_slide: Callable[..., Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()

    def scoring(slide: HandSlide, model: str, **options: object) -> Generator[Progress, None, SlideResult]:
        early = options["early"]
        early.begin(slide.slide_id, make_result(slide).grid, 96)
        early.put(slide.slide_id, SOME, looked_at(2))
        yield Progress("Embedding tiles", 2, 96, "tiles")
        while not go_on.is_set():
            time.sleep(0.01)
            yield Progress("Embedding tiles", 2, 96, "tiles")
        return with_tissue(make_result(slide))

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    dock, slide = make_dock(), make_slide()
    add_slide(slide)
    for cancelled in (True, False, False):
        before = [layer for layer in viewer.layers if layer.visible]
        dock.score()
        qtbot.waitUntil(lambda: bool(shown(viewer)))
        assert viewer.canvas.overlays.text.visible
        visible = [layer for layer in viewer.layers if layer.visible and tag_of(layer) is not None]
        maps = [of for of in visible if isinstance(tag := tag_of(of), OverlayTag) and tag.info.is_map]
        assert not maps  # of a scoring before
        if cancelled:
            dock.score_job.cancel()
        else:
            go_on.set()
        qtbot.waitUntil(lambda: not dock.score_job.running)
        go_on.clear()
        assert not shown(viewer)
        assert not viewer.canvas.overlays.text.visible
        if cancelled:
            assert [layer for layer in viewer.layers if layer.visible] == before
    assert dock.session.result(slide.slide_id) is not None
