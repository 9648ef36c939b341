from __future__ import annotations

import threading
import weakref
from functools import partial
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from qtpy.QtCore import QThreadPool

from napari_her2._qt.parts import jobs as jobs_module
from napari_her2._qt.parts.jobs import Failure, Job, stop_all
from napari_her2.cohort.day_run import DayProgress
from napari_her2.errors import SlideError
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from pytestqt.qtbot import QtBot


@pytest.fixture
def job(qtbot: QtBot) -> Generator[Job, None, None]:
    job = Job()
    yield job
    assert job.shutdown()


def test_progress_and_result_arrive_in_the_main_thread(qtbot: QtBot, job: Job) -> None:
    threads, seen = [], []
    job.progressed.connect(lambda progress: (seen.append(progress), threads.append(threading.get_ident())))

    def steps() -> Generator[Progress, None, int]:
        threads.append(threading.get_ident())
        yield Progress("One", 1, 2)
        yield Progress("Two", 2, 2)
        return 42

    with qtbot.waitSignal(job.returned) as done:
        job.start(steps)
    assert done.args == [42]
    assert [progress.stage for progress in seen] == ["One", "Two"]
    worker, *main = threads
    assert set(main) == {threading.get_ident()}
    assert worker != threading.get_ident()
    assert not job.running


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory\nmore"), ValueError("wrong"), MemoryError(), StopIteration()]
)
def test_every_unforeseen_error_is_told_with_details(qtbot: QtBot, job: Job, error: Exception) -> None:
    closed = threading.Event()

    def steps() -> Generator[Progress, None, None]:
        try:
            yield Progress("Working")
            raise error
        finally:
            closed.set()

    with qtbot.waitSignal(job.failed) as failed:
        job.start(steps)
    (failure,) = failed.args
    assert "\n" not in failure.message
    assert "Traceback" in failure.details
    assert closed.is_set()
    assert not job.running


def test_a_runtime_error_says_what_it_was(qtbot: QtBot, job: Job) -> None:
    def steps() -> Generator[Progress, None, None]:
        yield Progress("Working")
        raise RuntimeError("CUDA out of memory")

    with qtbot.waitSignal(job.failed) as failed:
        job.start(steps)
    assert "CUDA out of memory" in failed.args[0].message


def test_an_error_of_our_own_is_shown_as_it_is(qtbot: QtBot, job: Job) -> None:
    def steps() -> Generator[Progress, None, None]:
        yield Progress("Working")
        raise SlideError("The slide says no µm/px; give it.")

    with qtbot.waitSignal(job.failed) as failed:
        job.start(steps)
    assert failed.args == [Failure("The slide says no µm/px; give it.", kind=SlideError)]


def test_an_error_before_the_first_step_is_told(qtbot: QtBot, job: Job) -> None:
    def steps() -> Generator[Progress, None, None]:
        raise RuntimeError("at once")

    with qtbot.waitSignal(job.failed) as failed:
        job.start(steps)
    assert "at once" in failed.args[0].message


def endless(started: threading.Event, closed: list[int]) -> Generator[Progress, None, None]:
    try:
        for done in range(10**9):
            started.set()
            yield Progress("Working", done)
    finally:
        closed.append(threading.get_ident())


def test_cancel_closes_the_generator_in_its_thread(qtbot: QtBot, job: Job) -> None:
    started, closed = threading.Event(), []
    with qtbot.waitSignal(job.cancelled):
        job.start(lambda: endless(started, closed))
        assert started.wait(300)
        job.cancel()
    assert len(closed) == 1
    assert closed[0] != threading.get_ident()
    assert not job.running


def test_what_the_generator_holds_is_let_go(qtbot: QtBot, job: Job) -> None:
    class Memory:
        pass

    refs = []

    def steps() -> Generator[Progress, None, None]:
        memory = Memory()
        refs.append(weakref.ref(memory))
        yield Progress("Working")
        yield Progress("Done")

    with qtbot.waitSignal(job.returned):
        job.start(steps)
    assert refs[0]() is None


