"""Why something of the dock cannot be pressed yet, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.methods.catalogue import method_of
from napari_her2.slide.scale_sources import scale_problem

if TYPE_CHECKING:
    from napari_her2.models.registry import ModelEntry
    from napari_her2.slide.reader import Slide


def missing_to_score(slide: Slide | None, ihc: Slide | None, model: str, *, blinded: bool) -> str:
    """Tell what is missing before a slide can be scored; empty where nothing is.

    Parameters
    ----------
    slide : Slide or None
        The one that is chosen.
    ihc : Slide or None
        The IHC slide of its case, where it is scored too.
    model : str
        Name of the chosen one; empty where none is.
    blinded : bool
        Whether a slide is open whose results are not to be seen yet.
    """
    if slide is None and blinded:
        return "Blinded reading: results appear after you have scored."
    if slide is None:
        return "Open a slide to score it."
    problem = scale_problem(slide)
    if problem:
        return problem
    problem = "" if ihc is None else scale_problem(ihc)
    if problem:
        return f"Choose the IHC slide under Slide, and its µm/px, to score the case. {problem}"
    return "" if model else "Choose a model to score with."


def no_overlap(entry: ModelEntry | None) -> str:
    """Say why a model's maps cannot be made smoother; empty where they can."""
    if entry is None:
        return "Choose a model first."
    why = method_of(entry.card).no_overlap
    return f"{entry.name} {why}: its maps are as fine as they are." if why else ""
