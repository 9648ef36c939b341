"""What is known of features that others computed: how they were made, as their files state it.

The layouts are those of CLAM, TRIDENT and STAMP (HDF5), of WSMCL (tensors), and our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.models.card import EncoderSpec

_SAME = 0.05
"""Relative difference of µm per pixel that is none: toolkits round, and name 0.46 and 0.5 alike."""


@dataclass(frozen=True, slots=True)
class MadeBy:
    """How features were made, as far as their file states it.

    Parameters
    ----------
    layout : str
        "TRIDENT", "CLAM", "STAMP", "tensor" or "napari-her2".
    encoder : str
        Its name as the file has it; empty where it states none.
    tile_px : int or None
        Side of the tiles, pixels at ``mpp``.
    mpp : float or None
        µm per pixel of the tiles. Of TRIDENT that of its magnification, 10 µm/px by it.
    spec : EncoderSpec or None
        All of the encoder, with the digest of its weights, which our own files state.
    """

    layout: str = ""
    encoder: str = ""
    tile_px: int | None = None
    mpp: float | None = None
    spec: EncoderSpec | None = None

    @property
    def words(self) -> str:
        """What is stated, in words: "uni, tiles of 256 px at 0.5 µm/px"."""
        parts = [self.encoder or "an encoder that is not named"]
        if self.tile_px is not None:
            parts.append(f"tiles of {self.tile_px} px" + (f" at {self.mpp:g} µm/px" if self.mpp else ""))
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureFile:
    """Features of the tiles of a slide.

    Parameters
    ----------
    features : (N, D) float16
        In the order of the file.
    coords : (N, 2) float64 or None
        (x, y) of the upper left corner of each tile; None where the file holds none.
    coords_unit : str
        "px0" (level-0 pixels) or "um".
    made_by : MadeBy
    """

    features: NDArray[np.float16]
    coords: NDArray[np.float64] | None
    coords_unit: str
    made_by: MadeBy


def joined(first: MadeBy, other: MadeBy) -> MadeBy:
    """Join what two files state; what one of them leaves open the other fills.

    Parameters
    ----------
    first, other : MadeBy

    Returns
    -------
    MadeBy

    Raises
    ------
    JobFailed
        If they contradict each other.
    """
    if first.encoder and other.encoder and plain_name(first.encoder) != plain_name(other.encoder):
        raise JobFailed(
            f"its features were made with {other.encoder}, those before it with {first.encoder}. Extract all "
            f"slides of a cohort with the same encoder."
        )
    if first.spec and other.spec and first.spec != other.spec:
        raise JobFailed(
            f"its features were made with other weights of {other.encoder}, or otherwise, than those before "
            f"it. Extract all slides of a cohort with the same weights."
        )
    pairs = ((first.tile_px, other.tile_px), (first.mpp, other.mpp))
    if any(one and two and abs(one - two) > _SAME * max(one, two) for one, two in pairs):
        raise JobFailed(
            f"its features were made of other tiles ({other.words}) than those before it ({first.words}). "
            f"Extract all slides of a cohort alike."
        )
    return MadeBy(
        first.layout or other.layout,
        first.encoder or other.encoder,
        first.tile_px or other.tile_px,
        first.mpp or other.mpp,
        first.spec or other.spec,
    )


def plain_name(encoder: str) -> str:
    """Return the name of an encoder as it is compared: without case, dashes, dots and blanks."""
    return "".join(letter for letter in encoder.casefold() if letter.isalnum())
