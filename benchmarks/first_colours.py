"""From Score to the first coloured tiles, to the tiles in view, and to the whole map.

    xvfb-run -a -s "-screen 0 1366x768x24 +extension GLX +render -noreset" python benchmarks/first_colours.py
    ... python benchmarks/first_colours.py --slide case.svs --model demo-wsmcl --out pictures

A slide is opened in a window, a part of it is looked at, and Score is pressed in the dock: at once, and once
more with a file of its own some seconds after it was opened, since what can be known of a slide without a
model is found meanwhile. The time of the first coloured tiles is that of the first picture of the window that
holds them; beside it stands the processor time of the whole process until then, which does not grow with
whatever else the machine does. With --out the window is saved as the map fills in, as PNG. What was computed
before is not used: the files are new, and so is the folder of features. The model is loaded and used once
before, on another slide, as in a session.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartbeat import Walk
from stalls import choose
from views import Frames

if TYPE_CHECKING:
    from napari.layers import Image

    from heartbeat import Steps
    from napari import Viewer
    from napari_her2._qt.scoring.dock import ScoringDock

WINDOW = (1366, 768)
SHARES = (0.0, 0.25, 0.5, 0.75)
VIEW_PX = 2400  # of the slide, across the window
WAITS_S = (0.0, 2.0)  # from the opened slide to Score


class Watch:
    """Notes when what was drawn, and saves pictures of it."""

    def __init__(self, viewer: Viewer, out: Path | None) -> None:
        self.viewer, self.out = viewer, out
        self.begun, self.busy = 0.0, 0.0
        self.noted = list[dict[str, tuple[float, float]]]()
        self.saved = self.tiles = 0

    def begin(self) -> None:
        """Count from now on."""
        self.saved = 0
        self.noted.append({})
        self.begun, self.busy = time.perf_counter(), time.process_time()

    def note(self, what: str, when: tuple[float, float] | None = None) -> None:
        """Note when something happened for the first time, wall clock and processor; by default now."""
        wall, busy = (time.perf_counter(), time.process_time()) if when is None else when
        self.noted[-1].setdefault(what, (wall - self.begun, busy - self.busy))

    def save(self, share: float, *, always: bool = False) -> None:
        """Save the window, once a share of the map is there."""
        due = self.saved < len(SHARES) and share >= SHARES[self.saved]
        if self.out is not None and (always or due):
            self.viewer.screenshot(str(self.out / f"map-{self.saved}.png"), canvas_only=False, flash=False)
            self.saved += 1


class Filling:
    """Notes when the map that fills in was given its first values, and the last of those in view.

    Parameters
    ----------
    viewer : Viewer
    keep : (rows, columns) bool
        Tiles of tissue.
    tile_px0 : float
    at : tuple of float
        (y, x) of the middle of the view, level-0 pixels.
    """

    def __init__(self, viewer: Viewer, keep: Any, tile_px0: float, at: tuple[float, float]) -> None:  # noqa: ANN401
        self.first = self.all = math.inf
        self._viewer, self._seen = viewer, (keep, tile_px0, at)
        viewer.layers.events.inserted.connect(self._on_layer)

    def stop(self) -> None:
        """Listen no more."""
        self._viewer.layers.events.inserted.disconnect(self._on_layer)

    def _on_layer(self, event: object) -> None:
        layer = early_map(self._viewer)
        if layer is not None and getattr(event, "value", None) is layer:
            layer.events.data.connect(self._on_values)
            self._on_values()

    def _on_values(self, event: object = None) -> None:
        layer, now = early_map(self._viewer), time.perf_counter()
        if layer is None or not np.isfinite(layer.data).any():
            return
        self.first = min(self.first, now)
        coloured, tiles = in_view(layer, *self._seen)
        if coloured == tiles:
            self.all = min(self.all, now)


def early_map(viewer: Viewer) -> Image | None:
    """Return the layer that fills in, None where there is none."""
    from napari_her2._napari.tags import OverlayTag, tag_of
    from napari_her2.explain.early import READ

    found = [
        of for of in viewer.layers if isinstance(tag := tag_of(of), OverlayTag) and tag.kind == READ.kind
    ]
    return found[0] if found else None


def in_view(layer: Image, keep: Any, tile_px0: float, at: tuple[float, float]) -> tuple[int, int]:  # noqa: ANN401
    """(coloured, all) tiles of tissue in the view."""
    height = VIEW_PX * WINDOW[1] / WINDOW[0]
    rows, cols = (
        slice(max(0, int((middle - side / 2) / tile_px0)), int((middle + side / 2) / tile_px0) + 1)
        for middle, side in zip(at, (height, VIEW_PX), strict=True)
    )
    tissue = keep[rows, cols]
    return int((np.isfinite(layer.data[rows, cols]) & tissue).sum()), int(tissue.sum())


def scoring_walk(viewer: Viewer, watch: Watch, paths: list[Path], warm: Path, model: str) -> Steps:
    """Score a slide to have the model at hand; then others, each at another time after it was opened."""
    from napari_her2._napari.opening import add_slides
    from napari_her2.slide.reader import open_slide

    dock = viewer.window.add_plugin_dock_widget("napari-her2", "HER2 Scoring")[1]
    yield lambda: bool(dock.models.entries) and not dock.look_job.running
    yield from choose(dock, model)
    add_slides(viewer, [open_slide(warm)])
    yield 0.5
    dock.score()
    yield lambda: not dock.score_job.running
    for path, wait_s in zip(paths, WAITS_S, strict=True):
        yield 1.0
        viewer.layers.clear()
        yield 0.5
        yield from first_colours(viewer, dock, watch, path, wait_s)


def first_colours(viewer: Viewer, dock: ScoringDock, watch: Watch, path: Path, wait_s: float) -> Steps:
    """Open a slide, look at a part of it, score, and watch the map fill in."""
    from napari_her2._napari.opening import add_slides
    from napari_her2.slide.reader import open_slide

    card = dock.models.entry.card
    with open_slide(path) as known:  # another one than is scored, which is to find all of this by itself
        grid, mpp = known.tile_grid(card.tile_px, card.mpp), known.known_mpp
        keep = known.tissue().keep(grid)
    middle = np.argwhere(keep)[int(0.7 * keep.sum())] + 0.5
    at = tuple(float(of) for of in middle * np.asarray(grid.tile_px0))
    frames = Frames()
    add_slides(viewer, [open_slide(path)])
    viewer.scene.camera.center = (0.0, at[0] * mpp[0], at[1] * mpp[1])
    viewer.scene.camera.zoom = viewer.canvas.size[1] / (VIEW_PX * mpp[1])
    yield lambda: dock.slides.slide is not None
    yield wait_s
    filling = Filling(viewer, keep, grid.tile_px0[0], at)
    watch.begin()
    dock.score()
    while dock.score_job.running:
        layer = early_map(viewer)
        if layer is not None and np.isfinite(layer.data).any():
            watch.save(float(np.isfinite(layer.data).sum() / keep.sum()))
            if watch.saved == 1 and watch.out is not None:
                viewer.reset_view()
        yield 0.01
    result = time.perf_counter(), time.process_time()
    for what, moment in (("first coloured tiles", filling.first), ("all tiles in view", filling.all)):
        drawn = next((of for of in frames.drawn if of[0] > moment), None)
        if drawn is not None:
            watch.note(f"{what}, drawn", drawn)
    watch.note("the result", result)
    filling.stop()
    yield 1.5
    watch.save(1.0, always=True)
    watch.tiles = int(keep.sum())


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, help="by default a phantom")
    parser.add_argument("--size", type=int, default=8192, help="side of the phantom, px")
    parser.add_argument("--model", default="demo-attention-mil")
    parser.add_argument("--out", type=Path, help="folder for pictures of the map filling in")
    options = parser.parse_args()
    import napari
    from napari_her2.phantom.pair import make_pair

    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for kept in ("CACHE", "ALIGNMENTS", "CALIBRATIONS", "DESK"):  # earlier results would come back
            os.environ[f"NAPARI_HER2_{kept}"] = str(Path(folder, kept))
        at = Path(folder)
        warm = make_pair(at / "warm", "warm", score="2+", seed=1, size_px=1536, mpp=0.5).he
        path = options.slide
        if path is None:
            path = make_pair(at / "case", "case", score="3+", seed=7, size_px=options.size, mpp=0.25).he
        paths = [at / f"after {wait_s:g} s" / path.name for wait_s in WAITS_S]
        for number, copy in enumerate(paths):
            copy.parent.mkdir()
            shutil.copyfile(path, copy)
            with copy.open("ab") as file:  # other bytes: of the same ones the features are known
                file.write(bytes([number]) * 16)
        viewer = napari.Viewer(show=True)
        viewer.window.resize(*WINDOW)
        watch = Watch(viewer, options.out)
        walk = Walk(scoring_walk(viewer, watch, paths, warm, options.model), viewer.close)
        napari.run()
    if walk.failure is not None:
        raise walk.failure
    load = ", ".join(f"{of:.1f}" for of in os.getloadavg())
    print(
        f"{path.name}, {watch.tiles:,} tiles, {options.model}, Python {platform.python_version()}, "
        f"load {load}\n"
    )
    heads = [f"Score {wait_s:g} s after opening, s | processor, s" for wait_s in WAITS_S]
    print(f"| from Score to | {' | '.join(heads)} |\n|---|{'---|---|' * len(heads)}")
    for what in watch.noted[0]:
        figures = [f"{of[what][0]:.2f} | {of[what][1]:.2f}" for of in watch.noted]
        print(f"| {what} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
