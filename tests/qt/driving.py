"""What tests do with the dock again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring_dock import ScoringDock


def score(qtbot: QtBot, dock: ScoringDock, **options: object) -> None:
    with qtbot.waitSignal(dock.score_job.running_changed, check_params_cb=lambda running: not running):
        dock.score(**options)
