"""``napari-her2 open``: napari with slides and the scoring dock."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from napari_her2.commands.bars import drive
from napari_her2.errors import JobFailed, SlideError

if TYPE_CHECKING:
    from collections.abc import Iterator


def open_slides(
    slides: Annotated[
        list[Path], typer.Argument(metavar="SLIDE...", help="Slide files, or folders of DICOM files.")
    ],
) -> None:
    """Open napari with slides side by side and the scoring dock."""
    with window_system():
        from napari_her2._napari.opening import opening_slides, refusals_in_words
        from napari_her2._qt.window import need_display, open_window

        need_display("open SLIDE")
        opened = drive(opening_slides(slides), "open")
        if opened.refusals:
            for slide in opened.slides:
                slide.close()
            raise SlideError(refusals_in_words(opened))
        open_window(opened.slides)


@contextmanager
def window_system() -> Iterator[None]:
    """Say what to install where napari has no window system."""
    try:
        yield
    except ImportError as error:
        raise JobFailed(
            f"This needs napari with a window system ({error}): install it with "
            f'pip install "napari-her2[all]".'
        ) from error
