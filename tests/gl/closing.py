"""Closes napari's window in the midst of a real scoring, and prints what that took and left, as JSON.

    python tests/gl/closing.py SLIDE TILES_A_BATCH

0 tiles a batch are as many as the plugin takes by itself. The cache should hold no features of the slide.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from qtpy.QtCore import QTimer

import napari
from napari_her2._napari.opening import add_slides
from napari_her2.slide.reader import open_slide

MODEL = "demo-attention-mil"
OURS = ("napari-her2", "her2-")


def ours() -> list[threading.Thread]:
    """Threads of this plugin that live."""
    return [one for one in threading.enumerate() if one.name.startswith(OURS)]


class Closing:
    """Waits until tiles are being embedded, and closes the window."""

    def __init__(self, viewer: napari.Viewer, tiles_a_batch: int) -> None:
        self.viewer = viewer
        _, dock = viewer.window.add_plugin_dock_widget("napari-her2", "HER2 Scoring")
        dock.settings = replace(dock.settings, batch_size=tiles_a_batch, device="cpu")
        dock.score_job.progressed.connect(self._on_progress)
        dock.score_job.failed.connect(self._on_failed)
        self.dock: Any = dock
        self.told: dict[str, Any] = {}
        self._start()

    def _start(self) -> None:
        dock = self.dock
        if not dock.whole or dock.look_job.running or not dock.progress.start.isEnabled():
            QTimer.singleShot(50, self._start)
            return
        dock.models.combo.setCurrentText(MODEL)
        dock.progress.start.click()

    def _on_progress(self, progress: Any) -> None:
        if progress.stage == "Embedding tiles" and progress.done and not self.told:
            threads = [one.name for one in ours()]
            self.told = {"done": progress.done, "of": progress.total, "worked": threads}
            QTimer.singleShot(0, self._close)

    def _on_failed(self, failure: Any) -> None:
        self.told = {"failed": failure.message}
        self.viewer.close()

    def _close(self) -> None:
        self.told["running"] = self.dock.score_job.running
        del self.dock
        begun = time.monotonic()
        self.viewer.close()
        self.told["window_s"] = round(time.monotonic() - begun, 3)
        self.told["left_by_the_window"] = [one.name for one in ours()]
        for one in ours():
            one.join(300)
        self.told["threads_s"] = round(time.monotonic() - begun, 3)
        self.told["left"] = [one.name for one in ours()]


def main(slide: str, tiles_a_batch: str) -> None:
    """Score, close and tell."""
    viewer = napari.Viewer(show=True)
    closing = Closing(viewer, int(tiles_a_batch))
    add_slides(viewer, [open_slide(slide)])
    napari.run()
    sys.stdout.write(json.dumps({**closing.told, "load": round(os.getloadavg()[0], 1)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
