"""What a result says of a slide, without keeping its file open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True)
class SlideRecord:
    """What a result says of a slide; the file may be closed.

    Parameters
    ----------
    name, path, slide_id, fingerprint, mpp_source, warnings
        As of `napari_her2.slide.reader.Slide`.
    sha256_head : str
    mpp : tuple of float or None
        (y, x) µm per level-0 pixel.
    bounds_px0 : tuple of float
        (y, x) of the pixel that QuPath counts from; see `napari_her2.slide.frame.SlideFrame`.
    """

    name: str
    path: Path
    slide_id: str
    fingerprint: str
    sha256_head: str
    mpp: tuple[float, float] | None
    mpp_source: str
    warnings: tuple[str, ...] = ()
    bounds_px0: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, slide: Slide | SlideRecord) -> SlideRecord:
        """Return what a result says of a slide."""
        if isinstance(slide, SlideRecord):
            return slide
        return cls(
            slide.name,
            slide.path,
            slide.slide_id,
            slide.fingerprint,
            slide.identity.head,
            slide.mpp,
            slide.mpp_source,
            tuple(slide.warnings),
            slide.frame.bounds_px0,
        )
