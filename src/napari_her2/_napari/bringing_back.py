"""What was kept of a slide, shown again step by step: scale, regions, results, own score, look and view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2._napari.kept_layers import shapes_of, show_shapes, show_view
from napari_her2._napari.kept_work import scored_at
from napari_her2._napari.layers import OverlayLook
from napari_her2.errors import Her2Error

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_her2._napari.kept_work import Found
    from napari_her2._napari.session import Session
    from napari_her2.desk.kept_slide import KeptSlide
    from napari_her2.inference.result import SlideResult

_SAME_SCALE = 1e-6


def brought(
    session: Session, found: Found, kept: KeptSlide, *, opacity: float, moved: bool
) -> Generator[None, None, list[str]]:
    """Show what was kept of a slide, a layer or a result at each step; what was done meanwhile stays.

    Parameters
    ----------
    session : Session
    found : Found
    kept : KeptSlide
        That of ``found``.
    opacity : float
        Of maps whose own was not kept.
    moved : bool
        Whether the user has moved the view since the slide was opened: then it stays.

    Yields
    ------
    None

    Returns
    -------
    list of str
        What could not be brought back, a sentence each.
    """
    slide_id, viewer = found.slide_id, session.viewer
    # First: forms show it beside a result.
    if kept.own_score.given and not session.manual(slide_id).given:
        session.set_manual(slide_id, kept.own_score)
    problems = _bring_scale(session, slide_id, kept)
    yield
    layer = session.layer_of(slide_id)
    if viewer is None or layer is None:
        return problems
    there = [shape.key for shape in shapes_of(viewer, layer, slide_id)]
    yield from show_shapes(viewer, layer, [shape for shape in kept.regions if shape.key not in there])
    others = frozenset(session.results_of(slide_id))  # shown by whoever opened the slide with a result
    for result in found.results:
        problems += _bring_result(session, slide_id, result, kept, opacity, others)
        yield
    while (overlays := session.overlays(slide_id)) is not None and not overlays.whole:
        yield  # they come one a turn
    _bring_look(session, slide_id, kept)
    layer = session.layer_of(slide_id)
    if kept.view is not None and not moved and layer is not None and len(session.slide_layers()) == 1:
        show_view(viewer, layer, kept.view)
    return problems


def _bring_scale(session: Session, slide_id: str, kept: KeptSlide) -> list[str]:
    slide = session.slide_of(slide_id)
    if kept.scale is None or slide is None or slide.mpp_given:
        return []
    if session.results_of(slide_id):  # they would go with the µm/px that they were made with
        if _same_scale(slide.mpp, kept.scale.mpp):
            return []
        return [
            f"You gave {slide.name} other µm/px ({kept.scale.mpp[0]:.4g}, {kept.scale.words}) than those "
            f"that the result which is shown was made with: score the slide again to use them."
        ]
    try:
        session.give_scale(slide_id, kept.scale)
    except Her2Error as error:
        return [f"The µm/px that you gave cannot be used: {error}"]
    return []


def _bring_result(
    session: Session,
    slide_id: str,
    result: SlideResult,
    kept: KeptSlide,
    opacity: float,
    others: frozenset[str],
) -> list[str]:
    results = session.results_of(slide_id)
    if session.slide_of(slide_id) is None or result.model in results:
        return []  # it was closed, or scored, meanwhile
    for scored in result.slides:
        over = session.slide_of(scored.slide_id)
        if over is not None and not _same_scale(over.mpp, scored.grid.slide_mpp):
            return [
                f"The result of {result.model} was made with other µm/px than the slide has now, and is not "
                f"shown: score the slide again."
            ]
    when = scored_at(kept, result.model)
    if result.model == kept.chosen and not others and results.keys() <= kept.results.keys():
        own = opacity if kept.look is None else kept.look.opacity
        session.set_result(result, OverlayLook(opacity=own), when=when)
    else:
        session.add_result(result, when=when)
    return []


def _bring_look(session: Session, slide_id: str, kept: KeptSlide) -> None:
    shown, overlays = session.result(slide_id), session.overlays(slide_id)
    if kept.look is None or overlays is None or shown is None or shown.model != kept.chosen:
        return
    for kind, visible in kept.look.visible.items():
        drawn = overlays.layer(kind)
        if drawn is not None and drawn.visible != visible:
            overlays.set_visible(kind, visible)
    session.look_changed.emit(slide_id)


def _same_scale(one: tuple[float, float] | None, other: tuple[float, float]) -> bool:
    return one is not None and all(abs(a / b - 1) < _SAME_SCALE for a, b in zip(one, other, strict=True))
