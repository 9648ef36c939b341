"""Answers that come late, or go with their worker: a scheduler and two workers in this process."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - jobs travel

import pytest

from napari_her2.cohort import worker as worker_room
from napari_her2.cohort.cluster import connect, shared_needs
from napari_her2.cohort.dispatch import Dispatcher
from napari_her2.cohort.loop import running_loop
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.steps import finished
from sleeping_workers import Nothing

distributed = pytest.importorskip("distributed")
WAIT_S = 60.0


asked = threading.Event()
"""Whether the first worker was asked for an answer."""


class Late(distributed.Worker):
    """Gives its answers away when it may."""

    async def get_data(self, comm, **named):
        self.may = asyncio.Event()
        asked.set()
        await self.may.wait()
        return await super().get_data(comm, **named)


class Gone(distributed.Worker):
    """Closes when it is asked for an answer."""

    async def get_data(self, comm, **named):
        self.going = asyncio.create_task(self.close(executor_wait=False))
        asked.set()
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Slide:
    """Done at once on the first worker; on the other one not before that was asked for its answer."""

    path: Path
    out: Path
    files = ()

    def steps(self, _):
        # Answers that are there at the same time are asked for together.
        assert isinstance(distributed.get_worker(), Late | Gone) or asked.wait(WAIT_S)
        yield from ()
        return SlideOutcome(self.path, "done", self.path.name)

    def unless_finished(self):
        return self


@contextmanager
def dispatcher(out, kind, slides):
    """Who hands so many slides to a worker of a kind and a plain one; the first worker, and its loop."""

    async def start():
        asked.clear()
        scheduler = await distributed.Scheduler(host="127.0.0.1", dashboard=False, dashboard_address=":0")
        kinds = (kind, distributed.Worker)
        return scheduler, [
            await each(scheduler.address, nthreads=1, dashboard=False, local_directory=out) for each in kinds
        ]

    async def end(scheduler, workers):
        for worker in workers:
            await worker.close(executor_wait=False)
        await scheduler.close()

    jobs = [Slide(out / f"{number}.svs", out) for number in range(slides)]
    with running_loop(WAIT_S) as loop, ExitStack() as stack:
        room = loop.asyncio_loop
        scheduler, workers = asyncio.run_coroutine_threadsafe(start(), room).result(WAIT_S)
        try:
            with ExitStack() as until:
                cluster = finished(connect(scheduler.address, None, until))
                needs = stack.enter_context(shared_needs(Nothing(), (), out))
                yield Dispatcher(cluster, needs, jobs, retries=2), workers[0], room
        finally:
            asyncio.run_coroutine_threadsafe(end(scheduler, workers), room).result(WAIT_S)


@pytest.fixture(autouse=True)
def _side_by_side(monkeypatch):
    """Workers of one process would wait for each other."""
    monkeypatch.setattr(worker_room, "alone", lambda _: nullcontext())


def test_an_answer_that_comes_late_holds_up_no_other_slide(tmp_path):
    told = []
    with dispatcher(tmp_path, Late, slides=4) as (handing, late, room):
        for step in handing.steps("Sleeping"):
            told += [step.outcome] if step.outcome is not None else []
            if len(told) == 3:
                room.call_soon_threadsafe(late.may.set)
    assert [outcome.worker == late.address for outcome in told] == [False, False, False, True]
    assert [outcome.tries for outcome in told] == [1] * 4


def test_a_slide_whose_answer_went_with_its_worker_is_asked_of_another(tmp_path):
    with dispatcher(tmp_path, Gone, slides=3) as (handing, gone, _):
        outcomes = finished(handing.steps("Sleeping"))
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    assert sorted(outcome.tries for outcome in outcomes) == [1, 1, 2]
    assert gone.address not in {outcome.worker for outcome in outcomes}
