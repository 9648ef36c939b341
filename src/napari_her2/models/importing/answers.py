"""What a person answers where a checkpoint says nothing; without PyTorch, for forms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to what a checkpoint does not say; empty ones take what is usual for its kind.

    Parameters
    ----------
    name : str
        Of the model.
    classes : str
        In the order of the logits, with commas: "0,1+,2+,3+".
    class_scores : str
        Scores that each class holds: "low=0|1+, high=2+|3+".
    stain : str
    tile_px : int or None
    mpp : float or None
        µm per pixel.
    arguments : tuple of str
        What else the head is built with, as "name=value".
    licence : str
    """

    name: str
    classes: str
    class_scores: str = ""
    stain: str = ""
    tile_px: int | None = None
    mpp: float | None = None
    arguments: tuple[str, ...] = ()
    licence: str = ""
