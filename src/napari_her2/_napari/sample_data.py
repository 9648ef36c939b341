"""Sample data: a synthetic case, its H&E and its HER2 IHC slide, made at first use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2._napari.layers import LayerData
    from napari_her2.phantom import PhantomPair
    from napari_her2.phantom.case import Score


@dataclass(frozen=True, slots=True)
class PhantomCase:
    """Which phantom is made.

    Parameters
    ----------
    name : str
        Begins the names of its files.
    score : str
        Its true IHC score.
    seed : int
    size_px : int
        Side of level 0.
    mpp : float
        µm/px of level 0.
    """

    name: str
    score: Score
    seed: int
    size_px: int
    mpp: float


# Opened by a click in napari's menu, so it has to be there within seconds.
SAMPLE = PhantomCase("sample", "3+", seed=2026, size_px=4096, mpp=0.5)


def phantom_folder() -> Path:
    """Folder in the cache that holds the phantom slides."""
    from napari_her2.own_files import cache_base

    return cache_base() / "phantom"


def ensure_phantom(case: PhantomCase) -> PhantomPair:
    """Return the slides of a case, made now where the cache lacks them.

    Parameters
    ----------
    case : PhantomCase

    Returns
    -------
    PhantomPair

    Raises
    ------
    JobFailed
        If they cannot be written.
    """
    from napari_her2.errors import JobFailed
    from napari_her2.own_files import private_folder
    from napari_her2.phantom.pair import make_pair, pair_paths

    # All that tells two cases apart is in the folder's name: no slide of other settings is taken for it.
    folder = phantom_folder() / f"{case.name}-{case.score}-{case.seed}-{case.size_px}px-{case.mpp:g}mpp"
    pair = pair_paths(folder, case.name)
    try:
        private_folder(phantom_folder(), within=True)
    except OSError as error:
        raise JobFailed(
            f"The sample slides cannot be kept in {phantom_folder()} ({error.strerror or error}): delete it, "
            f"or set NAPARI_HER2_CACHE to another folder."
        ) from error
    if pair.complete:
        return pair
    return make_pair(folder, case.name, score=case.score, seed=case.seed, size_px=case.size_px, mpp=case.mpp)


def phantom_layers(case: PhantomCase) -> list[LayerData]:
    """Layers of a phantom case: the IHC slide to the right of the H&E slide.

    Parameters
    ----------
    case : PhantomCase

    Returns
    -------
    list of LayerData
    """
    from napari_her2._napari import ahead
    from napari_her2._napari.layers import beside, slide_layer
    from napari_her2.slide.reader import open_slide

    ahead.begin()  # while the slides are made, and napari gets its first layers
    pair = ensure_phantom(case)
    he, ihc = open_slide(pair.he), open_slide(pair.ihc)
    return [slide_layer(he), beside(slide_layer(ihc), he)]


def phantom_pair() -> list[LayerData]:
    """Layers of the sample case."""
    from napari_her2._napari.scale_bar import show_scale_bar_of_window

    show_scale_bar_of_window()
    return phantom_layers(SAMPLE)
