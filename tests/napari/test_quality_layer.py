"""The quality of a result as a layer, and what the status bar says of a tile that was left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from napari.components import ViewerModel

from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2.explain.quality import QUALITY
from napari_her2.inference.assemble import with_quality
from napari_her2.slide.quality import Quality
from napari_her2.slide.quality_limits import FLAGS, FOCUS, FOLD, QualityLimits
from scored import make_result, make_slide


def test_the_layer_lies_over_its_tiles_and_the_status_says_why() -> None:
    slide = make_slide()  # 8 x 12 tiles of 25 µm
    result = make_result(slide)
    reasons = np.zeros(result.grid.shape, np.uint8)
    reasons[2, 3], reasons[2, 4] = FLAGS[FOCUS] | FLAGS[FOLD], FLAGS[FOLD]
    counted = np.ones(reasons.shape, np.bool_)
    quality = Quality(result.grid, reasons, counted, QualityLimits(), left_out=True)
    result = replace(result, slides=(with_quality(result.slides[0], quality),))
    viewer = ViewerModel()
    data, options, _ = slide_layer(slide)
    viewer.layers.selection.active = viewer.add_image(data, **options)
    session = session_of(viewer)
    session.set_result(result, OverlayLook())
    shown = session.overlays(slide.slide_id)
    layer = shown.layer("quality")
    assert not layer.visible
    viewer.mouse_over_canvas = True

    def status_at(y: float, x: float) -> str:
        viewer.cursor.position = (-1e6, -1e6)
        viewer.cursor.position = (y, x)
        return viewer.status["coordinates"]

    assert "left out" not in status_at(62, 87)
    shown.set_visible("quality", visible=True)
    assert layer.visible
    assert [layer.data[2, 3], layer.data[2, 4]] == [
        QUALITY.categories.index("out of focus"),
        QUALITY.categories.index("fold"),
    ]
    assert np.isfinite(layer.data).sum() == 2
    assert status_at(62, 87).endswith("left out: out of focus, fold")
    assert status_at(62, 112).endswith("left out: fold")
    assert "left out" not in status_at(62, 137)
    # Each category has its own colour, which the layer shows.
    low, high = layer.contrast_limits
    at = (np.arange(len(QUALITY.palette)) - low) / (high - low)
    colours = [
        f"#{''.join(f'{round(255 * part):02x}' for part in rgba[:3])}" for rgba in layer.colormap.map(at)
    ]
    assert tuple(colours) == QUALITY.palette
