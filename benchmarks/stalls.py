"""How long napari's main thread is kept busy while a person pans, scores and draws.

A timer on the main thread beats every few milliseconds; the gap between two beats is what a person feels. Two
figures are printed for each part of a walk through a real window: the wall time of the gap, which grows with
whatever else the machine does, and the processor time of the main thread in it, which does not. The same
pans and zooms over a plain array of NumPy, and napari's own first layer of each kind, both in a process
without this plugin, say what is napari's and the display's own.

    xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX +render -noreset" python benchmarks/stalls.py

With --who the main thread is interrupted every few milliseconds, and the longest gaps of each part are shown
with the functions in which their processor time was spent: of this plugin, and below it, and the modules
that the main thread imported. Not on Windows, which has no such interruption.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from napari.layers import Shapes

    from napari import Viewer
    from napari_her2._qt.scoring.dock import ScoringDock

BEAT_MS = 4
LOOK_S = 0.005
MOST_GAPS, MOST_OWNERS, MOST_MODULES = 3, 4, 400
GARBAGE = "of it a full search for garbage"
TARGET_MS = 50.0
STEPS = 60
CORNER, PULL = 7, 0.3
"""Of an outline of 60 corners, and how far it is pulled, in radii."""
Steps = "Generator[Callable[[], bool] | float, None, None]"


@dataclass
class Gaps:
    """Gaps between beats in one part of the walk, milliseconds."""

    wall: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    owners: list[tuple[float, str]] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """One line of the table."""
        long = sum(gap > TARGET_MS for gap in self.busy)
        p95 = float(np.percentile(self.wall, 95))
        return (
            f"| {name} | {statistics.median(self.wall):.0f} | {p95:.0f} | {max(self.wall):.0f} | "
            f"{max(self.busy):.0f} | {long} | {sum(self.busy):.0f} |"
        )


class Onlooker:
    """Notes where the main thread is, from within: an interval timer interrupts it.

    Not from another thread: that would hold frames of the main thread for a moment, and if one of them ended
    meanwhile, its local variables would be freed over there, where Qt may not destroy what it draws with.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float, str]] = deque(maxlen=4000)
        self._busy = time.thread_time()
        self._collecting = (0.0, 0.0)
        gc.callbacks.append(self._on_garbage)
        signal.signal(signal.SIGALRM, self._look)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, LOOK_S)
        self._stopped = False

    def stop(self) -> None:
        """Interrupt no more."""
        self._stopped = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_garbage(self, phase: str, of: dict[str, int]) -> None:
        """Note what a full search for garbage on the main thread takes."""
        if of["generation"] < 2 or threading.current_thread() is not threading.main_thread():
            return
        now = time.thread_time()
        if phase == "start":
            self._collecting = (time.perf_counter(), now)
        else:
            self._seen.append((self._collecting[0], 1000 * (now - self._collecting[1]), GARBAGE))

    def _look(self, _signal: int, frame: FrameType | None) -> None:
        signal.set_wakeup_fd(-1)  # napari's, for Ctrl-C, which nobody would empty as fast
        # Python interrupts between two of its instructions: what a call into C takes is noted as one piece,
        # with the function that made the call.
        before, self._busy = self._busy, time.thread_time()
        self._seen.append((time.perf_counter(), 1000 * (self._busy - before), _place_of(frame)))
        # One at a time, armed anew at the end: a look that takes long is not interrupted by the next.
        if not self._stopped:
            signal.setitimer(signal.ITIMER_REAL, LOOK_S)

    def owners(self, begin: float, end: float) -> str:
        """Say in which functions the processor time between two moments was spent."""
        spent = Counter[str]()
        for when, busy_ms, place in list(self._seen):  # it may be interrupted itself
            if begin <= when <= end:
                spent[place] += busy_ms
        return "; ".join(f"{ms:.0f} ms {place}" for place, ms in spent.most_common(MOST_OWNERS))


def _place_of(frame: FrameType | None) -> str:
    """Name the innermost function, and the innermost ones of this plugin that it was called from."""
    inner, own = "", list[str]()
    while frame is not None:
        code = frame.f_code
        name = f"{'/'.join(code.co_filename.split('/')[-2:])}:{code.co_name}"
        inner = inner or name
        if "napari_her2" in code.co_filename and len(own) < 2:
            own.append(name)
        frame = frame.f_back
    return f"{inner} < {' < '.join(own) or 'nothing of ours'}"


