"""Slides to workers: one at a time each, a failed one elsewhere again, and one outcome a slide.

Who gets what is decided here and not by the scheduler, which would hand a slide that killed its worker to
any other, and count on a task having no effect but its result. Here a worker has at most one slide, so a
worker that is lost takes one slide with it, and a slide that failed goes to another worker if there is one.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.answer import WorkerUnfit
from napari_her2.cohort.outcome import CohortProgress, SlideOutcome
from napari_her2.errors import ClusterLost, JobFailed, ModelError, SlideError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from concurrent.futures import Future

    from napari_her2.cohort.cluster import Cluster
    from napari_her2.cohort.jobs import SlideJob
    from napari_her2.cohort.worker import Needs

PATIENCE_S = 60.0
"""How long slides wait for a worker when there is none: one that was lost may be started again."""
_POLL_S = 0.25
_SHOWN = 3


@dataclass(slots=True, eq=False)
class _Turn:
    """A slide on its way."""

    place: int
    job: SlideJob[Any]
    tries: int = 0
    losses: int = 0
    failed_on: set[str] = field(default_factory=set)


class Dispatcher:
    """Hands the slides of a cohort to the workers of a cluster.

    Parameters
    ----------
    cluster : Cluster
    needs : Needs
    jobs : sequence of SlideJob
    retries : int
        How often a slide that failed is tried again.
    enough : callable
        Whether to hand out no other slide; those under way are waited for.
    """

    def __init__(
        self,
        cluster: Cluster,
        needs: Needs,
        jobs: Sequence[SlideJob[Any]],
        retries: int,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cluster = cluster
        self._needs = needs
        self._retries = retries
        self._enough = enough
        self._outcomes: list[SlideOutcome | None] = [None] * len(jobs)
        self._waiting = deque(_Turn(place, job) for place, job in enumerate(jobs))
        self._running: dict[Future[str], tuple[_Turn, str]] = {}
        self._unfit: dict[str, str] = {}
        self._idle_since: float | None = None

    def steps(self, stage: str) -> Generator[CohortProgress, None, tuple[SlideOutcome, ...]]:
        """Work on all slides.

        Parameters
        ----------
        stage : str
            What the progress calls it.

        Yields
        ------
        CohortProgress
            At least every second. Closing the generator takes back what is not finished.

        Returns
        -------
        tuple of SlideOutcome
            In the order of the jobs, without those that were not begun.

        Raises
        ------
        ClusterLost
            If the scheduler is gone, or has had no worker for a minute.
        """
        total, done = len(self._outcomes), 0
        try:
            while self._running or (self._waiting and not self._enough()):
                if not self._enough():
                    self._hand_out()
                running = tuple(turn.place for turn, _ in self._running.values())
                yield CohortProgress(stage, done, total, "slides", self._under_way(), places=running)
                for place, outcome in self._round():
                    done += 1
                    name = outcome.path.name
                    yield CohortProgress(stage, done, total, "slides", name, outcome=outcome, places=(place,))
        finally:
            self._cluster.cancel(list(self._running))
        return tuple(outcome for outcome in self._outcomes if outcome is not None)

    def _hand_out(self) -> None:
        """Give every worker that has none a slide."""
        fit = self._cluster.workers() - self._unfit.keys()
        for worker in sorted(fit - {busy for _, busy in self._running.values()}):
            turn = next((turn for turn in self._waiting if _may(turn, worker, fit)), None)
            if turn is not None:
                self._waiting.remove(turn)
                turn.tries += 1
                self._running[self._cluster.submit(turn.job, self._needs, worker)] = (turn, worker)
        if self._running:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()

    def _round(self) -> Iterator[tuple[int, SlideOutcome]]:
        """Wait a little; give back what was settled."""
        if not self._running:
            self._wait_for_workers()
            return
        self._cluster.wait(_POLL_S)
        present = self._cluster.workers()
        for future, (turn, worker) in list(self._running.items()):
            if future.done():
                found = self._cluster.result(future)
            elif worker not in present:
                found = None
            else:
                continue
            del self._running[future]
            if not future.done():
                self._cluster.cancel([future])
            outcome = self._settle(turn, worker, found)
            if outcome is not None:
                self._outcomes[turn.place] = outcome
                yield turn.place, outcome

    def _settle(
        self, turn: _Turn, worker: str, found: SlideOutcome | Exception | None
    ) -> SlideOutcome | None:
        """Return the outcome of a slide, or None when it gets another turn."""
        if isinstance(found, SlideOutcome):
            if turn.losses and found.state == "skipped":
                # Its worker was lost after it had written: finished in this run, if not by this try.
                found = replace(found, state="done")
            return found.computed_by(worker, turn.tries)
        if isinstance(found, WorkerUnfit):
            self._unfit[worker] = str(found)
            turn.tries -= 1
            self._waiting.appendleft(turn)
            return None
        turn.failed_on.add(worker)
        if found is None:
            turn.losses += 1
            # What the lost worker may have written already is not computed again.
            turn.job = turn.job.unless_finished()
        if self._again(turn, found):
            # At the end: a slide that takes its worker down should not take it from the others.
            self._waiting.append(turn)
            return None
        error = found if found is not None else _lost(turn, worker)
        return SlideOutcome.failure(turn.job.path, error, worker, turn.tries)

    def _again(self, turn: _Turn, error: Exception | None) -> bool:
        if turn.tries > self._retries:
            return False
        if isinstance(error, SlideError | ModelError):
            # The files say no, and will say it again: one other worker is asked, in case the first one's
            # view of them was stale or its memory bad.
            others = self._cluster.workers() - self._unfit.keys() - turn.failed_on
            return turn.tries == 1 and bool(others)
        return True

    def _wait_for_workers(self) -> None:
        """Wait a little where there is no worker, but not for ever.

        Raises
        ------
        ClusterLost
        """
        if self._idle_since is None or time.monotonic() - self._idle_since < PATIENCE_S:
            time.sleep(_POLL_S)
            return
        last = next(reversed(self._unfit.items()), None)
        why = "" if last is None else f" The worker at {last[0]} {last[1].rstrip('.')}."
        raise ClusterLost(
            f"There is no worker for the {len(self._waiting):,} slides that are left: start workers for the "
            f"scheduler at {self._cluster.address}. What is finished is kept.{why}"
        )

    def _under_way(self) -> str:
        names = [turn.job.path.name for turn, _ in self._running.values()]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more if names else "waiting for a worker"


def _may(turn: _Turn, worker: str, fit: frozenset[str]) -> bool:
    """Whether a worker may have a slide: not one that it failed, unless every other failed it too."""
    return worker not in turn.failed_on or fit <= turn.failed_on


def _lost(turn: _Turn, worker: str) -> JobFailed:
    times = "" if turn.losses == 1 else f", and {turn.losses - 1} before it"
    return JobFailed(
        f"The worker at {worker} was lost while it worked on {turn.job.path.name}{times}: it was stopped, "
        f"crashed or ran out of memory, which its log tells. Run this slide by itself."
    )
