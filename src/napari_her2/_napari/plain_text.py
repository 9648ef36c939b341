"""Text from outside, shown as the characters it is made of.

Names, headers, cards and errors come from files that anyone may have made. Qt takes text for HTML where it
looks like it, and a mark of direction turns around all that stands beside it. Labels of our own never guess
(`napari_her2._qt.parts.text`); what is handed to widgets of napari, which do, goes through here first.
"""

from __future__ import annotations

import re

NAME_MOST = 200  # characters of a name that are shown: a file's name has at most 255

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of writing
    "\ud800-\udfff]"  # bytes of a file's name that are no text
)
_SEPARATORS = re.compile("\r\n?|[\u2028\u2029\x85]")
_MARKUP = re.compile(r"<(?=[\s!]*[A-Za-z]|[!?])|&(?=lt;)", re.IGNORECASE)
_JOINER = "\u2060"  # seen by nobody, and no tag goes on after it


def visible(text: str) -> str:
    """Return the text with a sign in place of what cannot be seen and changes how the rest is seen."""
    return _HIDDEN.sub("\ufffd", _SEPARATORS.sub("\n", text))


def not_markup(text: str) -> str:
    """Return visible text that no widget takes for HTML; what looks like it is broken by a joiner."""
    return _MARKUP.sub(lambda found: found[0] + _JOINER, visible(text))


def one_line(text: str, most: int = NAME_MOST) -> str:
    r"""Return a name for one line of a list: not HTML, without line breaks, shortened in its middle.

    Parameters
    ----------
    text : str
    most : int
        Characters.

    Examples
    --------
    >>> one_line("case 1\nsecond line")
    'case 1 second line'
    >>> one_line("abcdefghij", most=5)
    'ab…ij'
    """
    line = " ".join(visible(text).split())
    if len(line) > most:
        half = (most - 1) // 2
        line = f"{line[:half]}…{line[-half:]}"
    return not_markup(line)
