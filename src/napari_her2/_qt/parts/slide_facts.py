"""What a file says of its slide, in the words of the docks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_her2.slide.reader import Slide


def slide_facts(slide: Slide) -> list[str]:
    """Return size, µm/px with its source, objective and reader of a slide, a phrase each."""
    facts = [f"{slide.shape[1]:,} × {slide.shape[0]:,} px"]
    facts.append("µm/px not stated" if slide.mpp is None else mpp_in_words(slide.mpp, slide.mpp_source))
    if slide.objective:
        facts.append(f"{slide.objective:g}× objective")
    facts.append(f"read with {slide.backend}")
    return facts


def mpp_in_words(mpp: tuple[float, float], source: str) -> str:
    """Say µm/px and where they come from.

    Parameters
    ----------
    mpp : tuple of float
        (y, x), µm/px.
    source : str
        `Slide.mpp_source`; empty where it is not known.
    """
    y, x = mpp
    size = f"{x:.4g}" if abs(y - x) < 1e-4 * x else f"{x:.4g} × {y:.4g}"
    return f"{size} µm/px" + (f" ({source})" if source else "")