class Imports:
    """Notes which modules the main thread has to find: Python asks it first."""

    def __init__(self) -> None:
        self.names: list[str] = []
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]  # it finds nothing

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Note the name, and leave the rest to Python."""
        if threading.current_thread() is threading.main_thread():
            self.names.append(name)


class Heart:
    """The timer on the main thread."""

    def __init__(self, onlooker: Onlooker | None = None) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.parts: dict[str, Gaps] = {}
        self._onlooker = onlooker
        self._part = ""
        self._imports = Imports() if onlooker is not None else None
        self._last = (0.0, 0.0)
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)

    def begin(self, part: str) -> None:
        """Count what follows for a part."""
        self._note_imports()
        self._part = part
        self.parts.setdefault(part, Gaps())
        self._last = (time.perf_counter(), time.thread_time())
        self._timer.start()

    def stop(self) -> None:
        """Count nothing until `begin`."""
        self._note_imports()
        self._timer.stop()

    def _note_imports(self) -> None:
        """Note for the part that ends what was imported in it."""
        if self._imports is not None:
            names, self._imports.names = self._imports.names, []
            if self._part:
                self.parts[self._part].imported += names

    def _beat(self) -> None:
        now = (time.perf_counter(), time.thread_time())
        of = self.parts[self._part]
        of.wall.append(1000 * (now[0] - self._last[0]))
        of.busy.append(1000 * (now[1] - self._last[1]))
        if self._onlooker is not None and of.busy[-1] > TARGET_MS:
            of.owners.append((of.busy[-1], self._onlooker.owners(self._last[0], now[0])))
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


def pull_corner(viewer: Viewer, layer: Shapes, corner: int, reach: float) -> Steps:
    """Pull a corner of the first shape of a layer with the mouse.

    Parameters
    ----------
    viewer : Viewer
    layer : Shapes
    corner : int
    reach : float
        How far, to the lower right, in units of the world.
    """
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    viewer.layers.selection.active = layer
    layer.mode, layer.selected_data = "direct", {0}
    yield 0.5
    canvas = next(of for of in QApplication.allWidgets() if type(of).__name__.startswith("CanvasBackend"))
    camera = viewer.scene.camera
    middle = np.array([canvas.height(), canvas.width()]) / 2
    start = layer.data_to_world(layer.data[0][corner])[-2:] - np.array(camera.center[-2:])
    none, left = Qt.MouseButton.NoButton, Qt.MouseButton.LeftButton

    def send(kind: QEvent.Type, far: float, button: Qt.MouseButton, held: Qt.MouseButton) -> None:
        y, x = middle + (start + far) * camera.zoom
        at = QPointF(float(x), float(y))
        event = QMouseEvent(kind, at, canvas.mapToGlobal(at), button, held, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(canvas, event)

    before = np.array(layer.data[0][corner])
    send(QEvent.Type.MouseMove, 0.0, none, none)
    send(QEvent.Type.MouseButtonPress, 0.0, left, left)
    for step in range(1, STEPS + 1):
        send(QEvent.Type.MouseMove, reach * step / STEPS, none, left)
        yield 0.05
    send(QEvent.Type.MouseButtonRelease, reach, left, none)
    if np.array_equal(layer.data[0][corner], before):
        raise RuntimeError("the mouse missed the corner")


def replace_outline(layer: Shapes, corner: int, reach: float) -> Steps:
    """Give a layer of one shape its outline anew, with a corner that moves so far in its data."""
    outline = np.array(layer.data[0])
    for step in range(1, STEPS + 1):
        moved = outline.copy()
        moved[corner] += reach * step / STEPS
        layer.data = [moved]
        yield 0.05


def own_walk(viewer: Viewer, heart: Heart, size_px: int) -> Steps:
    """Walk through what is napari's own: the first and the second layer of each kind, a plain array."""
    random = np.random.default_rng(0)
    plain = random.integers(0, 255, (size_px // 4, size_px // 4, 3), dtype=np.uint8)
    values = random.random((200, 200), np.float32)
    square = np.array([(10.0, 10.0), (10.0, 50.0), (50.0, 50.0), (50.0, 10.0)])
    kinds: dict[str, Callable[[], object]] = {
        "picture": lambda: viewer.add_image(plain, rgb=True),
        "map": lambda: viewer.add_image(values, colormap="magma", contrast_limits=(0, 1)),
        "bar of colours": lambda: setattr(viewer.layers[-1].colorbar, "visible", True),
        "labels": lambda: viewer.add_labels((values * 1000).astype(np.uint16)),
        "shapes": lambda: viewer.add_shapes([square], shape_type="polygon"),
    }
    yield 0.5
    for number in ("first", "second"):
        for kind, add in kinds.items():
            heart.begin(f"napari's own {number} {kind}")
            add()
            yield 0.6
            if (number, kind) == ("first", "picture"):
                heart.begin("pan and zoom, plain array, no plugin")
                yield from pan_and_zoom(viewer, STEPS, (size_px / 8, size_px / 8), size_px / 16)
    viewer.reset_view()
    layer = viewer.add_shapes(
        [around((size_px / 8, size_px / 8), size_px / 16, 60) / 4],
        shape_type="polygon",
        face_color="transparent",
        edge_width=size_px / 2048,
    )
    heart.begin("napari's own pulled corner")
    yield from pull_corner(viewer, layer, CORNER, PULL * size_px / 16)
    heart.begin("napari's own outline given anew")
    yield from replace_outline(layer, CORNER, PULL * size_px / 16)
    heart.stop()


def window_walk(viewer: Viewer, heart: Heart, size_px: int) -> Steps:
    """Open, pan, score, pan while scoring, look at the result."""
    from napari_her2._napari.sample_data import PhantomCase, phantom_layers

    layers = phantom_layers(PhantomCase("stalls", "2+", seed=7, size_px=size_px, mpp=0.25))
    yield 0.5
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
    yield lambda: all_there(dock)
    yield 1.0
    heart.begin("pan and zoom under maps")
    yield from pan_and_zoom(viewer, STEPS, (2 * reach, 2 * reach), reach)
    viewer.reset_view()
    yield 0.5
    heart.begin("the first layer of regions")
    dock.regions.add_layer()
    yield 0.5
    outline = around((2 * reach, 2 * reach), reach, 60)
    dock.regions.layer.add(outline, shape_type="polygon")
    yield 2.0
    heart.begin("a corner of a region is pulled")
    yield from pull_corner(viewer, dock.regions.layer, CORNER, PULL * reach)
    heart.begin("an outline is given anew")
    yield from replace_outline(dock.regions.layer, CORNER, 4 * PULL * reach)
    heart.begin("the exact answer of a region")
    yield 3.0
    dock.regions.combo.setCurrentIndex(0)
    yield 1.0
    heart.begin("scored again with another model")
    yield from choose(dock, "demo-wsmcl")
    dock.score()
    yield lambda: not dock.score_job.running and all_there(dock)
    yield 1.0
    heart.stop()


def all_there(dock: ScoringDock) -> bool:
    """Whether the overlays of all results are in the viewer, which takes a turn for each step."""
    shown = [dock.session.overlays(result.slide_id) for result in dock.session.results]
    return bool(shown) and all(of is None or of.whole for of in shown)


def around(middle: tuple[float, float], reach: float, corners: int) -> np.ndarray:
    """Corners of a ring, (N, 2) in level-0 pixels of a slide of 0.25 µm/px; middle and reach in µm."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return 4 * (np.array(middle) + reach * np.stack([np.sin(angle), np.cos(angle)], axis=1))


def choose(dock: ScoringDock, model: str) -> Steps:
    """Choose a model in the dock."""
    names = [entry.name for entry in dock.models.entries]
    dock.models.combo.setCurrentIndex(names.index(model))
    yield 0.2


def walked(walk: Callable[[Viewer, Heart, int], Steps], size_px: int, *, who: bool) -> dict[str, Gaps]:
    """Open a window, walk in it, close it, and return the gaps of each part."""
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1600, 1000)
    onlooker = Onlooker() if who else None
    heart = Heart(onlooker)
    going = Walk(walk(viewer, heart, size_px), viewer.close)
    napari.run()
    if onlooker is not None:
        onlooker.stop()
    if going.failure is not None:
        raise going.failure
    return {name: gaps for name, gaps in heart.parts.items() if gaps.wall}


def main() -> None:
    """Walk and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=8192, help="pixels of the phantom's side")
    parser.add_argument("--who", action="store_true", help="say where the longest gaps were spent")
    parser.add_argument("--own", type=Path, help=argparse.SUPPRESS)  # napari's own walk, written there
    options = parser.parse_args()
    if options.own is not None:
        own = walked(own_walk, options.size, who=options.who)
        options.own.write_text(json.dumps({name: asdict(gaps) for name, gaps in own.items()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        for kept in ("ALIGNMENTS", "CALIBRATIONS", "DESK"):  # what an earlier walk left would come back
            os.environ[f"NAPARI_HER2_{kept}"] = str(Path(folder, kept))
        own_file = Path(folder, "own.json")
        again = [sys.executable, __file__, "--own", str(own_file), "--size", str(options.size)]
        subprocess.run([*again, *(["--who"] if options.who else [])], check=True)
        parts = {name: Gaps(**of) for name, of in json.loads(own_file.read_text()).items()}
        parts |= walked(window_walk, options.size, who=options.who)
    print("| part | median gap, ms | 95 % | longest | longest of the processor | over 50 ms | in all |")
    print("|---|---|---|---|---|---|---|")
    for name, gaps in parts.items():
        print(gaps.row(name))
    print(f"\nLoad at the end: {', '.join(f'{load:.1f}' for load in os.getloadavg())}.")
    for name, gaps in parts.items():
        for busy, owners in sorted(gaps.owners, reverse=True)[:MOST_GAPS]:
            print(f"{name}, {busy:.0f} ms: {owners}")
        if gaps.imported:
            print(f"{name}, imported: {len(gaps.imported)}: {' '.join(gaps.imported[:MOST_MODULES])}")


if __name__ == "__main__":
    main()
