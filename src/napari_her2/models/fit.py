"""Whether a model was made for a slide: what refuses to score, and what only warns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_her2.models.card import ModelCard

MAX_ENLARGEMENT = 1.15
"""A slide may be this much coarser than the model's µm/px; beyond, the detail it learnt is not there."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model fits a slide, in plain sentences.

    Parameters
    ----------
    problems : tuple of str
        Reasons to refuse.
    warnings : tuple of str
        What the result should carry.
    """

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def overridden(self) -> Fit:
        """Return the same with every problem turned into a warning: the user scores all the same."""
        kept = tuple(f"Scored all the same: {problem}" for problem in self.problems)
        return replace(self, problems=(), warnings=kept + self.warnings)


def check_fit(card: ModelCard, slide_mpp: tuple[float, float], stain: str) -> Fit:
    """Compare what a model was made for with a slide.

    Parameters
    ----------
    card : ModelCard
    slide_mpp : tuple of float
        (y, x) µm per level-0 pixel.
    stain : str
        As guessed from the slide's colours: "H&E", "IHC" or "unknown".

    Returns
    -------
    Fit

    Examples
    --------
    A slide of 28.97 µm/px cannot show a model what it saw at 0.5 µm/px; see ``problems``.
    """
    problems, warnings = [], []
    coarsest = max(slide_mpp)
    if coarsest > card.mpp * MAX_ENLARGEMENT:
        problems.append(
            f"The slide has {coarsest:.4g} µm/px, too coarse for the model {card.name}, which was made for "
            f"{card.mpp:.4g} µm/px: use a scan of higher magnification, or a model made for this one."
        )
    if stain == "unknown":
        warnings.append(
            f"The stain could not be recognised from the slide's colours; the model {card.name} was made "
            f"for {card.stain}."
        )
    elif stain != card.stain:
        problems.append(
            f"The slide looks like {stain}, but the model {card.name} was made for {card.stain}: choose "
            f"the {card.stain} slide of this case, or another model."
        )
    return Fit(tuple(problems), tuple(warnings))
