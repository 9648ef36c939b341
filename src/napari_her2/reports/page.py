"""A page of a report as values: what stands on it, and nothing of how it is laid out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with what it shows.

    Parameters
    ----------
    title : str
    png : bytes
    size_px : tuple of int
        (height, width).
    caption : str
    bar : bytes
        PNG of its colours from low to high; empty where it has none.
    low, high : str
        Values at the ends of the bar.
    legend : tuple of (str, str)
        Colour "#rrggbb" and name of each category.
    """

    title: str
    png: bytes
    size_px: tuple[int, int]
    caption: str = ""
    bar: bytes = b""
    low: str = ""
    high: str = ""
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures side by side.

    Parameters
    ----------
    title : str
    pictures : tuple of Picture
    note : str
        What has to be known about them, or why there are none.
    height_px : int
        Of each at most, where the page is 703 px wide.
    """

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""
    height_px: int = 190


@dataclass(frozen=True, slots=True)
class Bar:
    """A share as a bar.

    Parameters
    ----------
    name : str
    share : float
        0 to 1.
    text : str
        Its value, in words.
    strong : bool
        Whether it belongs to the answer.
    """

    name: str
    share: float
    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer, and how far to trust it.

    Parameters
    ----------
    task : str
        Stain and task, which stand beside every score.
    heading : str
    lines : tuple of str
    greyed : bool
        Whether it is shown although it is withheld.
    bars_title : str
    bars : tuple of Bar
    """

    task: str
    heading: str
    lines: tuple[str, ...]
    greyed: bool = False
    bars_title: str = ""
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Names and values, or rows under a header.

    Parameters
    ----------
    title : str
    rows : tuple of tuple of str
        Of one length; the first of each is a name.
    header : tuple of str
        Empty where the rows speak for themselves.
    note : str
    """

    title: str
    rows: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A report.

    Parameters
    ----------
    title, subtitle : str
    notice : str
        Stands at the top and at the bottom.
    answer : Answer or None
    rows : tuple of Row
    left, right : tuple of Table
        In two columns.
    wide : tuple of Table
        Below, over the whole width.
    warnings : tuple of str
    """

    title: str
    subtitle: str
    notice: str
    answer: Answer | None = None
    rows: tuple[Row, ...] = ()
    left: tuple[Table, ...] = ()
    right: tuple[Table, ...] = ()
    wide: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
