"""What scanners usually make of an objective, µm/px: a habit to compare with and to choose from, no truth.

Most scanners sample at 10 µm over the magnification (Sellaro et al. 2013, doi:10.4103/2153-3539.116866).
For those listed here the values are what slides of these makers state: the freely distributable test data of
OpenSlide (CMU-1.svs 0.499 at 20x, CMU-1.ndpi 0.456 at 20x, CMU-1.mrxs 0.2325 at 20x with its adapter,
OS-1.bif 0.2325 at 40x), and a field of Ki67 that a Hamamatsu and an Olympus scanner both scanned (0.227,
0.346).
"""

from __future__ import annotations

from dataclasses import dataclass

UM_TIMES_MAGNIFICATION = 10.0
"""40x is 0.25 µm/px on most scanners, 20x 0.5."""
MAGNIFICATIONS = (40.0, 20.0)
"""Of slides; the others are rare."""

_MAKERS = {
    "aperio": "Aperio",
    "hamamatsu": "Hamamatsu",
    "mirax": "3DHISTECH",
    "olympus": "Olympus",
    "ventana": "Ventana",
}
_SEEN = {
    ("aperio", 20): 0.499,
    ("aperio", 40): 0.252,
    ("hamamatsu", 20): 0.456,
    ("hamamatsu", 40): 0.228,
    ("mirax", 20): 0.2325,
    ("olympus", 20): 0.346,
    ("ventana", 20): 0.465,
    ("ventana", 40): 0.2325,
}


@dataclass(frozen=True, slots=True)
class Habit:
    """What is usual for a magnification.

    Parameters
    ----------
    magnification : float
    mpp : float
        µm/px.
    maker : str
        Of the scanner, as a person knows it; empty for scanners in general.
    """

    magnification: float
    mpp: float
    maker: str = ""


def habit_of(vendor: str | None, magnification: float) -> Habit:
    """Return what is usual for a magnification on the scanners of a maker.

    Parameters
    ----------
    vendor : str or None
        As readers of slides call it: "aperio".
    magnification : float

    Returns
    -------
    Habit
        Of scanners in general where the maker is not known here.

    Examples
    --------
    >>> habit_of("ventana", 40).mpp, habit_of(None, 40).mpp
    (0.2325, 0.25)
    """
    known = (vendor or "").lower()
    seen = _SEEN.get((known, round(magnification))) if magnification == round(magnification) else None
    if seen is None:
        return Habit(magnification, UM_TIMES_MAGNIFICATION / magnification)
    return Habit(magnification, seen, _MAKERS[known])
