"""Which HER2 IHC scores a class of a model holds.

The name of a class does not tell: "Low" may be 1+ and 2+, or 1+ alone, and "High" may hold a 2+ that in situ
hybridisation (ISH) found positive. The card of a model says it by findings: a score, or a 2+ with what was
known of its ISH when the labels were made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SCORES = ("0", "1+", "2+", "3+")
EQUIVOCAL, POSITIVE = "2+", "3+"
NO_POSITIVE_ISH, POSITIVE_ISH = "2+ without a positive ISH", "2+ with a positive ISH"
FINDINGS = (*SCORES, NO_POSITIVE_ISH, POSITIVE_ISH)
JOINS = ("low", "her2-low")
"""Names, in small letters, of the class that joins 1+ and 2+ where the card says nothing else."""
_USUAL: Mapping[str, tuple[str, ...]] = dict.fromkeys(JOINS, ("1+", "2+")) | {"high": (POSITIVE,)}


def findings_of(name: str, class_scores: Mapping[str, tuple[str, ...]] | None = None) -> tuple[str, ...]:
    """Return what a class holds.

    Parameters
    ----------
    name : str
        Of the class: "Low".
    class_scores : mapping of str to tuple of str, optional
        Each class to its findings, as the card has it.

    Returns
    -------
    tuple of str
        From `FINDINGS`. Where the card does not say it, what such a name usually holds; empty where that is
        not known.

    Examples
    --------
    >>> findings_of("2+"), findings_of("Low"), findings_of("negative")
    (('2+',), ('1+', '2+'), ())
    """
    given = (class_scores or {}).get(name)
    if given:
        return tuple(given)
    return (name,) if name in SCORES else _USUAL.get(name.lower(), ())
