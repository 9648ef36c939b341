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


def check_fit(
    card: ModelCard,
    slide_mpp: tuple[float, float],
    stain: str,
    *,
    slide: str = "",
    wanted: str = "",
    any_scale: bool = False,
) -> Fit:
    """Compare what a model was made for with a slide.

    Parameters
    ----------
    card : ModelCard
    slide_mpp : tuple of float
        (y, x) µm per level-0 pixel.
    stain : str
        As guessed from the slide's colours: "H&E", "IHC" or "unknown".
    slide : str, optional
        Name of the slide, for the messages; left out where there is one only.
    wanted : str, optional
        Stain that the slide should have, where the model takes slides of several.
    any_scale : bool, default False
        Whether the model takes slides of any µm/px, because it sees all tissue in one image.

    Returns
    -------
    Fit

    Examples
    --------
    A slide of 28.97 µm/px cannot show a model what it saw at 0.5 µm/px; see ``problems``.
    """
    problems, warnings = [], []
    coarsest = max(slide_mpp)
    several = card.stain != wanted and bool(wanted)
    wanted = wanted or card.stain
    named = f"The slide {slide}" if several and slide else "The slide"
    if not any_scale and coarsest > card.mpp * MAX_ENLARGEMENT:
        problems.append(
            f"{named} has {coarsest:.4g} µm/px, too coarse for the model {card.name}, which was made for "
            f"{card.mpp:.4g} µm/px: use a scan of higher magnification, or a model made for this one."
        )
    if stain == "unknown":
        what = f"it was scored as {wanted}" if several else f"the model {card.name} was made for {wanted}"
        of = f" of {slide}" if several and slide else ""
        warnings.append(f"The stain{of} could not be recognised from the slide's colours; {what}.")
    elif stain != wanted:
        use = "was given as" if several else f"the model {card.name} was made for"
        instead = "" if several else ", or another model"
        problems.append(
            f"{named} looks like {stain}, but {'it ' if several else ''}{use} {wanted}: choose the {wanted} "
            f"slide of this case{instead}."
        )
    return Fit(tuple(problems), tuple(warnings))