def test_only_the_latest_start_reports(qtbot: QtBot, job: Job) -> None:
    returned, release, started = [], threading.Event(), threading.Event()
    job.returned.connect(returned.append)

    def slow() -> Generator[Progress, None, str]:
        yield Progress("Old")
        started.set()
        release.wait(300)
        return "old"

    def quick() -> Generator[Progress, None, str]:
        yield Progress("New")
        return "new"

    job.start(slow)
    assert started.wait(300)
    with qtbot.waitSignal(job.returned):
        job.start(quick)
    release.set()
    qtbot.wait(50)
    assert returned == ["new"]


def test_shutdown_waits_until_the_generator_is_closed(qtbot: QtBot) -> None:
    job = Job()
    reports = []
    job.cancelled.connect(lambda: reports.append("cancelled"))
    started, closed = threading.Event(), []
    job.start(lambda: endless(started, closed))
    qtbot.waitUntil(started.is_set)
    assert job.shutdown(300)
    assert closed
    qtbot.wait(20)
    assert reports == []


def test_shutdown_does_not_hang_on_a_step_that_takes_long(qtbot: QtBot) -> None:
    job = Job()
    started, release = threading.Event(), threading.Event()

    def steps() -> Generator[Progress, None, None]:
        started.set()
        release.wait(300)
        yield Progress("Late")

    job.start(steps)
    qtbot.waitUntil(started.is_set)
    assert not job.shutdown(0.01)
    release.set()


def held(started: threading.Event, release: threading.Event) -> Generator[Progress, None, str]:
    started.set()
    assert release.wait(60)
    yield Progress("Held")
    return "held"


def test_long_jobs_keep_no_quick_one_waiting(qtbot: QtBot, job: Job) -> None:
    """As on a machine of two cores, whose common pool has two threads."""
    pool = QThreadPool.globalInstance()
    cores = pool.maxThreadCount()
    pool.setMaxThreadCount(2)
    release = threading.Event()
    long = [Job(), Job(), Job()]
    try:
        for one in long:
            started = threading.Event()
            one.start(partial(held, started, release))
            assert started.wait(60)

        def quick() -> Generator[Progress, None, str]:
            yield Progress("Reading")
            return "tile"

        with qtbot.waitSignal(job.returned, timeout=60_000) as answer:
            job.start(quick)
        assert answer.args == ["tile"]
        assert [one.running for one in long] == [True] * 3
    finally:
        pool.setMaxThreadCount(cores)
        release.set()
    assert stop_all(long, 60)


def test_jobs_are_shut_down_together(qtbot: QtBot) -> None:
    """The first can end only once the second was asked to: one after the other would take all the time."""
    first, second = Job(), Job()
    started, closed = threading.Event(), threading.Event()

    def waits() -> Generator[Progress, None, None]:
        yield Progress("Waiting")
        started.set()
        closed.wait(60)
        yield Progress("Waited")

    def ends() -> Generator[Progress, None, None]:
        try:
            while True:
                yield Progress("Working")
        finally:
            closed.set()

    first.start(waits)
    second.start(ends)
    assert started.wait(60)
    assert stop_all((first, second), 30)


def test_a_thread_that_ends_after_its_job_is_gone_speaks_to_nobody(qtbot: QtBot) -> None:
    job = Job()
    started, release = threading.Event(), threading.Event()
    job.start(partial(held, started, release))
    assert started.wait(60)
    (thread,) = [one for one in threading.enumerate() if one.name.startswith("napari-her2 job")]
    assert not job.shutdown(0)
    del job
    release.set()
    thread.join(60)
    assert not thread.is_alive()
    qtbot.wait(20)  # what it posted is handed out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exit_in_a_thread_is_no_job_that_runs_for_ever(qtbot: QtBot, job: Job) -> None:
    def steps() -> Generator[Progress, None, None]:
        yield Progress("Working")
        threads.append(threading.current_thread())
        raise SystemExit

    threads: list[threading.Thread] = []
    with qtbot.waitSignal(job.cancelled, timeout=60_000):
        job.start(steps)
    assert not job.running
    threads[0].join(60)  # its exit is heard within this test, which expects it
    assert not threads[0].is_alive()


