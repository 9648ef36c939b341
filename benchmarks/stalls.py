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
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartbeat import Gaps, Heart, Onlooker, Walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Shapes

    from heartbeat import Steps
    from napari import Viewer
    from napari_her2._qt.scoring.dock import ScoringDock

MOST_GAPS, MOST_MODULES = 3, 400
STEPS = 60
CORNER, PULL = 7, 0.3
"""Of an outline of 60 corners, and how far it is pulled, in radii."""


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
