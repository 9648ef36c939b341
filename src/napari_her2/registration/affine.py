"""How the paired slide of a case lies on the other: an affine in µm, from point pairs, kept for the case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

POINTS = 3
"""Point pairs that fix an affine."""
LEAST_SPREAD = 0.08
"""Least width of three points across the line through them, as a share of their length along it."""
LEAST_LENGTH_UM = 20.0
"""Points closer together than a few cells cannot be told apart from the error of a click."""
SCALE_LIMITS = (0.2, 5.0)
"""Sections of one block have one size: what stretches further is no alignment."""


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Where a point of the moving slide lies on the fixed slide.

    Parameters
    ----------
    matrix : (3, 3) float64
        Homogeneous, for (y, x, 1) in µm from the centre of the first pixel of each slide.

    Raises
    ------
    JobFailed
        If it is no affine, or stretches beyond `SCALE_LIMITS`.
    """

    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        if (
            matrix.shape != (3, 3)
            or not np.isfinite(matrix).all()
            or not np.array_equal(matrix[2], (0, 0, 1))
        ):
            raise JobFailed("The alignment of the two slides is no affine map: set it again.")
        stretch = np.linalg.svd(matrix[:2, :2], compute_uv=False)
        if stretch[1] < SCALE_LIMITS[0] or stretch[0] > SCALE_LIMITS[1]:
            raise JobFailed(
                f"The points would stretch the slide {stretch[0]:.2g} × {stretch[1]:.2g} times, but two "
                f"sections of a case have one size: choose the same places on both slides, in the same order."
            )
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def identity(cls) -> Alignment:
        """Both slides on one another as their files have them."""
        return cls(np.eye(3))

    @classmethod
    def from_points(
        cls,
        moving_um: ArrayLike,
        fixed_um: ArrayLike,
        names: Sequence[str] = ("the first slide", "the second slide"),
    ) -> Alignment:
        """Fit an affine to pairs of points by least squares; exact for three.

        Parameters
        ----------
        moving_um, fixed_um : (N, 2) float
            (y, x) of the same places on the slide that moves and on the one that stays, N at least 3.
        names : sequence of 2 str
            What the slides are called in errors, the moving one first.

        Raises
        ------
        JobFailed
            If there are too few points, or those of one slide lie almost on one line.
        """
        moving, fixed = np.asarray(moving_um, np.float64), np.asarray(fixed_um, np.float64)
        if moving.shape != fixed.shape or moving.ndim != 2 or len(moving) < POINTS or moving.shape[1] != 2:
            raise JobFailed(f"An alignment takes at least {POINTS} places, each marked on both slides.")
        for points, name in zip((moving, fixed), names, strict=True):
            _refuse_a_line(points, name)
        # Centred and scaled, so that positions of 10^5 µm cost no digits.
        centre, reach = moving.mean(axis=0), np.abs(moving - moving.mean(axis=0)).max()
        design = np.column_stack([(moving - centre) / reach, np.ones(len(moving))])
        solved = np.linalg.lstsq(design, fixed, rcond=None)[0].T
        linear = solved[:, :2] / reach
        matrix = np.eye(3)
        matrix[:2, :2], matrix[:2, 2] = linear, solved[:, 2] - linear @ centre
        return cls(matrix)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is moved, to a hundredth of a µm and of a thousandth of the size."""
        return bool(np.allclose(self.matrix, np.eye(3), rtol=0, atol=(1e-5, 1e-5, 1e-2)))

    def inverse(self) -> Alignment:
        """From the fixed slide to the moving one."""
        inverse: NDArray[np.float64] = np.linalg.inv(self.matrix).astype(np.float64)
        inverse[2] = (0, 0, 1)
        return Alignment(inverse)

    def apply(self, points_um: ArrayLike) -> NDArray[np.float64]:
        """Places on the fixed slide of points of the moving one, (N, 2) float64."""
        points = np.asarray(points_um, np.float64)
        return points @ self.matrix[:2, :2].T + self.matrix[:2, 2]

    def shifted(self, shift_um: Sequence[float] | NDArray[np.float64]) -> Alignment:
        """Move the slide further by (y, x) µm."""
        matrix = self.matrix.copy()
        matrix[:2, 2] += shift_um
        return Alignment(matrix)

    def turned(self, degrees: float, about_um: Sequence[float] | NDArray[np.float64]) -> Alignment:
        """Turn the slide further about a point of the fixed slide, from the y axis towards the x axis."""
        angle, about = np.deg2rad(degrees), np.asarray(about_um, np.float64)
        turn = np.eye(3)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turn[:2, 2] = about - turn[:2, :2] @ about
        return Alignment(turn @ self.matrix)

    def in_words(self) -> str:
        """Shift, turn and size in one line, for a person."""
        if self.is_identity:
            return "not aligned"
        linear = self.matrix[:2, :2]
        mirrored = np.linalg.det(linear) < 0
        scale = float(np.sqrt(abs(np.linalg.det(linear))))
        left, _, right = np.linalg.svd(linear)
        turn = left @ np.diag((1.0, -1.0 if mirrored else 1.0)) @ right
        degrees = float(np.rad2deg(np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])))
        shift = float(np.hypot(*self.matrix[:2, 2]))
        distance = f"{shift / 1000:.2f} mm" if shift >= 1000 else f"{shift:.0f} µm"
        words = f"moved by {distance}, turned by {abs(degrees):.1f}°, size × {scale:.3f}"
        return f"{words}, mirrored" if mirrored else words


def _refuse_a_line(points: NDArray[np.float64], name: str) -> None:
    along, across = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[:2]
    if not np.isfinite(along) or along < LEAST_LENGTH_UM:
        raise JobFailed(
            f"The points on {name} are too close together to align by: choose places far apart, such as "
            f"three corners of the tissue."
        )
    if across < LEAST_SPREAD * along:
        raise JobFailed(
            f"The points on {name} lie almost on one line, which leaves the alignment open: choose "
            f"three places that span a triangle."
        )
