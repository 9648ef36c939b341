"""Sample data: a synthetic case, its H&E and its HER2 IHC slide, made at first use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_her2._napari.layers import LayerData
    from napari_her2.phantom import PhantomPair

CASE_ID = "phantom-3plus"
_SCORE, _SEED, _SIZE_PX, _MPP = "3+", 7, 8192, 0.25


def phantom_folder() -> Path:
    """Folder in the cache that holds the phantom slides."""
    import platformdirs

    base = os.environ.get("NAPARI_HER2_CACHE") or platformdirs.user_cache_dir("napari-her2")
    return Path(base) / "phantom"


def ensure_phantom(size_px: int = _SIZE_PX) -> PhantomPair:
    """Return the phantom pair of the demonstration, made now where the cache lacks it.

    Parameters
    ----------
    size_px : int
        Side of the slides, level-0 pixels.

    Returns
    -------
    PhantomPair
    """
    from napari_her2.phantom import make_pair

    folder = phantom_folder() / f"{size_px}px"
    folder.mkdir(parents=True, exist_ok=True)
    return make_pair(folder, CASE_ID, score=_SCORE, seed=_SEED, size_px=size_px, mpp=_MPP)


def phantom_pair() -> list[LayerData]:
    """Layers of the phantom case: the IHC slide beside the H&E slide.

    Returns
    -------
    list of LayerData
    """
    from napari_her2._napari.layers import beside, slide_layer
    from napari_her2.slide.reader import open_slide

    pair = ensure_phantom()
    he, ihc = open_slide(pair.he), open_slide(pair.ihc)
    return [slide_layer(he), beside(slide_layer(ihc), he)]
