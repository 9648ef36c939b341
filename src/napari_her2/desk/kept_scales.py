"""The µm/px that a person gave for a slide before, for whoever opens many of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_her2.desk.store import Desk
from napari_her2.errors import Her2Error

if TYPE_CHECKING:
    from napari_her2.slide.reader import Slide

_SAME = 1e-6


def kept_scale(slide: Slide) -> tuple[float, str] | None:
    """Return the µm/px that the desk keeps for a slide, and how it is known; nothing is hashed for it.

    Parameters
    ----------
    slide : Slide
        One that was looked at before is known by its content at once; of another nothing can be kept.

    Returns
    -------
    tuple of (float, str) or None
        None where nobody gave one, or one that differs between y and x, which a list cannot hold.
    """
    fingerprint = slide.identity.known
    if fingerprint is None:
        return None
    try:
        kept = Desk().read(fingerprint)
    except Her2Error:  # the scoring dock says so when the slide is opened
        return None
    if kept is None or kept.scale is None or not math.isclose(*kept.scale.mpp, rel_tol=_SAME):
        return None
    return kept.scale.mpp[0], kept.scale.words
