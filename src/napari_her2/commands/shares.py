"""Options that are shares: given as 0.9, as 90 or as 90%, and wrong usage where they make no sense."""

from __future__ import annotations

import math

import typer

from napari_her2.inference.options import OVERLAPS
from napari_her2.models.answer_sets import COVERAGES

COVERAGE_HELP = (
    "How often the set of scores is to hold the truth, of cases like those of calibration: 0.8 to 0.99, or "
    "80 to 99 for per cent."
)
MIN_FAMILIARITY_HELP = (
    "Withhold the answer where fewer than this share of slides like those of validation would look as "
    "strange to the model; 0 withholds none."
)
SHOW_WITHHELD_HELP = (
    "Write and print answers that are withheld because the slide is unlike what the model learnt from, "
    "marked as such."
)

OVERLAP_HELP = (
    "Smoother maps, from tiles that overlap by 0.5 of their side (about 4 times as many are computed) or by "
    "0.75 (about 16 times); the score stays the same. Models that score no tiles say that they ignore it."
)


def coverage_of(given: str) -> float:
    """Read a coverage.

    Parameters
    ----------
    given : str
        "0.9", "90", "90%" or "90 %".

    Returns
    -------
    float
        0.8 to 0.99.

    Raises
    ------
    typer.BadParameter
        If it is anything else.
    """
    low, high = COVERAGES
    text = str(given).strip()
    value = _number(text.removesuffix("%").rstrip())
    if text.endswith("%") or value >= 1:
        value /= 100
    if not low <= value <= high:
        raise typer.BadParameter(
            f"a coverage is a number from {low:g} to {high:g}, or from {low:.0%} to {high:.0%}, and "
            f"{given!r} is not."
        )
    return value


def overlap_of(given: str) -> float:
    """Read by how much tiles overlap for smoother maps; `typer.BadParameter` for what there is not."""
    value = _number(str(given))
    if value not in OVERLAPS:
        each = ", ".join(f"{share:g}" for share in OVERLAPS)
        raise typer.BadParameter(f"tiles overlap by one of {each} of their side, and {given!r} is none.")
    return value


def least_familiarity_of(given: str) -> float:
    """Read the least familiarity: a share from 0 to below 1; `typer.BadParameter` for anything else."""
    value = _number(str(given))
    if not 0 <= value < 1:
        raise typer.BadParameter(
            f"the least familiarity is a number from 0 (nothing is withheld) to below 1, and {given!r} is "
            f"not."
        )
    return value


def _number(text: str) -> float:
    """Read a number; NaN, which lies in no range, where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
