"""Trainings that train nothing, and how a training dock is driven in tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.training_runs import processes as training_runs
from napari_her2.training_runs.work import ConfigChoice, MethodChoice

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

    from napari_her2._qt.training.dock import TrainingDock

SCRIPT = Path(__file__).with_name("tiny_training.py")
METHODS = tuple(
    MethodChoice(name, f"What {name} learns from", (ConfigChoice("tiny", "The tiny protocol."),))
    for name in ("trains", "ends", "table", "fails", "deaf", "refuses")
)
TIMEOUT_MS = 300_000  # a busy machine takes a minute to load PyTorch
_LOOK_MS = 50  # each look reads files and lays out the dock, and what is looked at needs the processor too


def reopen_napari() -> None:
    """What napari knew of its processes is gone when it is opened again: only their folders tell."""
    training_runs._LEAVING.extend(child.process for child in training_runs._CHILDREN.values())
    training_runs._CHILDREN.clear()


def end_all() -> None:
    children = [child.process for child in training_runs._CHILDREN.values()]
    for process in (*children, *training_runs._LEAVING):
        process.kill()
        process.wait()
    training_runs._CHILDREN.clear()
    training_runs._LEAVING.clear()


def look_until(qtbot: QtBot, dock: TrainingDock, seen: Callable[[], bool]) -> None:
    def looked() -> bool:
        dock.run.poll()
        if seen():
            return True
        qtbot.wait(_LOOK_MS)
        return False

    qtbot.waitUntil(looked, timeout=TIMEOUT_MS)


def wait_for(qtbot: QtBot, dock: TrainingDock, state: str) -> None:
    look_until(qtbot, dock, lambda: dock.run.status.state == state)


def ask(dock: TrainingDock, manifest: Path, method: str = "trains") -> Path:
    dock.asked.form.data.edit.setText(str(manifest))
    dock.asked.form.method.setCurrentIndex([choice.name for choice in METHODS].index(method))
    return Path(dock.asked.form.out.text)


def epochs_of(dock: TrainingDock) -> list[int]:
    stages = dock.run.curves._stages
    return [epoch for epoch, _ in stages[0].curves[0].points] if stages else []


def wait_for_curves(qtbot: QtBot, dock: TrainingDock) -> None:
    look_until(qtbot, dock, lambda: len(epochs_of(dock)) > 2)
