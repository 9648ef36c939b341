"""Colours of the overlays: transparent where there is nothing to say, so that the tissue stays visible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.class_colours import rgb_of, score_colours

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.utils.colormaps import Colormap
    from numpy.typing import NDArray

    from napari_her2.explain.overlays import OverlayInfo

_STEPS = 256
# Below this share of the scale the attention map is wholly clear: tissue that the model passed over.
_CLEAR_BELOW = 0.35

REGION_COLOUR = "#76ff03"  # neither in H&E nor in IHC, and no class of cells
MARK_COLOUR = "#ff1744"  # seen on pink, on brown, and on the yellow of the maps

# Stops chosen against H&E: tissue is pink and violet, so that a map in red or purple would drown in it.
_ATTENTION_STOPS = ("#1b3a8f", "#0086b3", "#00b894", "#9be15d", "#fff700")
_CONFIDENCE_STOPS = ("#1a1a2e", "#26547c", "#3fa796", "#e8f5c8")
# Against IHC: tissue is brown and pale blue; green and blue-green are neither.
_SHARE_STOPS = ("#c8f5d0", "#5fd39b", "#12a08a", "#04636f", "#06304f")
_SEEN_FROM = 0.1
_AGAINST, _FOR = "#1565c0", "#ef6c00"


def attention_colours() -> NDArray[np.float32]:
    """Colours from clear through blue and green to yellow.

    Returns
    -------
    (256, 4) float32
        RGBA in [0, 1].
    """
    at = np.linspace(0, 1, _STEPS)
    stops = np.array([rgb_of(colour) for colour in _ATTENTION_STOPS])
    places = np.linspace(0, 1, len(stops))
    alpha = np.clip((at - _CLEAR_BELOW) / (1 - _CLEAR_BELOW), 0, 1) ** 0.7
    rgb = [np.interp(at, places, stops[:, channel]) for channel in range(3)]
    return np.column_stack([*rgb, alpha]).astype(np.float32)


def evidence_colours() -> NDArray[np.float32]:
    """Colours from blue (against the class) through clear (no evidence) to orange (for the class).

    Returns
    -------
    (257, 4) float32
        RGBA in [0, 1]; the middle entry is wholly clear.
    """
    at = np.linspace(-1, 1, _STEPS + 1)
    rgb = np.where(at[:, None] < 0, rgb_of(_AGAINST), rgb_of(_FOR))
    alpha = np.abs(at) ** 0.6
    return np.column_stack([rgb, alpha]).astype(np.float32)


def confidence_colours() -> NDArray[np.float32]:
    """Colours of the learnt confidence, dark where there is little: (4, 4) float32 RGBA, opaque."""
    return np.array([[*rgb_of(colour), 1.0] for colour in _CONFIDENCE_STOPS], np.float32)


def share_colours() -> NDArray[np.float32]:
    """Colours of a share: clear at nothing, and seen from a few per cent on, (256, 4) float32 RGBA."""
    at = np.linspace(0, 1, _STEPS)
    stops = np.array([rgb_of(colour) for colour in _SHARE_STOPS])
    rgb = [np.interp(at, np.linspace(0, 1, len(stops)), stops[:, channel]) for channel in range(3)]
    return np.column_stack([*rgb, np.clip(at / _SEEN_FROM, 0, 1) ** 0.5]).astype(np.float32)


def score_hex(classes: int) -> list[str]:
    """Return the colours of `score_colours` as "#rrggbb"."""
    return [
        "#" + "".join(f"{round(255 * float(part)):02x}" for part in rgba[:3])
        for rgba in score_colours(classes)
    ]


def colormap_of(info: OverlayInfo) -> Colormap:
    """Colormap of an overlay; of one that is so or is not, clear where it is not.

    Parameters
    ----------
    info : OverlayInfo
    """
    from napari.utils.colormaps import Colormap

    if info.colours.startswith("#"):
        rgb = rgb_of(info.colours)
        return Colormap(np.array([[*rgb, 0.0], [*rgb, 1.0]], np.float32), name=f"her2 {info.colours}")
    if info.categories:
        classes = len(info.categories)
        return Colormap(
            score_colours(classes),
            controls=np.linspace(0, 1, classes + 1),
            interpolation="zero",
            name="her2 score",
            display_name="HER2 score",
        )
    name, colours = _COLOURS[info.colours]
    return Colormap(colours(), name=f"her2 {name}", display_name=f"HER2 {name}")


_COLOURS: dict[str, tuple[str, Callable[[], NDArray[np.float32]]]] = {
    "sequential": ("attention", attention_colours),
    "diverging": ("evidence", evidence_colours),
    "confidence": ("confidence", confidence_colours),
    "share": ("share", share_colours),
}
