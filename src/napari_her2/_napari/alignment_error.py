"""How far two aligned slides still lie apart, as a map over the slide that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.layers import AXES, MICROMETRE
from napari_her2._napari.placement import layer_of, place_of
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.tags import METADATA_KEY, MarkTag

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_her2.registration.automatic import ErrorMap

_TOP_PERCENTILE = 98
_OPACITY = 0.5


def show_error(viewer: ViewerModel, slide_id: str, error: ErrorMap) -> Image | None:
    """Lay the error of an alignment over the fixed slide.

    Parameters
    ----------
    viewer : ViewerModel
    slide_id : str
        Of the fixed slide.
    error : ErrorMap

    Returns
    -------
    Image or None
        The layer; None where the slide was closed, or nothing could be measured.
    """
    from napari.layers import Image

    slide_layer = layer_of(viewer, slide_id)
    known = error.error_um[np.isfinite(error.error_um)]
    if slide_layer is None or not known.size:
        return None
    layer = Image(
        error.error_um,
        name=one_line(f"error of the alignment (µm) · {slide_layer.name}"),
        colormap="viridis",
        contrast_limits=(0.0, max(float(np.percentile(known, _TOP_PERCENTILE)), 1e-3)),
        interpolation2d="nearest",
        opacity=_OPACITY,
        scale=error.pitch_um,
        translate=error.centre_um,
        affine=place_of(slide_layer),
        units=MICROMETRE,
        axis_labels=AXES,
        metadata={METADATA_KEY: MarkTag(slide_id)},
    )
    layer.colorbar.visible = True
    active = viewer.layers.selection.active
    viewer.layers.insert(viewer.layers.index(slide_layer) + 1, layer)
    viewer.layers.selection.active = active
    return layer
