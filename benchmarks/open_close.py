"""Memory of one viewer in which many slides are opened, looked at and closed.

    python benchmarks/open_close.py [--slides 200] [--size-px 4096]

Prints the resident memory of the process after 10, 50, 100 and 200 slides, and how much of it napari's
common cache of arrays holds. Each slide is another file; views at full resolution are read as in a window.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import tempfile
from pathlib import Path

import numpy as np
import psutil
from napari.components import ViewerModel
from napari.utils import resize_dask_cache

from napari_her2._napari.reader import read_slide
from napari_her2._napari.session import session_of
from napari_her2.phantom import make_pair

STEPS = (10, 50, 100, 200)
VIEW_PX = (1080, 1920)


def look_around(viewer: ViewerModel) -> None:
    """Read views of the topmost layer at its finest and at its coarsest level, as its canvas would."""
    layer = viewer.layers[-1]
    height, width = layer.data[0].shape[:2]
    for y, x in ((0, 0), (height // 3, width // 3)):
        layer.data_level = 0
        corner = np.array([[y, x], [min(y + VIEW_PX[0], height) - 1, min(x + VIEW_PX[1], width) - 1]])
        layer.corner_pixels = corner
        layer.refresh(extent=False, highlight=False)
    layer.data_level = len(layer.data) - 1
    layer.refresh(extent=False, highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=STEPS[-1])
    parser.add_argument("--size-px", type=int, default=4096)
    arguments = parser.parse_args()
    process = psutil.Process()
    viewer = ViewerModel()
    session_of(viewer)
    with tempfile.TemporaryDirectory() as folder:
        made = make_pair(Path(folder), "case", score="2+", seed=1, size_px=arguments.size_px, mpp=0.5).he
        print("slides  resident MiB  in napari's cache MiB")
        for count in range(1, arguments.slides + 1):
            path = Path(folder) / f"case {count}.svs"
            shutil.copy(made, path)
            for data, options, _ in read_slide(str(path)):
                viewer.add_image(data, **options)
            look_around(viewer)
            del data, options
            viewer.layers.clear()
            path.unlink()
            if count in (1, *STEPS):
                gc.collect()
                cached = resize_dask_cache().cache.total_bytes
                print(
                    f"{count:6d}  {process.memory_info().rss / 2**20:12.0f}  {cached / 2**20:12.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
