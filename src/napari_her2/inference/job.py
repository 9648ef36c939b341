"""One scoring: what was asked for, handed from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_her2.inference.terms import Clock, Terms

if TYPE_CHECKING:
    from napari_her2.inference.device import Device
    from napari_her2.inference.doubt import Signature
    from napari_her2.inference.early import EarlyTiles
    from napari_her2.inference.front import Front
    from napari_her2.inference.further import FurtherSlide
    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.regions import Regions
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True, eq=False)
class ScoringJob:
    """What is scored, with what, and how.

    Parameters
    ----------
    slide : Slide
    ihc : Slide or None
        The IHC slide of the case, where ``slide`` is its H&E slide and the method takes both.
    bundle : ModelBundle
    regions : Regions or None
        On ``slide``.
    device : Device
    options : ScoringOptions
    clock : Clock
    signatures : list of Signature or None
        Takes what each slide looks like to the model, where somebody collects it.
    kept : list of KeptScoring or None
        Takes what is needed to answer again for other regions, where somebody wants to.
    stored_only : bool
        Whether nothing may be embedded or measured: what the disk lacks is `NotComputed`.
    further : tuple of FurtherSlide
        More slides of the case, for methods that join bags.
    front : Front or None
        From where tiles are computed, where somebody looks.
    early : EarlyTiles or None
        Takes what is known of tiles before the slide is scored, where somebody shows it.
    """

    slide: Slide
    ihc: Slide | None
    bundle: ModelBundle
    regions: Regions | None
    device: Device
    options: ScoringOptions
    clock: Clock = field(default_factory=Clock)
    signatures: list[Signature] | None = None
    kept: list[KeptScoring] | None = None
    stored_only: bool = False
    further: tuple[FurtherSlide, ...] = ()
    front: Front | None = None
    early: EarlyTiles | None = None

    @property
    def card(self) -> ModelCard:
        """Card of the model."""
        return self.bundle.card

    @property
    def terms(self) -> Terms:
        """All but the slides."""
        return Terms(self.bundle, self.device, self.options, self.clock)
