"""What a user may say of a cohort that it does not say itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of an import.

    Parameters
    ----------
    columns : mapping of str to str
        Field to the name of its column, in place of what is guessed.
    mapped : mapping of str to str
        Label in lower case to score: what "negative" means is for the user to say.
    mpp : float or None
        µm per level-0 pixel of slides that do not say theirs, as plain pictures.
    sheet : str
        Of a workbook.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    mapped: Mapping[str, str] = field(default_factory=dict)
    mpp: float | None = None
    sheet: str = ""
