"""Looking at a slide: fields at every level, opening, and a walk of pans and zooms in a window.

    python benchmarks/views.py                                     # fields and opening
    xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX +render -noreset" python benchmarks/views.py --walk
    ... python benchmarks/views.py --open                          # from a file to its first picture there
    python benchmarks/views.py --slow-ms 20                        # every read of the file waits so long

A field is new to every reader ("cold": nothing of it was decoded before, its file is in the memory of the
system) or was just shown ("warm"). In the walk a step moves the camera and ends with the last picture that
follows; the same walk over the same levels as arrays in memory, and over a small picture of which nothing is
ever read anew, says what is napari's and the display's own. Where napari-wsi is installed it walks too.
Its opening, `--open`, ends with the first picture after the layer was added, as napari's own menu would.
Readers and arms take turns, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2 import Slide, open_slide
from slides import make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari import Viewer

FIELD = (1080, 1920)
WINDOW = (1600, 1000)
STEPS, QUIET_S, LONGEST_S = 60, 0.05, 20.0
SMALL = 64  # px of a picture of which nothing is read while the view moves
DATA = "NAPARI_HER2_TEST_DATA"
Times = dict[str, list[float]]
Step = tuple[float, float, float]
"""(y, x) of the middle of the view, µm, and its zoom."""


def readers(path: Path, slide: Slide) -> Iterator[tuple[str, Callable[[int, int, int, int, int], object]]]:
    """Readers of (level, y, x, height, width), each with nothing decoded before."""
    import tiffslide

    lazy = slide.pyramid()
    stored = {level.shape for level in lazy}
    shown = [level for level in slide.display() if level.shape in stored]  # and not those between
    yield "ours, cold", lambda n, y, x, h, w: shown[n][y : y + h, x : x + w]
    yield "ours, warm", lambda n, y, x, h, w: shown[n][y : y + h, x : x + w]
    yield "ours through dask", lambda n, y, x, h, w: np.asarray(lazy[n][y : y + h, x : x + w])
    steps = [round(down[0]) for down in slide.level_downsamples]
    with tiffslide.TiffSlide(path) as other:
        yield (
            f"tiffslide {tiffslide.__version__}",
            lambda n, y, x, h, w: other.read_region((x * steps[n], y * steps[n]), n, (w, h), as_array=True),
        )
    try:
        import openslide
    except ImportError:
        return
    with openslide.OpenSlide(path) as peer:
        yield (
            f"openslide-python {openslide.__version__}",
            lambda n, y, x, h, w: np.asarray(peer.read_region((x * steps[n], y * steps[n]), n, (w, h))),
        )


def fields(path: Path, rounds: int) -> list[tuple[str, list[float]]]:
    """Milliseconds of a field at each level of the file, for each reader; new places every round."""
    rng, found = np.random.default_rng(0), defaultdict[tuple[int, str], list[float]](list)
    with open_slide(path) as slide:
        for number in range(rounds + 1):
            for level, shape in enumerate(slide.level_shapes):
                height, width = (min(of) for of in zip(FIELD, shape, strict=True))
                y, x = (int(rng.integers(0, high + 1)) for high in (shape[0] - height, shape[1] - width))
                for name, read in readers(path, slide):
                    start = time.perf_counter()
                    read(level, y, x, height, width)
                    if number:
                        found[level, name].append(1000 * (time.perf_counter() - start))
        shapes = slide.level_shapes
    return [
        (f"level {level} of {shapes[level][1]:,} px: {name}", values)
        for (level, name), values in sorted(found.items(), key=lambda item: item[0][0])
    ]


def opening(path: Path, rounds: int) -> list[tuple[str, list[float]]]:
    """Milliseconds from the name of a file to the pixels of its coarsest level, which napari draws first."""
    import tiffslide

    def ours() -> None:
        with open_slide(path) as slide:
            np.asarray(slide.display()[-1])

    def peer() -> None:
        with tiffslide.TiffSlide(path) as slide:
            level = slide.level_count - 1
            slide.read_region((0, 0), level, slide.level_dimensions[level], as_array=True)

    found: Times = {"open to the first picture: ours": [], f"tiffslide {tiffslide.__version__}": []}
    for number in range(rounds + 1):
        for name, work in zip(found, (ours, peer), strict=True):
            start = time.perf_counter()
            work()
            if number:
                found[name].append(1000 * (time.perf_counter() - start))
    return list(found.items())


class Frames:
    """Counts the pictures that a window has drawn, and keeps when: wall clock and processor, seconds."""

    def __init__(self) -> None:
        from qtpy.QtOpenGLWidgets import QOpenGLWidget
        from qtpy.QtWidgets import QApplication

        self.last, self.count = 0.0, 0
        self.drawn: list[tuple[float, float]] = []
        found = [of for top in QApplication.topLevelWidgets() for of in top.findChildren(QOpenGLWidget)]
        for widget in found:
            widget.frameSwapped.connect(self._on_frame)

    def _on_frame(self) -> None:
        self.last, self.count = time.perf_counter(), self.count + 1
        self.drawn.append((self.last, time.process_time()))

    def until_quiet(self, done: Callable[[], bool]) -> float:
        """Let the window draw until nothing new comes; return the seconds of the longest turn."""
        from qtpy.QtWidgets import QApplication

        start, longest = time.perf_counter(), 0.0
        while True:
            turn = time.perf_counter()
            QApplication.processEvents()
            now = time.perf_counter()
            longest = max(longest, now - turn)
            if now - start > LONGEST_S or (done() and now - max(self.last, start) > QUIET_S):
                return longest
            time.sleep(0.0005)


def places(shape: tuple[int, int], mpp: float) -> Iterator[tuple[float, float, float]]:
    """(y, x) of the centre, µm, and zoom of each step: pans of an eighth of a view, some zooms between."""
    reach = shape[0] * mpp, shape[1] * mpp
    y, x = reach[0] * 0.4, reach[1] * 0.4
    zoom = 1 / mpp
    heading = 0.3
    for step in range(STEPS):
        if step % 10 == 4:
            zoom *= 0.5 if step % 20 == 4 else 2.0
        elif step % 15 == 7:
            zoom *= 0.4 if step % 30 == 7 else 2.5
        else:
            heading += 0.9 if step % 12 == 11 else 0.0
            down, right = np.sin(heading), np.cos(heading)
            # Back towards the middle where the slide would end: over its rim there is nothing to draw.
            if not 0.3 < (y + down) / reach[0] < 0.7:
                down = np.sign(reach[0] / 2 - y) * abs(down)
            if not 0.3 < (x + right) / reach[1] < 0.7:
                right = np.sign(reach[1] / 2 - x) * abs(right)
            y += 0.125 * WINDOW[1] / zoom * down
            x += 0.125 * WINDOW[0] / zoom * right
        yield y, x, zoom


def walk(
    viewer: Viewer, frames: Frames, data: object, scale: tuple[float, float], steps: list[Step]
) -> Times:
    """Milliseconds until drawn, of the main thread, and of its longest turn, of each step over some data."""
    layer = viewer.add_image(data, rgb=True, scale=scale, cache=False)
    viewer.reset_view()
    frames.until_quiet(lambda: bool(layer.loaded))
    found: Times = {"drawn": [], "main": [], "turn": [], "all": []}
    for y, x, zoom in steps:
        start, busy, whole = time.perf_counter(), time.thread_time(), time.process_time()
        viewer.scene.camera.center = (0.0, y, x)
        viewer.scene.camera.zoom = zoom
        asked = time.perf_counter() - start
        turn = frames.until_quiet(lambda: bool(layer.loaded))
        found["turn"].append(1000 * max(asked, turn))
        found["drawn"].append(1000 * (max(frames.last, start) - start))
        found["main"].append(1000 * (time.thread_time() - busy))
        found["all"].append(1000 * (time.process_time() - whole))
    viewer.layers.remove(layer)
    return found


def ours(path: Path) -> tuple[Any, ...]:
    """Open a slide; return the data of its layer, and what it is called with."""
    from napari_her2._napari.layers import slide_layer

    return slide_layer(open_slide(path))


def napari_wsi() -> tuple[str, Callable[[Path], tuple[Any, ...]]] | None:
    """Name of napari-wsi, and what `ours` is of it; None where it is not installed."""
    try:
        from napari_wsi.backends.common import WSIReaderBackend
        from napari_wsi.color_transform import ColorSpace
        from napari_wsi.common import open_store
    except ImportError:
        return None

    def opened(path: Path) -> tuple[Any, ...]:
        store = open_store(path=str(path), backend=WSIReaderBackend.OPENSLIDE, color_space=ColorSpace.sRGB)
        return store.to_layer_data_tuples()[0]

    return f"napari-wsi {version('napari-wsi')}", opened


def first_pictures(path: Path, rounds: int) -> dict[str, Times]:
    """Milliseconds from a file to its first picture in a window, by the clock and of the processor."""
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*WINDOW)
    frames = Frames()
    found: dict[str, Times] = {}
    arms = {"ours": ours}
    if (other := napari_wsi()) is not None:
        arms[other[0]] = other[1]
    for number in range(rounds + 1):
        for name, make in arms.items():
            frames.until_quiet(lambda: True)
            start = time.perf_counter(), time.process_time()
            data, options, _ = make(path)
            viewer.add_image(data, **options)
            added = time.perf_counter()
            frames.until_quiet(lambda: True)
            drawn = next(of for of in frames.drawn if of[0] > added)
            if number:  # what is loaded once is not the file's
                for key, at in (("clock", 0), ("processor", 1)):
                    found.setdefault(name, {}).setdefault(key, []).append(1000 * (drawn[at] - start[at]))
            viewer.layers.clear()
    viewer.close()
    return found


def walks(path: Path, rounds: int, *, in_memory: bool) -> dict[str, Times]:
    """Walk over every arm in turn."""
    from napari.settings import get_settings

    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*WINDOW)
    frames = Frames()
    found: dict[str, Times] = {}
    try:
        for _ in range(rounds):
            with open_slide(path) as slide:
                mpp = (slide.mpp or (1.0, 1.0))[0]
                steps = list(places(slide.shape, mpp))
                arms: dict[str, Callable[[], Any]] = {
                    "ours": slide.display,
                    "ours through dask": slide.pyramid,
                }
                if (other := napari_wsi()) is not None:
                    arms[other[0]] = partial(list, other[1](path)[0])
                if in_memory:
                    arms["arrays in memory"] = partial(list, [np.asarray(of) for of in slide.display()])
                arms["ours, smooth panning"] = slide.display
                arms["a small picture"] = lambda: np.full((SMALL, SMALL, 3), 200, np.uint8)
                stretched = slide.shape[0] * mpp / SMALL, slide.shape[1] * mpp / SMALL
                for name, make in arms.items():
                    get_settings().experimental.async_ = name.endswith("smooth panning")
                    scale = stretched if name == "a small picture" else (mpp, mpp)
                    times = walk(viewer, frames, make(), scale, steps)
                    for key, values in times.items():
                        found.setdefault(name, {}).setdefault(key, []).extend(values)
    finally:
        get_settings().experimental.async_ = False
        viewer.close()
    return found


def slowed(milliseconds: float) -> None:
    """Let every positioned read of a file wait, as a network drive does."""
    read = os.pread

    def slow(file: int, count: int, offset: int) -> bytes:
        time.sleep(milliseconds / 1000)
        return read(file, count, offset)

    os.pread = slow


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, help=f"by default one made of a real one, from {DATA}")
    parser.add_argument("--size", type=int, default=16_384, help="side of the slide that is made, px")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--walk", action="store_true", help="walk in a window instead of reading fields")
    parser.add_argument("--open", action="store_true", help="open in a window instead")
    parser.add_argument("--no-memory", action="store_true", help="without the arm of arrays in memory")
    parser.add_argument("--slow-ms", type=float, default=0.0, help="how long every read of the file waits")
    options = parser.parse_args()
    path = options.slide
    if path is None:
        source = Path(os.environ[DATA]) / "slides" / "cmu1_small_region.svs"
        path = make_slide(
            source, Path(tempfile.gettempdir()) / f"views-{options.size}.svs", size_px=options.size
        )
    if options.slow_ms:
        slowed(options.slow_ms)
    load = ", ".join(f"{of:.1f}" for of in os.getloadavg())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{path.name}, Python {platform.python_version()}, NumPy {np.__version__}, {cores} cores, load {load}"
    )
    if options.open:
        print(f"napari {version('napari')}, window {WINDOW[0]} x {WINDOW[1]}\n")
        print("| opened by | first picture after ms, median (min to max) | processor ms |\n|---|---|---|")
        for name, of in first_pictures(path, options.rounds).items():
            texts = [f"{statistics.median(ms):.0f} ({min(ms):.0f} to {max(ms):.0f})" for ms in of.values()]
            print(f"| {name} | {' | '.join(texts)} |")
        return
    if options.walk:
        print(f"napari {version('napari')}, window {WINDOW[0]} x {WINDOW[1]}, {STEPS} steps\n")
        print(
            "| arm | drawn after ms, median | 95 % | main thread ms, median | longest | "
            "longest turn ms, 95 % | longest | processor ms, median | 95 % |\n"
            "|---|---|---|---|---|---|---|---|---|"
        )
        for name, of in walks(path, options.rounds, in_memory=not options.no_memory).items():
            drawn, main_ms, whole = of["drawn"], of["main"], of["all"]
            print(
                f"| {name} | {statistics.median(drawn):.1f} | {np.percentile(drawn, 95):.1f} | "
                f"{statistics.median(main_ms):.1f} | {max(main_ms):.1f} | "
                f"{np.percentile(of['turn'], 95):.1f} | {max(of['turn']):.1f} | "
                f"{statistics.median(whole):.1f} | {np.percentile(whole, 95):.1f} |"
            )
        return
    print("\n| what | ms, median (min to max) |\n|---|---|")
    for name, values in [*opening(path, options.rounds), *fields(path, options.rounds)]:
        print(f"| {name} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) |")


if __name__ == "__main__":
    main()
