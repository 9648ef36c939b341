"""Which reader napari takes for a slide, and which layers another reader made of one.

napari's own reader claims the files of slides too, and makes pictures of them that no dock knows. Whoever
says so once has them opened here from then on: that is napari's own setting, seen in its Preferences.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2._napari.reader import PATTERNS, is_slide
from napari_her2._napari.settings import PLUGIN
from napari_her2._napari.tags import tag_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

# What a reader of pictures shows in colour may be a core or a field that was exported.
_PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".tif", ".tiff"))


def is_preferred() -> bool:
    """Whether napari opens all kinds of slides with this plugin, without asking."""
    from napari.settings import get_settings

    chosen = get_settings().plugins.extension2reader
    return all(chosen.get(pattern) == PLUGIN for pattern in _patterns())


def prefer() -> None:
    """Have napari open all kinds of slides with this plugin from now on; only at the user's wish."""
    from napari.settings import get_settings

    plugins = get_settings().plugins
    plugins.extension2reader = {**plugins.extension2reader, **dict.fromkeys(_patterns(), PLUGIN)}


def _patterns() -> tuple[str, ...]:
    """Patterns of our files; where the case of letters counts, napari compares it too."""
    if os.path.normcase("A") == "a":
        return PATTERNS
    return (*PATTERNS, *(pattern.upper() for pattern in PATTERNS))


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that another reader opened, and that can be opened as a slide.

    Parameters
    ----------
    path : Path
    layers : tuple of Layer
        What the other reader made of it.
    """

    path: Path
    layers: tuple[Layer, ...]


def pictures_of_slides(viewer: ViewerModel, known: dict[str, bool]) -> list[Picture]:
    """Find what other readers made of files that can be opened as slides.

    Parameters
    ----------
    viewer : ViewerModel
    known : dict of str to bool
        Which files were taken for slides before: their headers are read once. Added to.

    Returns
    -------
    list of Picture
        In the order of the layers.
    """
    found: dict[str, list[Layer]] = {}
    for layer in viewer.layers:
        path = layer.source.path
        if not path or tag_of(layer) is not None or type(layer).__name__ != "Image":
            continue
        if path not in known:
            known[path] = _may_be_slide(Path(path), in_colour=bool(layer.rgb))
        if known[path]:
            found.setdefault(path, []).append(layer)
    return [Picture(Path(path), tuple(layers)) for path, layers in found.items()]


def _may_be_slide(path: Path, *, in_colour: bool) -> bool:
    if not path.is_file():
        return False
    return is_slide(path) or (in_colour and path.suffix.lower() in _PICTURE_SUFFIXES)
