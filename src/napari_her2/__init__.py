"""HER2 scoring of whole slide images in napari. Research use only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_her2.methods.scoring import score_slide, score_steps
    from napari_her2.models.registry import load_model
    from napari_her2.slide.reader import Slide, open_slide
    from napari_her2.version import __version__

# Public names are loaded at first use: starting napari must not load torch, dask or tiffslide.
_LAZY = {
    "Slide": "napari_her2.slide.reader",
    "__version__": "napari_her2.version",
    "load_model": "napari_her2.models.registry",
    "open_slide": "napari_her2.slide.reader",
    "score_slide": "napari_her2.methods.scoring",
    "score_steps": "napari_her2.methods.scoring",
}

__all__ = ["Slide", "__version__", "load_model", "open_slide", "score_slide", "score_steps"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
