"""Results of a session judged by what the user demands, and withheld or shown anyway; nothing is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2._napari.demands import Demands
from napari_her2.models.answer_sets import COVERAGE

if TYPE_CHECKING:
    from napari_her2._napari.session import Session
    from napari_her2._napari.settings import Settings
    from napari_her2.inference.result import SlideResult


def demands_of(session: Session, settings: Settings) -> Demands:
    """Return what the user demands in this session; what the settings say as long as nothing was changed."""
    return session.demands or Demands(settings.coverage, settings.min_familiarity)


def judge_anew(session: Session, demands: Demands) -> None:
    """Keep other demands, and judge all results of the session by them; nothing is computed again.

    Parameters
    ----------
    session : Session
    demands : Demands
    """
    session.demands = demands
    for result in session.results:
        judged = judged_by(result, demands, shown_anyway=result.doubt.shown_anyway)
        if judged is not result:  # cells are judged by no such demands
            session.refresh_result(judged)


def show_withheld(session: Session, slide_id: str, *, shown: bool) -> None:
    """Show the answer of a slide that is withheld, or withhold it again.

    Parameters
    ----------
    session : Session
    slide_id : str
    shown : bool
    """
    result = session.result(slide_id)
    if result is not None:
        doubt = result.doubt
        coverage = COVERAGE if doubt.answer is None else doubt.answer.coverage
        own = Demands(coverage, doubt.min_familiarity)
        session.refresh_result(judged_by(result, own, shown_anyway=shown))


def judged_by(result: SlideResult, demands: Demands, *, shown_anyway: bool) -> SlideResult:
    """Return the same result judged by other demands."""
    from napari_her2.inference.judging import redoubted

    return redoubted(
        result,
        result.answer_sets,
        coverage=demands.coverage,
        min_familiarity=demands.min_familiarity,
        show_withheld=shown_anyway,
    )
