"""Which slides belong to one case, and which stain they have, guessed from their names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HE = frozenset({"he", "h&e", "hne"})
_IHC = frozenset({"ihc", "her2", "erbb2", "4b5"})
_WORD = re.compile(r"[^\W_]+(?:&[^\W_]+)?")


def case_of(name: str) -> tuple[str, ...]:
    """Words of a slide's name without those that name a stain.

    Examples
    --------
    >>> case_of("case_001_HE"), case_of("Case-001 HER2")
    (('case', '001'), ('case', '001'))
    """
    return tuple(word for word in _words(name) if word not in _HE | _IHC)


def stain_in(name: str) -> str:
    """Stain that a name says a slide has: of several words that name one the last counts.

    Examples
    --------
    >>> stain_in("case_001_HER2"), stain_in("HER2 study 001 HE"), stain_in("001")
    ('IHC', 'H&E', '')
    """
    named = [word for word in _words(name) if word in _HE | _IHC]
    return "" if not named else "IHC" if named[-1] in _IHC else "H&E"


def looks_ihc(name: str) -> bool:
    """Whether a name says that the slide is an IHC slide."""
    return stain_in(name) == "IHC"


def partner_of(name: str, others: Iterable[tuple[str, str]]) -> str:
    """Id of the one slide that seems to be of the same case and of another stain.

    Parameters
    ----------
    name : str
        Of the slide whose partner is looked for.
    others : iterable of (id, name)

    Returns
    -------
    str
        Empty where there is none, or more than one.
    """
    case = case_of(name)
    found = [
        key for key, other in others if case and case_of(other) == case and _words(other) != _words(name)
    ]
    return found[0] if len(found) == 1 else ""


def _words(name: str) -> list[str]:
    return _WORD.findall(name.lower())
