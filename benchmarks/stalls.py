"""How long napari's main thread is kept busy while a person pans, scores and draws.

A timer on the main thread beats every few milliseconds; the gap between two beats is what a person feels. Two
figures are printed for each part of a walk through a real window: the wall time of the gap, which grows with
whatever else the machine does, and the processor time of the main thread in it, which does not. The same
pans and zooms over a plain array of NumPy, without this plugin, say what is napari's and the display's own.

    xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX +render -noreset" python benchmarks/stalls.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from napari_her2._qt.scoring.dock import ScoringDock

BEAT_MS = 4
TARGET_MS = 50.0
STEPS = 60
Steps = "Generator[Callable[[], bool] | float, None, None]"


@dataclass
class Gaps:
    """Gaps between beats in one part of the walk, milliseconds."""

    wall: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        """One line of the table."""
        long = sum(gap > TARGET_MS for gap in self.busy)
        p95 = float(np.percentile(self.wall, 95))
        return (
            f"| {name} | {statistics.median(self.wall):.0f} | {p95:.0f} | {max(self.wall):.0f} | "
            f"{max(self.busy):.0f} | {long} |"
        )


class Heart:
    """The timer on the main thread."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.parts: dict[str, Gaps] = {}
        self._part = ""
        self._last = (0.0, 0.0)
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)

    def begin(self, part: str) -> None:
        """Count what follows for a part."""
        self._part = part
        self.parts.setdefault(part, Gaps())
        self._last = (time.perf_counter(), time.thread_time())
        self._timer.start()

    def stop(self) -> None:
        """Count nothing until `begin`."""
        self._timer.stop()

    def _beat(self) -> None:
        now = (time.perf_counter(), time.thread_time())
        of = self.parts[self._part]
        of.wall.append(1000 * (now[0] - self._last[0]))
        of.busy.append(1000 * (now[1] - self._last[1]))
        self._last = now


class Walk:
    """Drives a window step by step: a step yields seconds to wait, or what has to become true."""

    def __init__(self, steps: Steps, done: Callable[[], None]) -> None:
        self._steps, self._done, self.failure = steps, done, None
        self._until: Callable[[], bool] | None = None
        self._later(0.0)

    def _later(self, seconds: float) -> None:
        from qtpy.QtCore import QTimer

        QTimer.singleShot(round(1000 * seconds), self._go)

    def _go(self) -> None:
        if self._until is not None and not self._until():
            self._later(0.02)
            return
        try:
            wish = next(self._steps)
        except StopIteration:
            self._done()
            return
        except BaseException as error:  # noqa: BLE001 - an error in a slot would leave the window open for ever
            self.failure = error
            self._done()
            return
        self._until = wish if callable(wish) else None
        self._later(0.0 if callable(wish) else wish)


def pan_and_zoom(viewer: Viewer, steps: int, centre: tuple[float, float], reach: float) -> Steps:
    """Move the camera as a hand does: pans with some zooms in between.

    Parameters
    ----------
    viewer : Viewer
    steps : int
    centre : tuple of float
        (y, x), µm.
    reach : float
        How far it moves from there, µm.
    """
    zoom = viewer.scene.camera.zoom
    for step in range(steps):
        angle = 2 * np.pi * step / steps
        viewer.scene.camera.center = (
            0.0,
            centre[0] + reach * np.sin(angle),
            centre[1] + reach * np.cos(2 * angle),
        )
        if step % 6 == 5:
            viewer.scene.camera.zoom = zoom * (4.0 if step % 12 == 5 else 1.0)
        yield 0.03


def window_walk(viewer: Viewer, heart: Heart, size_px: int) -> Steps:
    """Open, pan, score, pan while scoring, look at the result."""
    from napari_her2._napari.sample_data import PhantomCase, phantom_layers

    plain = np.random.default_rng(0).integers(0, 255, (size_px // 4, size_px // 4, 3), dtype=np.uint8)
    layers = phantom_layers(PhantomCase("stalls", "2+", seed=7, size_px=size_px, mpp=0.25))
    layer = viewer.add_image(plain, rgb=True, scale=(1.0, 1.0))
    viewer.reset_view()
    yield 0.5
    middle = (size_px / 8, size_px / 8)
    heart.begin("pan and zoom, plain array, no plugin")
    yield from pan_and_zoom(viewer, STEPS, middle, size_px / 16)
    heart.stop()
    viewer.layers.remove(layer)
    yield 0.2
    heart.begin("opening the two slides")
    for data, options, kind in layers:
        getattr(viewer, f"add_{kind}")(data, **options)
    viewer.reset_view()
    yield 1.0
    heart.begin("opening the dock")
    dock: ScoringDock = viewer.window.add_plugin_dock_widget("napari-her2", "HER2 Scoring")[1]
    yield lambda: bool(dock.models.entries) and not dock.look_job.running
    yield 0.5
    viewer.reset_view()
    reach = size_px * 0.25 / 4
    heart.begin("pan and zoom of a slide")
    yield from pan_and_zoom(viewer, STEPS, (2 * reach, 2 * reach), reach)
    viewer.reset_view()
    yield from choose(dock, "demo-attention-mil")
    heart.begin("scoring, while panning")
    dock.score()
    moves = pan_and_zoom(viewer, 10_000, (2 * reach, 2 * reach), reach)
    while dock.score_job.running:
        yield next(moves)
    heart.begin("the result appears")
    yield 2.0
    heart.begin("pan and zoom under maps")
    yield from pan_and_zoom(viewer, STEPS, (2 * reach, 2 * reach), reach)
    viewer.reset_view()
    heart.begin("scored again with another model")
    yield from choose(dock, "demo-wsmcl")
    dock.score()
    yield lambda: not dock.score_job.running
    yield 2.0
    heart.stop()


def choose(dock: ScoringDock, model: str) -> Steps:
    """Choose a model in the dock."""
    names = [entry.name for entry in dock.models.entries]
    dock.models.combo.setCurrentIndex(names.index(model))
    yield 0.2


def main() -> None:
    """Walk and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=8192, help="pixels of the phantom's side")
    options = parser.parse_args()
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1600, 1000)
    heart = Heart()
    walk = Walk(window_walk(viewer, heart, options.size), viewer.close)
    napari.run()
    if walk.failure is not None:
        raise walk.failure
    print("| part | median gap, ms | 95 % | longest | longest of the processor | over 50 ms |")
    print("|---|---|---|---|---|---|")
    for name, gaps in heart.parts.items():
        if gaps.wall:
            print(gaps.row(name))


if __name__ == "__main__":
    main()
