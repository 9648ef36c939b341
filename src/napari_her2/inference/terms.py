"""With what, where and how is scored, apart from the slides; and how long its stages take."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_her2.inference.device import Device
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard


@dataclass(slots=True)
class Clock:
    """Wall time of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    _start: float = field(default_factory=perf_counter)

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = perf_counter()
        self.seconds[stage] = round(now - self._start, 3)
        self._start = now


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """With what, where and how is scored; nothing of the slides.

    Parameters
    ----------
    bundle : ModelBundle
    device : Device
    options : ScoringOptions
    clock : Clock
    """

    bundle: ModelBundle
    device: Device
    options: ScoringOptions
    clock: Clock = field(default_factory=Clock)

    @property
    def card(self) -> ModelCard:
        """Card of the model."""
        return self.bundle.card
