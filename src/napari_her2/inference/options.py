"""How slides are scored: what the user may choose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_her2.cells.rules import Rules
from napari_her2.errors import JobFailed
from napari_her2.models.answer_sets import COVERAGE, COVERAGES
from napari_her2.models.card import LEFT_OUT
from napari_her2.models.familiarity import LEAST_FAMILIARITY
from napari_her2.slide.quality_limits import QUALITY_LIMITS, QualityLimits

if TYPE_CHECKING:
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.tissue import Preset

MIN_TISSUE = 0.5
OVERLAPS = (0.0, 0.5, 0.75)
"""Shares of a tile's side that neighbouring tiles can have in common, for smoother maps."""


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """How slides are scored.

    Parameters
    ----------
    preset : str
        Of the tissue mask: "auto", "resection" or "biopsy".
    stain : str
        Of a slide that is scored alone: "auto" guesses it from the colours, "H&E" and "IHC" are taken as
        said.
    min_tissue : float or None
        Share of a tile that must be tissue; None takes what the model's card says, else `MIN_TISSUE`.
    min_confidence : float or None
        Below this probability of the top class the answer is "indeterminate"; None takes what the model's
        card says, else `napari_her2.inference.presentation.MIN_CONFIDENCE` where the answer is no set.
    batch_size : int or None
        Tiles read and computed together; None takes what suits the device.
    cache : bool
        Whether embeddings are kept on disk.
    override_fit : bool
        Score slides that the model was not made for; the result then carries a warning.
    rules : Rules or None
        By which cells are judged, for methods that read cells; None takes those of the specification.
    calibration : str
        Name of the calibration that the gain is from; empty for none, and then the gain is that of the rules.
    gain : float or None
        Of that calibration; None looks it up by its name, see `calibrated`.
    coverage : float
        How often the set of scores is to hold the truth, 0.8 to 0.99.
    min_familiarity : float
        The answer is withheld where fewer than this share of slides like those of validation would look as
        strange; 0 withholds none.
    show_withheld : bool
        Whether answers that are withheld because the slide is unlike are shown anyway, with that said.
    leave_out_poor : bool or None
        Whether tissue that is out of focus, folded or hidden is left out; None takes what the model's card
        says, which is how it learnt.
    quality_limits : QualityLimits
        From where on tissue is poor.
    overlap : float
        For smoother maps, what neighbouring tiles have in common of their side, one of `OVERLAPS`: 0.5
        embeds about 4 times the tiles, 0.75 about 16 times. Nothing but the maps changes; methods that
        score no tiles say that they ignore it.
    """

    preset: Preset = "auto"
    stain: str = "auto"
    min_tissue: float | None = None
    min_confidence: float | None = None
    batch_size: int | None = None
    cache: bool = True
    override_fit: bool = False
    rules: Rules | None = None
    calibration: str = ""
    gain: float | None = None
    coverage: float = COVERAGE
    min_familiarity: float = LEAST_FAMILIARITY
    show_withheld: bool = False
    leave_out_poor: bool | None = None
    quality_limits: QualityLimits = QUALITY_LIMITS
    overlap: float = 0.0

    def __post_init__(self) -> None:
        if self.preset not in ("auto", "resection", "biopsy"):
            raise JobFailed(f"There is no tissue preset {self.preset!r}: use auto, resection or biopsy.")
        if self.stain not in ("auto", "H&E", "IHC"):
            raise JobFailed(f"There is no stain {self.stain!r}: use auto, H&E or IHC.")
        if any(not 0 <= share <= 1 for share in (self.min_tissue, self.min_confidence) if share is not None):
            raise JobFailed("The least share of tissue and the least probability are numbers from 0 to 1.")
        if self.batch_size is not None and self.batch_size < 1:
            raise JobFailed("A batch holds at least one tile.")
        if not COVERAGES[0] <= self.coverage <= COVERAGES[1]:
            low, high = (f"{share:.0%}" for share in COVERAGES)
            raise JobFailed(
                f"A set of scores can hold the truth in {low} to {high} of the cases: choose between."
            )
        if not 0 <= self.min_familiarity < 1:
            raise JobFailed("The least familiarity is a number from 0 (nothing is withheld) to below 1.")
        if self.overlap not in OVERLAPS:
            raise JobFailed("Tiles overlap by 0, 0.5 or 0.75 of their side: choose one of these.")
        if self.gain is not None and not self.calibration:
            raise JobFailed("A gain goes with the name of its calibration, or into the rules.")

    @property
    def of_cells(self) -> bool:
        """Whether anything was chosen that concerns cells alone."""
        return self.rules is not None or bool(self.calibration)

    def calibrated(self) -> ScoringOptions:
        """Return the same options with the gain of the calibration looked up, where one is named.

        Raises
        ------
        JobFailed
            If there is no calibration of that name, or it cannot be read.
        """
        if not self.calibration or self.gain is not None:
            return self
        from napari_her2.cells.calibration_store import load_calibration

        return replace(self, gain=load_calibration(self.calibration).gain)

    def cell_rules(self) -> Rules:
        """Return the rules that cells are judged by, with the gain of the calibration; see `calibrated`."""
        rules, chosen = self.rules or Rules(), self.calibrated()
        return rules if chosen.gain is None else replace(rules, gain=chosen.gain)

    def leaves_out_poor(self, card: ModelCard) -> bool:
        """Whether poor tissue is left out: as the user wishes, else as the model learnt."""
        return card.quality == LEFT_OUT if self.leave_out_poor is None else self.leave_out_poor

    def least_tissue(self, card: ModelCard) -> float:
        """Share of a tile that must be tissue."""
        return _first(self.min_tissue, card.min_tissue, MIN_TISSUE)

    def least_confidence(self, card: ModelCard) -> float | None:
        """Probability of the top class below which the answer is withheld; None where nobody asks for one."""
        return card.min_confidence if self.min_confidence is None else self.min_confidence


def parts_of(overlap: float) -> int:
    """Into how many parts the side of a tile is cut for smoother maps; 1 where tiles lie side by side."""
    return round(1 / (1 - overlap))


def _first(*values: float | None) -> float:
    """Return the first that is given."""
    return next(value for value in values if value is not None)