def test_a_flood_of_progress_is_thinned_out_to_its_last(qtbot: QtBot, job: Job) -> None:
    seen, times = [], []
    job.progressed.connect(lambda progress: (seen.append(progress.done), times.append(monotonic())))

    def steps() -> Generator[Progress, None, None]:
        until = monotonic() + 0.35
        for done in range(20_000):
            yield Progress("Working", done, 20_000)
        while monotonic() < until:
            yield Progress("Working", 20_000, 20_000)

    with qtbot.waitSignal(job.returned):
        job.start(steps)
    assert seen[-1] == 20_000
    assert len(seen) >= 2
    # The last one does not wait for its turn.
    gaps = [after - before for before, after in pairwise(times[:-1])]
    assert all(gap > 0.99 * jobs_module.SECONDS_BETWEEN_REPORTS for gap in gaps)


def test_a_job_shows_ten_reports_a_second_by_the_clock(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen, ends = [0.0], [], []
    monkeypatch.setattr(jobs_module, "monotonic", lambda: now[0])
    job.progressed.connect(lambda progress: seen.append((now[0], progress.done)))
    job.returned.connect(lambda value: ends.append((value, len(seen))))
    run = job._run = jobs_module._Run(7)
    job._number = 7
    for k in range(96):  # one each 1/64 s, which floats hold exactly
        now[0] = k / 64
        if run.reports.put(Progress("Working", k, 96)):
            job.receive(7, None)
        else:
            job._show_when_due()  # as the timer does
    assert [done for _, done in seen] == list(range(0, 96, 7))  # 7/64 s is the first time after 0.1 s
    job.receive(7, jobs_module._Outcome("returned", "all"))
    assert seen[-1] == (95 / 64, 95)
    assert ends == [("all", len(seen))]


def test_of_each_stage_the_newest_report_is_shown_and_what_lasts_is_never_dropped() -> None:
    waiting = jobs_module._Reports()
    lasting = DayProgress("Embedding", 3, warning="The disk is full.")
    given = [
        Progress("Reading", 1),
        Progress("Reading", 2),
        Progress("Embedding", 1),
        Progress("Embedding", 2),
        lasting,
        Progress("Embedding", 4),
        Progress("Embedding", 5),
    ]
    assert [waiting.put(progress) for progress in given] == [True] + [False] * 6
    assert waiting.take() == [given[1], lasting, given[6]]
    assert waiting.take() == []
    assert waiting.put(given[0])


def test_what_is_reported_before_a_long_step_is_shown_while_it_lasts(qtbot: QtBot, job: Job) -> None:
    seen, release = [], threading.Event()
    job.progressed.connect(lambda progress: seen.append(progress.done))

    def steps() -> Generator[Progress, None, None]:
        for done in range(1, 6):
            yield Progress("Working", done, 5)
        assert release.wait(60)

    job.start(steps)
    qtbot.waitUntil(lambda: bool(seen) and seen[-1] == 5)
    assert job.running
    release.set()
    qtbot.waitUntil(lambda: not job.running)


def test_after_a_cancel_nothing_more_is_shown(job: Job) -> None:
    seen = []
    job.progressed.connect(seen.append)
    run = job._run = jobs_module._Run(3)
    job._number = 3
    assert run.reports.put(Progress("Working", 1))
    job.cancel()
    job.receive(3, None)
    job.receive(3, jobs_module._Outcome("cancelled"))
    assert seen == []
