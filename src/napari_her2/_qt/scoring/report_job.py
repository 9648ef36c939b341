"""The report of a result as work for a thread: no part of it needs the main thread."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2._napari.regions import drawn_regions, region_layers
from napari_her2.errors import Her2Error
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from napari_her2._napari.session import Session
    from napari_her2.inference.region_kinds import Region
    from napari_her2.inference.result import SlideResult
    from napari_her2.reports.of_result import Desk
    from napari_her2.slide.reader import Slide

PDF, HTML = ".pdf", ".html"
FILTERS = "One page as PDF (*.pdf);;One page for a browser (*.html)"


def with_ending(path: Path) -> Path:
    """Return a path that ends in what can be written; PDF where it says nothing else."""
    return path if path.suffix.lower() in (PDF, HTML) else path.with_name(f"{path.name}{PDF}")


def session_regions(session: Session, slide_id: str) -> list[Region]:
    """Return everything that is drawn on a slide."""
    viewer, slide_layer = session.viewer, session.layer_of(slide_id)
    found: list[Region] = []
    if viewer is None or slide_layer is None:
        return found
    for layer in region_layers(viewer, slide_id):
        try:
            found += drawn_regions(layer, slide_layer)
        except Her2Error:  # it is empty, or holds what nobody has accepted
            continue
    return found


def open_slides(session: Session, result: SlideResult) -> dict[str, Slide]:
    """Return the slides of a result that are open, by their fingerprint."""
    found = ((scored.fingerprint, session.slide_of(scored.slide_id)) for scored in result.slides)
    return {fingerprint: slide for fingerprint, slide in found if slide is not None}


def reporting(
    result: SlideResult, slides: Mapping[str, Slide], desk: Desk, path: Path
) -> Generator[Progress, None, Path]:
    """Make the page of a result and write it.

    Parameters
    ----------
    result : SlideResult
    slides : mapping of str to Slide
        Open slides, by their fingerprint.
    desk : Desk
        The card of the model is found here.
    path : Path
        Ends in .pdf or .html.

    Yields
    ------
    Progress

    Returns
    -------
    Path
    """
    from napari_her2.reports.at_hand import card_at_hand
    from napari_her2.reports.of_result import report_steps

    page = yield from report_steps(result, slides, replace(desk, card=card_at_hand(result)))
    yield Progress("Writing the report")
    if path.suffix.lower() == HTML:
        from napari_her2.reports.html import write_html

        return write_html(page, path)
    from napari_her2._qt.parts.pdf import write_pdf

    write_pdf(page, path)
    return path
