"""HER2 scoring of whole slide images in napari. Research use only."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from napari_her2.inference.scoring import score_slide, score_steps
    from napari_her2.models.registry import load_model
    from napari_her2.slide.reader import Slide, open_slide

# Public names are loaded at first use: starting napari must not load torch, dask or tiffslide.
_LAZY = {
    "Slide": "napari_her2.slide.reader",
    "load_model": "napari_her2.models.registry",
    "open_slide": "napari_her2.slide.reader",
    "score_slide": "napari_her2.inference.scoring",
    "score_steps": "napari_her2.inference.scoring",
}

__all__ = ["Slide", "__version__", "load_model", "open_slide", "score_slide", "score_steps"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes longer than the rest of a listing

    try:
        return version("napari-her2")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
