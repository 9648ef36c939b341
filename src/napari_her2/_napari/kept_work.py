"""Work on its way to the desk and back, without napari: what threads read and write."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from napari_her2.desk.store import Desk
from napari_her2.errors import Her2Error, JobFailed, SlideChanged
from napari_her2.inference.unchanged import identified
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_her2._napari.demands import Demands
    from napari_her2.desk.kept_shapes import KeptShape
    from napari_her2.desk.kept_slide import KeptSlide
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.reader import Slide

TITLE = "Keeping your work"
_LEAST_APART = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """What changed of one slide, to be written.

    Parameters
    ----------
    slide : Slide
    slide_id : str
    values : mapping of str to plain values
        Fields of `KeptSlide` that changed.
    regions : tuple of KeptShape or None
        All of them; None where none of them changed.
    results : tuple of SlideResult
        That are new, or were judged anew.
    scored : mapping of str to str
        Name of a model to when it scored.
    dropped : frozenset of str
        Names of models whose results go.
    sought : bool
        Whether what was kept had been brought back before; else it is added to.
    """

    slide: Slide
    slide_id: str
    values: Mapping[str, Any]
    regions: tuple[KeptShape, ...] | None = None
    results: tuple[SlideResult, ...] = ()
    scored: Mapping[str, str] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    sought: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What was kept of an open slide.

    Parameters
    ----------
    slide_id : str
    kept : KeptSlide or None
        None where nothing is, or it cannot be read.
    results : tuple of SlideResult
        Those of the shown model last.
    problems : tuple of str
        What cannot be brought back, a sentence each.
    size : int
        Bytes on the disk.
    """

    slide_id: str
    kept: KeptSlide | None
    results: tuple[SlideResult, ...] = ()
    problems: tuple[str, ...] = ()
    size: int = 0


def finding(
    slides: Sequence[Slide],
    open_slides: Sequence[Slide],
    demands: Demands | None = None,
    desk: Desk | None = None,
) -> Generator[Progress, None, list[Found]]:
    """Look up what is kept of slides, which reads all of their files once.

    Parameters
    ----------
    slides : sequence of Slide
        Just opened.
    open_slides : sequence of Slide
        All that are open: results of a case are laid over both of its slides.
    demands : Demands, optional
        By which results are judged; by default as they were.
    desk : Desk, optional

    Yields
    ------
    Progress

    Returns
    -------
    list of Found
        One for each slide.
    """
    desk = Desk() if desk is None else desk
    found = []
    for slide in slides:
        try:
            yield from identified(slide)
        except Her2Error as error:  # it changed, or went away
            found.append(Found(slide.slide_id, None, problems=(str(error),)))
            continue
        yield Progress("Looking up your work", note=slide.name)
        found.append(_found(slide, open_slides, demands, desk))
    return found


def writing(parcels: Sequence[Parcel], desk: Desk | None = None) -> Generator[Progress, None, dict[str, int]]:
    """Write what changed, a slide after another.

    Parameters
    ----------
    parcels : sequence of Parcel
    desk : Desk, optional

    Yields
    ------
    Progress
        Nothing is half written where it is closed.

    Returns
    -------
    dict of str to int
        Id of each slide to the bytes that are kept of it.

    Raises
    ------
    JobFailed
        If something cannot be written; what was kept before stays.
    """
    desk = Desk() if desk is None else desk
    sizes = {}
    for parcel in parcels:
        try:
            yield from identified(parcel.slide)
        except SlideChanged:  # it is another slide now, of which nothing was done
            continue
        yield Progress(TITLE, note=parcel.slide.name)
        fingerprint = parcel.slide.fingerprint
        # What a person did first: a result can be made again.
        _keep_own(desk, fingerprint, parcel)
        for result in parcel.results:
            yield Progress(TITLE, note=parcel.slide.name)
            _keep_result(desk, fingerprint, result, parcel.scored.get(result.model, ""))
        sizes[parcel.slide_id] = desk.size(fingerprint)
    return sizes


def write_now(parcels: Sequence[Parcel], desk: Desk | None = None) -> None:
    """Write what changed here and now, as far as it can be written: napari is about to close."""
    for parcel in parcels:
        with closing(writing([parcel], desk)) as steps:
            try:
                for _ in steps:
                    pass
            except Her2Error:  # there is nobody left to tell
                continue


def forgetting(fingerprint: str, desk: Desk | None = None) -> Generator[Progress, None, None]:
    """Delete what is kept of a slide.

    Parameters
    ----------
    fingerprint : str
    desk : Desk, optional

    Yields
    ------
    Progress

    Raises
    ------
    JobFailed
        If it cannot be deleted.
    """
    yield Progress("Forgetting")
    (Desk() if desk is None else desk).forget(fingerprint)


def scored_at(kept: KeptSlide, model: str) -> datetime | None:
    """Return when a model scored, with a time zone; None where it is not known."""
    try:
        return datetime.fromisoformat(kept.scored.get(model, "")).astimezone()
    except ValueError:
        return None


def _found(slide: Slide, open_slides: Sequence[Slide], demands: Demands | None, desk: Desk) -> Found:
    fingerprint = slide.fingerprint
    try:
        kept = desk.read(fingerprint)
    except JobFailed as error:
        return Found(slide.slide_id, None, problems=(str(error),))
    if kept is None:
        return Found(slide.slide_id, None)
    ids = {known: of.slide_id for of in open_slides if (known := of.identity.known) is not None}
    results, problems = [], list(kept.problems)
    for model in sorted(kept.results, key=lambda name: name == kept.chosen):
        try:
            result = desk.result(kept, model, {**ids, fingerprint: slide.slide_id})
        except JobFailed as error:
            problems.append(f"The result of {model} cannot be brought back: {error}")
            continue
        results.append(_judged(result, demands))
    return Found(slide.slide_id, kept, tuple(results), tuple(problems), desk.size(fingerprint))


def _judged(result: SlideResult, demands: Demands | None) -> SlideResult:
    """Judge a result by what is demanded now; as it was where that is the same."""
    from napari_her2._napari.judging import judged_by

    doubt = result.doubt
    if demands is None or doubt.answer is None:
        return result
    same = (
        abs(doubt.answer.coverage - demands.coverage) < _LEAST_APART
        and abs(doubt.min_familiarity - demands.min_familiarity) < _LEAST_APART
    )
    return result if same else judged_by(result, demands, shown_anyway=doubt.shown_anyway)


def _keep_own(desk: Desk, fingerprint: str, parcel: Parcel) -> None:
    """Keep what a person did, and drop the results that are to go."""

    def change(kept: KeptSlide) -> KeptSlide:
        results = {model: file for model, file in kept.results.items() if model not in parcel.dropped}
        scored = {model: when for model, when in kept.scored.items() if model in results}
        return replace(kept, **parcel.values, results=results, scored=scored)

    regions = parcel.regions
    if regions is not None and not parcel.sought:
        try:
            before = desk.read(fingerprint)
        except JobFailed:
            before = None
        regions = (*(() if before is None else before.regions), *regions)
    desk.change(fingerprint, change, regions)


def _keep_result(desk: Desk, fingerprint: str, result: SlideResult, when: str) -> None:
    file = desk.keep_result(fingerprint, result)

    def change(kept: KeptSlide) -> KeptSlide:
        scored = {**kept.scored, result.model: when} if when else kept.scored
        return replace(kept, results={**kept.results, result.model: file}, scored=scored)

    desk.change(fingerprint, change)
