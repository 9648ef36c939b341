"""napari's reader: decides from the header alone whether a file is a slide, and opens it lazily."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2._napari.plain_text import not_markup
from napari_her2._napari.settings import PLUGIN
from napari_her2._napari.tiff_header import read_pages
from napari_her2.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_her2._napari.layers import LayerData

# A plain TIFF may be anything, and an OME-TIFF often is a fluorescence stack: they are looked into.
_SLIDE_SUFFIXES = frozenset((".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".mrxs", ".dcm"))
_TIFF_SUFFIXES = frozenset((".tif", ".tiff"))
PATTERNS = tuple(
    f"*{suffix}" for suffix in sorted((*_SLIDE_SUFFIXES, *_TIFF_SUFFIXES, ".ome.tif", ".ome.tiff"))
)
"""Names of files that napari asks this reader about, as the manifest lists them."""


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return a reader for a whole slide image, None for what is better left to napari.

    Parameters
    ----------
    path : str or sequence of str
        A list of paths is a stack, which no slide is.

    Returns
    -------
    callable or None
        Takes the path, returns the layers.
    """
    if not isinstance(path, str | Path):
        return None
    return read_slide if is_slide(Path(path)) else _reader_of_the_rest(str(path))


def _reader_of_the_rest(path: str) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Reader for a picture, where napari asks nobody else because the user has slides opened here.

    The only other reader there is; of several napari lets the user choose.
    """
    from napari.plugins.utils import get_preferred_reader
    from npe2 import PluginManager

    if get_preferred_reader(path) != PLUGIN:
        return None
    readers = PluginManager.instance().iter_compatible_readers([path])
    others = {reader.plugin_name for reader in readers} - {PLUGIN}
    return partial(_read_with, others.pop()) if len(others) == 1 else None


def _read_with(plugin: str, path: str | Sequence[str]) -> list[LayerData]:
    import npe2

    read: Any = npe2.read([str(path)], stack=False, plugin_name=plugin)
    return list(read)


def is_slide(path: Path) -> bool:
    """Whether the file is taken for a slide: by its suffix, or by a TIFF header that says so.

    A ``.tif`` must be tiled, in colour and pyramidal; an ``.ome.tif`` tiled and in colour, as small
    fields cut from slides are.
    """
    suffix = path.suffix.lower()
    if suffix in _SLIDE_SUFFIXES:
        return True
    if suffix not in _TIFF_SUFFIXES:
        return False
    pages = read_pages(path)
    if not pages or not (pages[0].tiled and pages[0].colour):
        return False
    if path.stem.lower().endswith(".ome"):
        return True
    first = pages[0]
    return first.sub_images or any(
        page.tiled and page.colour and page.width < first.width and page.height < first.height
        for page in pages[1:]
    )


def read_slide(path: str | Sequence[str]) -> list[LayerData]:
    """Open a slide as one lazy image layer.

    Parameters
    ----------
    path : str

    Returns
    -------
    list of LayerData

    Raises
    ------
    SlideError
        If the file is no readable slide; napari shows the message.
    """
    from napari_her2._napari import ahead
    from napari_her2._napari.layers import slide_layer
    from napari_her2._napari.scale_bar import show_scale_bar_of_window
    from napari_her2.slide.reader import open_slide

    try:
        slide = open_slide(str(path))
    except SlideError as error:
        # napari's pop-up takes text for HTML where it looks like it.
        raise SlideError(not_markup(str(error))) from error
    if slide.mpp is not None:
        show_scale_bar_of_window()
    ahead.begin()
    return [slide_layer(slide)]
