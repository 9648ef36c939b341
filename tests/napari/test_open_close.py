"""What is left of slides that were opened, looked at and closed."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from napari.components import ViewerModel
from napari.utils import resize_dask_cache

from napari_her2._napari.reader import read_slide
from napari_her2._napari.session import session_of

if TYPE_CHECKING:
    from pathlib import Path


def test_napari_keeps_nothing_of_slides_that_were_closed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1500, 1600, 3), np.uint8)
    viewer, gone = ViewerModel(), []
    session_of(viewer)
    cache = resize_dask_cache().cache
    before = set(cache.data)
    for number in range(3):
        path = tmp_path / f"case {number}.svs"
        description = "Aperio Image Library v1.0\n1600x1500 (256x256)|AppMag = 20|MPP = 0.5"
        tifffile.imwrite(
            path, pixels, tile=(256, 256), photometric="rgb", description=description, metadata=None
        )
        ((data, options, _),) = read_slide(str(path))
        layer = viewer.add_image(data, **options)
        for level in (0, 1):
            layer.data_level = level
            layer.corner_pixels = np.array([[0, 0], [700, 700]])
            layer.refresh(extent=False, highlight=False)
        assert np.asarray(layer._slice.image.raw).any()
        gone += [weakref.ref(layer), weakref.ref(options["metadata"]["napari_her2"].slide)]
        del data, options, layer
        viewer.layers.clear()
    gc.collect()
    assert set(cache.data) == before
    assert [ref() for ref in gone] == [None] * 6
