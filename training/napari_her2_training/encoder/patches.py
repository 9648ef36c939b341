"""Labelled patches, as pre-training looks at them: in memory or on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PatchStack(Protocol):
    """N patches of (t, t, 3) uint8, in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | NDArray[np.int64], /) -> NDArray[np.uint8]: ...


class LabelledPatches(Protocol):
    """Patches with their labels: `Patches` in memory, or what a folder of patches gives."""

    @property
    def images(self) -> PatchStack:
        """Pixels."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64 class numbers."""
        ...

    def mean_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of RGB on [0, 1]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Patches with their labels.

    Parameters
    ----------
    images : (N, t, t, 3) uint8
    labels : (N,) int64
        Class number; with regions the class after the last score is "normal".
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def mean_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of RGB on [0, 1] over all pixels."""
        counts = [np.bincount(self.images[..., c].ravel(), minlength=256) for c in range(3)]
        level = np.arange(256) / 255
        means = [float((n * level).sum() / n.sum()) for n in counts]
        stds = [
            float(np.sqrt((n * (level - m) ** 2).sum() / n.sum())) for n, m in zip(counts, means, strict=True)
        ]
        return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


class MadeUpPatches:
    """Patches for a step that is only timed; they share the pixels of one."""

    def __init__(self, count: int, tile_px: int, classes: int) -> None:
        self.labels: NDArray[np.int64] = np.arange(max(1, count), dtype=np.int64) % classes
        self._one = np.random.default_rng(0).integers(0, 255, (tile_px, tile_px, 3), np.uint8)

    @property
    def images(self) -> PatchStack:
        """Pixels."""
        return self

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.repeat(self._one[None], len(self.labels[index]), axis=0)

    def mean_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of RGB on [0, 1]."""
        return (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
