"""Numbers as words in messages."""

from __future__ import annotations

_UNITS = ((2**30, "GB"), (2**20, "MB"), (2**10, "KB"))


def size_in_words(count: int) -> str:
    """Bytes for a person, in units of 1,024.

    Examples
    --------
    >>> size_in_words(5 * 2**30), size_in_words(1_300_000), size_in_words(64 * 1024)
    ('5 GB', '1.2 MB', '64 KB')
    """
    unit, name = next((each for each in _UNITS if count >= each[0]), _UNITS[-1])
    return f"{round(count / unit, 1):,g} {name}"


def counted(count: int, one: str, more: str = "") -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(1, "field"), counted(1200, "field")
    ('1 field', '1,200 fields')
    """
    return f"{count:,} {one if count == 1 else more or f'{one}s'}"
