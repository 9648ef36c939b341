"""From the places in files of regions to level-0 pixels of a slide, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from napari_her2.errors import JobFailed
from napari_her2.outside import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True)
class RegionFrame:
    """What places in files of regions depend on.

    Parameters
    ----------
    shape : tuple of int or None
        (height, width) of level 0.
    mpp : tuple of float or None
        (y, x) µm per level-0 pixel.
    bounds_px0 : tuple of float
        (y, x) of the pixel that QuPath counts from; see `napari_her2.slide.frame.SlideFrame`.
    centre_offset_nm : tuple of float or None
        (y, x); see there.
    """

    shape: tuple[int, int] | None = None
    mpp: tuple[float, float] | None = None
    bounds_px0: tuple[float, float] = (0.0, 0.0)
    centre_offset_nm: tuple[float, float] | None = None

    @classmethod
    def of(cls, slide: Slide) -> RegionFrame:
        """Return the frame of a slide."""
        frame = slide.frame
        return cls(slide.shape, slide.mpp, frame.bounds_px0, frame.centre_offset_nm)

    def from_qupath(self, area: Any) -> Any:  # noqa: ANN401 - shapely geometries
        """Move a geometry of QuPath, (x, y), to level-0 pixels."""
        return self._moved(area, 1.0)

    def to_qupath(self, area: Any) -> Any:  # noqa: ANN401 - shapely geometries
        """Move a geometry in level-0 pixels, (x, y), to where QuPath has it."""
        return self._moved(area, -1.0)

    def px_of_nm(self, points: NDArray[np.floating], file: str) -> NDArray[np.float64]:
        """Return level-0 pixels of places in nanometres from the centre of the glass.

        Parameters
        ----------
        points : (N, 2) float
            (x, y).
        file : str
            Name of the file that they are from.

        Returns
        -------
        (N, 2) float64
            (x, y).

        Raises
        ------
        JobFailed
            If the slide does not state where the centre of its glass is, or its µm/px.
        """
        if self.centre_offset_nm is None or self.mpp is None or self.shape is None:
            raise JobFailed(
                f"{shown(file)} counts from the centre of the glass, and the slide does not state where that "
                f"is: open the NDPI slide that it was drawn on, or export the regions as GeoJSON."
            )
        centre = np.array(self.shape[::-1]) / 2
        offset, nm_per_px = np.array(self.centre_offset_nm[::-1]), 1000 * np.array(self.mpp[::-1])
        return np.asarray((points - offset) / nm_per_px + centre, np.float64)

    def _moved(self, area: Any, times: float) -> Any:  # noqa: ANN401 - shapely geometries
        y, x = self.bounds_px0
        return area if not (x or y) else shapely.transform(area, lambda of: of + times * np.array([x, y]))


NO_FRAME = RegionFrame()
"""Of nobody knows which slide: pixels count from its corner."""
