"""What runs on a worker of a dask cluster: one slide at a time, with a model that is loaded once.

Light to import: a worker imports it in the thread that answers the scheduler. A worker is a process with
a device of its own. Where it was given more threads than one, their slides wait for each other here, for
two slides on one device are slower than one after the other, and may be more than its memory holds.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - needs travel
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.answer import NotWanted, WorkerUnfit, answer_of
from napari_her2.errors import Her2Error, JobFailed
from napari_her2.steps import finished
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_her2.cohort.jobs import SlideJob, Source
    from napari_her2.cohort.outcome import SlideOutcome
    from napari_her2.steps import Progress

_LOOK_S = 0.5
"""How often a slide that waits for its turn looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a worker must have before it is given a slide of a cohort.

    Parameters
    ----------
    source : Source
        Of the model or the encoder.
    files : tuple of Path
        One of each folder with slides, to be seen.
    out : Path
        Folder for the results.
    token : Path
        File in it that whoever asks has just written: another disk of the same name does not hold it.
    word : str
        What the file says; new for each cohort.
    version : str
        Of napari-her2.
    """

    source: Source[Any]
    files: tuple[Path, ...]
    out: Path
    token: Path
    word: str
    version: str


_preparing = threading.Lock()
_computing = threading.Lock()
_admitted: set[str] = set()
_tools: dict[str, Any] = {}


def prepare(needs: Needs) -> Any:  # noqa: ANN401 - what the source loads
    """Check that this worker has what a cohort needs, and load the model, once.

    Parameters
    ----------
    needs : Needs

    Returns
    -------
    object
        What the source loads.

    Raises
    ------
    WorkerUnfit
        With what is missing.
    """
    with _preparing:
        if needs.word not in _admitted:
            _check(needs)
            _admitted.add(needs.word)
        if needs.source.identity not in _tools:
            _tools.clear()  # one model at a time: the memory of a device is small
            _tools[needs.source.identity] = _load(needs.source)
        return _tools[needs.source.identity]


async def prepare_aside(needs: Needs) -> str:
    """Do `prepare` in a thread, so that the worker answers its scheduler; return what is missing."""
    try:
        await asyncio.to_thread(prepare, needs)
    except WorkerUnfit as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - told to whoever asked, who could not load it
        return f"cannot start: {type(error).__name__}: {error}"
    return ""


def run_job(job: SlideJob[Any], needs: Needs) -> str:
    """Do the work on one slide, unless and until it is not wanted any more.

    Parameters
    ----------
    job : SlideJob
    needs : Needs

    Returns
    -------
    str
        As of `answer_of`; nothing is raised.
    """
    return answer_of(lambda: _outcome(job, needs))


def _outcome(job: SlideJob[Any], needs: Needs) -> SlideOutcome:
    wanted = _wanted_by_the_scheduler()

    def check(_: Progress) -> None:
        if not wanted():
            raise NotWanted("The slide was cancelled.")

    with alone(wanted):
        return finished(job.steps(prepare(needs)), check)


def _check(needs: Needs) -> None:
    from napari_her2.whole_files import check_writable

    if needs.version != __version__:
        raise WorkerUnfit(other_version(__version__, needs.version))
    unseen = next((path for path in needs.files if not path.exists()), None)
    if unseen is not None:
        raise WorkerUnfit(f"does not see {unseen}: {_SHARED}")
    try:
        shared = needs.token.read_text(encoding="utf-8") == needs.word
    except OSError:
        shared = False
    if not shared:
        raise WorkerUnfit(f"does not see the same folder {needs.out}: {_SHARED}")
    try:
        check_writable(needs.out)
    except JobFailed as error:
        raise WorkerUnfit(f"cannot write the results: {error}") from error


_SHARED = (
    "slides and results must lie on a file system that all workers share, under the same path on each machine"
)


def other_version(theirs: str, ours: str) -> str:
    """Say that a worker runs another version."""
    return (
        f"runs napari-her2 {theirs}, here it is {ours}: install the same version on every machine, then "
        f"start the workers again"
    )


def _load(source: Source[Any]) -> Any:  # noqa: ANN401
    try:
        return source.load()
    except (Her2Error, OSError) as error:
        raise WorkerUnfit(f"cannot load the model: {error}") from error


@contextmanager
def alone(wanted: Callable[[], bool]) -> Iterator[None]:
    """Wait until no other thread of this process computes, as long as the slide is wanted.

    Parameters
    ----------
    wanted : callable
        Whether it still is.

    Raises
    ------
    NotWanted
    """
    while not _computing.acquire(timeout=_LOOK_S):
        if not wanted():
            raise NotWanted("The slide was cancelled.")
    try:
        yield
    finally:
        _computing.release()


def _wanted_by_the_scheduler() -> Callable[[], bool]:
    """Return what tells whether the task of this thread is still wanted.

    Dask cannot stop a thread. But a task that its client has cancelled, or whose client is gone, is marked
    as such on the worker at once, and to look costs nothing.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    return wanted
