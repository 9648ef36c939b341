"""What tests do with the dock again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scored import make_tissue

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock
    from napari_her2.inference.result import SlideResult


def score(qtbot: QtBot, dock: ScoringDock, **options: object) -> None:
    with qtbot.waitSignal(dock.score_job.running_changed, check_params_cb=lambda running: not running):
        dock.score(**options)


def give_mpp(dock: ScoringDock, mpp: float) -> None:
    """Type µm/px, as the user does."""
    scale = dock.slides.scale
    if scale.change.isVisibleTo(dock):
        scale.change.setChecked(True)
    scale.choose("type")
    scale.mpp.setValue(mpp)
    scale.use.click()


def with_tissue(result: SlideResult) -> SlideResult:
    slides = [replace(slide, tissue=make_tissue(slide.grid.slide_shape_px0)) for slide in result.slides]
    return replace(result, slides=tuple(slides))
