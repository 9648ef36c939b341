"""Which HER2 IHC scores a class of a model holds.

The name of a class does not tell: "Low" may be 1+ and 2+, or 1+ alone, and "High" may hold a 2+ that in situ
hybridisation (ISH) found positive. The card of a model says it by findings: a score, or a 2+ with what was
known of its ISH when the labels were made.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


_RANKS: Mapping[str, tuple[float, float]] = {
    "0": (0, 0),
    "1+": (1, 1),
    "2+": (2, 2.5),
    NO_POSITIVE_ISH: (2, 2),
    POSITIVE_ISH: (2.5, 2.5),
    "3+": (3, 3),
}
"""Lowest and highest place of a finding: of a 2+ whose ISH is not told, both that it may have."""


def in_order(classes: Sequence[str], class_scores: Mapping[str, tuple[str, ...]] | None = None) -> bool:
    """Whether classes follow each other on the scale of HER2 scores, without overlap.

    Parameters
    ----------
    classes : sequence of str
        In the order of the logits.
    class_scores : mapping of str to tuple of str, optional
        Each class to its findings, as the card has it.

    Returns
    -------
    bool
        True where they rise, or fall; of fewer than three classes always, as any two are neighbours. False
        where it is not known what a class holds.

    Examples
    --------
    >>> in_order(("0", "Low", "High")), in_order(("0", "3+", "1+")), in_order(("benign", "in situ", "other"))
    (True, False, False)
    """
    if len(classes) < 3:
        return True
    held = [[_RANKS[finding] for finding in findings_of(name, class_scores)] for name in classes]
    if not all(held):
        return False
    spans = [(min(low for low, _ in ranks), max(high for _, high in ranks)) for ranks in held]
    pairs = list(pairwise(spans))
    rising = all(first[1] < then[0] for first, then in pairs)
    return rising or all(then[1] < first[0] for first, then in pairs)
