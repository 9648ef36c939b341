"""The docks: the only room that imports Qt, and that only once a dock is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_her2._qt.day_list.dock import DayListDock
    from napari_her2._qt.reading.dock import ReadingDock
    from napari_her2._qt.scoring.dock import ScoringDock
    from napari_her2._qt.training.dock import TrainingDock

__all__ = ["DayListDock", "ReadingDock", "ScoringDock", "TrainingDock"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class of this room
    # napari's manifest names this module: importing it must not load Qt.
    if name == "ScoringDock":
        from napari_her2._qt.scoring.dock import ScoringDock

        return ScoringDock
    if name == "TrainingDock":
        from napari_her2._qt.training.dock import TrainingDock

        return TrainingDock
    if name == "ReadingDock":
        from napari_her2._qt.reading.dock import ReadingDock

        return ReadingDock
    if name == "DayListDock":
        from napari_her2._qt.day_list.dock import DayListDock

        return DayListDock
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
