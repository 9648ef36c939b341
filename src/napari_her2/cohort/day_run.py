"""A day's list at work: what waits in it is scored, model by model, here or on a cluster.

It is scored by the same jobs as in `napari_her2.cohort.run.score_cohort_steps`: a model is loaded once, a
slide that fails stops no other, and what an earlier run finished is recognised by what its files hold.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_her2.cohort.day_cases import cases_for
from napari_her2.cohort.day_file import held_day
from napari_her2.cohort.outcome import reason_of
from napari_her2.cohort.run import RETRIES, anywhere, score_jobs_steps
from napari_her2.cohort.score_job import ScoreJob
from napari_her2.cohort.sources import ModelSource
from napari_her2.errors import Her2Error
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.cohort.day_items import State
    from napari_her2.cohort.day_queue import DayQueue
    from napari_her2.cohort.outcome import CohortProgress, SlideOutcome
    from napari_her2.cohort.score_job import Case
    from napari_her2.cohort.tls import TlsFiles
    from napari_her2.models.bundle import ModelBundle

_MOST_LOST = 2
_LOST = (
    f"The program ended {_MOST_LOST} times while this was being scored: score it by itself, which tells why, "
    f"or try it again."
)
_EARLIER = "finished by an earlier run"


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a cluster, who score instead of this machine; see `score_cohort_steps`.

    Parameters
    ----------
    scheduler : str
        Address of a dask scheduler, or the file it wrote.
    tls : TlsFiles or None
    retries : int
    """

    scheduler: str
    tls: TlsFiles | None = None
    retries: int = RETRIES


@dataclass(frozen=True, slots=True)
class DayProgress(Progress):
    """A step of a list.

    Parameters
    ----------
    stage, done, total, unit, note
        As of `Progress`: of the slide that is being scored.
    number : int
        Of the item that this step is about; -1 where it is about all.
    outcome : SlideOutcome or None
        Of the slide that this step finished.
    warning : str
        What concerns all slides and should be known.
    """

    number: int = -1
    outcome: SlideOutcome | None = None
    warning: str = ""

    @property
    def lasting(self) -> bool:
        """Whether it is more than how far a slide is."""
        return bool(self.warning) or self.outcome is not None


def score_day_steps(
    queue: DayQueue, workers: Workers | None = None
) -> Generator[DayProgress, None, dict[State, int]]:
    """Score what waits in a list, model by model.

    Parameters
    ----------
    queue : DayQueue
    workers : Workers, optional
        By default this machine scores.

    Yields
    ------
    DayProgress
        Closing the generator stops at once: what was being scored waits again, and what was computed of
        it stays in the cache.

    Returns
    -------
    dict of str to int
        How many items are in each state.

    Raises
    ------
    JobFailed
        What concerns all slides: the folder, the cluster; what is finished is kept.
    """
    try:
        with held_day(queue.folder):
            queue.write()
            for number, item in enumerate(queue.items):
                if item.state == "waiting" and item.lost >= _MOST_LOST:
                    queue.set(number, replace(item, state="failed", reason=_LOST))
            for model in range(len(queue.models)):
                if not queue.pausing:
                    yield from _model_steps(queue, model, workers)
    finally:
        queue.rested()
    return queue.counts()


def _model_steps(queue: DayQueue, model: int, workers: Workers | None) -> Generator[DayProgress, None, None]:
    """Score what waits for one model, which is loaded once."""
    waiting = [
        (item.lost, number)
        for number, item in enumerate(queue.items)
        if item.model == model and item.state == "waiting"
    ]
    if not waiting:
        return
    # Those that the program did not survive go last: they should not take it from the others.
    numbers = [number for _, number in sorted(waiting)]
    source = ModelSource(queue.models[model].where)
    yield DayProgress(f"Loading {queue.models[model].name}")
    try:
        bundle = source.load()
    except Her2Error as error:
        for number in numbers:
            queue.set(number, replace(queue.item(number), state="failed", reason=str(error)))
        return
    yield from _scored(queue, numbers, source, bundle, workers or Workers(""))


def _scored(
    queue: DayQueue, numbers: Sequence[int], source: ModelSource, bundle: ModelBundle, workers: Workers
) -> Generator[DayProgress, None, None]:
    jobs, known = [], []
    taken = cases_for(queue.entries, bundle.card, queue.settings.case_slides)
    for number in numbers:
        case = taken[queue.item(number).entry]
        if isinstance(case, str):
            queue.set(number, replace(queue.item(number), state="skipped", reason=case))
        else:
            jobs.append(_job(queue, number, case))
            known.append(number)
    steps = score_jobs_steps(
        jobs,
        source,
        bundle,
        queue.folder,
        scheduler=workers.scheduler or None,
        tls=workers.tls,
        retries=workers.retries,
        enough=lambda: queue.pausing,
    )
    running: dict[int, float] = {}
    try:
        for step in steps:
            about = [known[place] for place in step.places]
            for number in about if step.outcome is None else ():
                if number not in running:
                    running[number] = time.time()
                    _begin(queue, number, running[number])
            if step.outcome is not None:
                _finish(queue, about[0], step.outcome, running.pop(about[0], time.time()))
            yield _progress(step, about)
    finally:
        steps.close()
        for number in running:  # stopped, or the cluster is gone
            queue.set(number, queue.item(number).again())


def _job(queue: DayQueue, number: int, case: Case) -> ScoreJob:
    item, settings = queue.item(number), queue.settings
    out, place = queue.folder / queue.model_of(item).name, queue.entry_of(item).place
    return ScoreJob(
        anywhere(case),
        out / place if place else out,
        settings.options,
        settings.device,
        settings.backend,
        skip_finished=True,
    )


def _begin(queue: DayQueue, number: int, now: float) -> None:
    queue.set(number, replace(queue.item(number), state="running", started=now, reason=""))


def _finish(queue: DayQueue, number: int, outcome: SlideOutcome, started: float) -> None:
    item = replace(queue.item(number), started=started, seconds=round(time.time() - started, 3), lost=0)
    if outcome.error is not None:
        item = replace(item, state="failed", reason=reason_of(outcome.error))
    else:
        written = outcome.written
        folder = "" if written is None else written.relative_to(queue.folder).as_posix()
        reason = _EARLIER if outcome.state == "skipped" else ""
        item = replace(item, state="done", reason=reason, folder=folder)
    queue.set(number, item)


def _progress(step: CohortProgress, about: Sequence[int]) -> DayProgress:
    number = about[0] if len(about) == 1 else -1
    return DayProgress(
        step.stage,
        step.done,
        step.total,
        step.unit,
        step.note,
        number=number,
        outcome=step.outcome,
        warning=step.warning,
    )
