"""A page as HTML: one file that needs no other, or with pictures by name for whoever lays it out."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import jinja2
import numpy as np

from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2.reports.page import Page, Picture, Row

WIDTH_PX = 703
"""Of an A4 page between its margins, at 96 px an inch."""
_TEMPLATES = Path(__file__).parent / "templates"
_GAP_PX = 8
_BARS = {"strong": (239, 108, 0), "weak": (140, 150, 165)}


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A page as HTML whose pictures have names.

    Parameters
    ----------
    html : str
    pictures : mapping of str to bytes
        PNG of each.
    """

    html: str
    pictures: dict[str, bytes] = field(default_factory=dict)


def html(page: Page) -> str:
    """Return a page as HTML that holds its pictures: it can be kept, sent and printed alone.

    Parameters
    ----------
    page : Page
    """
    return _rendered(page, WIDTH_PX, _embedded, for_qt=False)


def write_html(page: Page, path: Path) -> Path:
    """Write a page as one HTML file, whole or not at all.

    Raises
    ------
    JobFailed
        If it cannot be written, or the disk is full.
    """
    text = html(page)
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return path


def laid_out(page: Page, width_px: int) -> LaidOut:
    """Return a page for a given width, with pictures by name.

    Parameters
    ----------
    page : Page
    width_px : int
    """
    pictures: dict[str, bytes] = {}

    def named(png: bytes) -> str:
        return pictures_name(pictures, png)

    return LaidOut(_rendered(page, width_px, named, for_qt=True), pictures)


def pictures_name(pictures: dict[str, bytes], png: bytes) -> str:
    """Name a picture, and remember it."""
    name = f"picture-{len(pictures)}.png"
    pictures[name] = png
    return name


def _rendered(page: Page, width_px: int, source: Callable[[bytes], str], *, for_qt: bool) -> str:
    def picture(of: bytes | str) -> str:
        return source(_plain_png(of) if isinstance(of, str) else of)

    def fitted(shown: Picture, row: Row) -> tuple[int, int]:
        height, width = shown.size_px
        wide = width_px / max(1, len(row.pictures)) - _GAP_PX
        scale = min(row.height_px * width_px / WIDTH_PX / height, wide / width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            width=width_px,
            name_px=round(0.14 * width_px),
            picture=picture,
            fitted=fitted,
            for_qt=for_qt,
        )
        .lstrip()
    )


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@cache
def _plain_png(name: str) -> bytes:
    """Return a pixel of a colour, which is drawn out to a bar."""
    pixel = np.array([[_BARS[name][::-1]]], np.uint8)
    return cv2.imencode(".png", pixel)[1].tobytes()
