"""The door to a dask cluster: find its scheduler, check its workers, hand them slides."""

from __future__ import annotations

import asyncio
import importlib.metadata
import secrets
import threading
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.answer import read_answer
from napari_her2.cohort.knock import answering, listening
from napari_her2.cohort.loop import running_loop
from napari_her2.cohort.tls import open_to_the_network, security_of
from napari_her2.cohort.worker import Needs, other_version, prepare_aside, run_job
from napari_her2.errors import ClusterLost, Her2Error, JobFailed
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from concurrent.futures import Future
    from contextlib import ExitStack
    from pathlib import Path

    from distributed import Client
    from distributed import Future as Task

    from napari_her2.cohort.jobs import SlideJob, Source
    from napari_her2.cohort.outcome import CohortProgress, SlideOutcome
    from napari_her2.cohort.tls import TlsFiles

CONNECT_S = 60.0
"""A scheduler that is there answers within milliseconds, on a busy machine within seconds."""
_GATHER_S = 60.0
"""A worker that is done with a slide, and neither gives its answer nor is gone, counts as lost."""
_MOST_WORDS = 2000
_NAME = "napari-her2"
_UNINSTALLED = "0+unknown"


class Cluster:
    """A running dask scheduler with its workers.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    address : str
        As it was given, for messages.
    """

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self.address = address
        self._news = threading.Event()
        self._asked: dict[Future[str], tuple[SlideJob[Any], Task[str]]] = {}

    def warning(self) -> str:
        """Warn where others can reach the cluster without TLS; empty where they cannot."""
        own = self._client.scheduler_info().get("address")
        found = (self._client.scheduler.address, *([own] if isinstance(own, str) else []), *self.workers())
        return open_to_the_network(found)

    def workers(self) -> frozenset[str]:
        """Addresses of the workers that are there now.

        Raises
        ------
        ClusterLost
            If the scheduler is gone.
        """
        try:
            if self._client.status == "running":
                return frozenset(self._client.nthreads())
        except (OSError, TimeoutError, CancelledError):
            pass
        raise ClusterLost(
            f"The dask scheduler at {self.address} is gone: start it again; what is finished is kept."
        )

    def admit(self, needs: Needs) -> None:
        """Let every worker check what it needs, and load the model.

        Raises
        ------
        JobFailed
            If a worker lacks something, with its address.
        """
        # Of the standard library: a worker of any version, or without napari-her2, can answer.
        versions = self._client.run(importlib.metadata.version, _NAME, on_error="return")
        for address, found in versions.items():
            if isinstance(found, str) and found != needs.version:
                raise _unfit(address, other_version(found, needs.version))
            if isinstance(found, importlib.metadata.PackageNotFoundError) and needs.version != _UNINSTALLED:
                raise _unfit(address, "has no napari-her2: install the same version on every machine")
        for address, problem in self._client.run(prepare_aside, needs, on_error="return").items():
            # Whoever was lost meanwhile is given nothing, and needs no words.
            if type(problem) is str:
                if problem:
                    raise _unfit(address, problem[:_MOST_WORDS])
            elif not isinstance(problem, OSError | TimeoutError):
                raise _unfit(address, f"cannot start: {problem}"[:_MOST_WORDS])

    def submit(self, job: SlideJob[Any], needs: Needs, worker: str) -> Future[str]:
        """Hand a slide to a worker, and to no other; done when its answer is here."""
        task = self._client.submit(
            run_job,
            job,
            needs,
            workers=[worker],
            allow_other_workers=False,
            pure=False,
            key=f"{_NAME}-{secrets.token_hex(8)}",
        )
        room: asyncio.AbstractEventLoop = self._client.loop.asyncio_loop
        answer = asyncio.run_coroutine_threadsafe(self._answer(task), room)
        answer.add_done_callback(lambda _: self._news.set())
        self._asked[answer] = job, task
        return answer

    async def _answer(self, task: Task[str]) -> str:
        """Fetch the answer of a task, in the loop: one that went with its worker holds up no other."""
        room, done = asyncio.get_running_loop(), asyncio.Event()
        task.add_done_callback(lambda _: room.call_soon_threadsafe(done.set))
        await done.wait()
        answer: str = await asyncio.wait_for(self._client.gather(task, asynchronous=True), _GATHER_S)
        return answer

    def wait(self, seconds: float) -> None:
        """Return when a slide is done, or the time is over."""
        self._news.wait(seconds)
        # Before anybody looks: what is done from here on is news for the next time.
        self._news.clear()

    def result(self, answer: Future[str]) -> SlideOutcome | Her2Error | None:
        """Return the outcome of a slide that is done, the error it ended with, or None if it is lost."""
        from distributed import KilledWorker

        job, task = self._asked.pop(answer)
        try:
            return read_answer(answer.result(), job)
        except (CancelledError, KilledWorker):
            return None
        except Exception as error:  # noqa: BLE001 - whatever dask says of a slide costs that slide
            if task.status != "error":
                return None
            # Tasks of ours raise nothing: dask itself failed, to load one for example.
            text = f"{type(error).__name__}: {error}"[:_MOST_WORDS]
            return JobFailed(f"dask could not run the slide ({text}): see the log of the worker.")

    def cancel(self, answers: Sequence[Future[str]]) -> None:
        """Take slides back; workers stop at the next batch of tiles, and answers end as cancelled."""
        tasks = [self._asked.pop(answer)[1] for answer in answers if answer in self._asked]
        if self._client.status == "running" and tasks:
            self._client.cancel(tasks)


def connect(address: str, tls: TlsFiles | None, until: ExitStack) -> Generator[CohortProgress, None, Cluster]:
    """Connect to a running scheduler.

    Parameters
    ----------
    address : str
        "tcp://host:8786" or "tls://host:8786", or the file that ``dask scheduler --scheduler-file`` wrote
        (.json).
    tls : TlsFiles or None
    until : ExitStack
        Ends the connection.

    Yields
    ------
    CohortProgress
        While the scheduler is waited for. Closing the generator gives up.

    Returns
    -------
    Cluster

    Raises
    ------
    JobFailed
        If dask.distributed is not installed, the certificates do not fit, nothing listens there, or nothing
        answers.
    """
    try:
        import distributed  # noqa: F401 - an extra, without which nothing here works
    except ImportError as error:
        raise JobFailed(
            f"Work on a cluster needs the package {error.name}: install napari-her2 with its cluster extra "
            f'(pip install "napari-her2[cluster]").'
        ) from error

    try:
        where = yield from listening(address)
        security = security_of(where, tls)
        loop = until.enter_context(running_loop(CONNECT_S))
        yield from answering(where, loop, security, CONNECT_S)
        # Not the default of this process: what else it computes with dask stays here.
        client = _client_class(until)(
            where, loop=loop, timeout=CONNECT_S, set_as_default=False, name=_NAME, security=security
        )
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise JobFailed(
            f"No dask scheduler answers at {address}: check the address (tcp://host:8786, or "
            f"tls://host:8786 and its certificates) and that the scheduler runs."
        ) from error
    return Cluster(client, address)


@contextmanager
def shared_needs(source: Source[Any], files: Sequence[Path], out: Path) -> Iterator[Needs]:
    """Say what workers need for a cohort, with a token in its folder as long as it is worked on.

    Parameters
    ----------
    source : Source
    files : sequence of Path
        That workers read; absolute.
    out : Path
        Absolute; made where it is absent.

    Yields
    ------
    Needs

    Raises
    ------
    JobFailed
        If the folder cannot be written.
    """
    # One of each folder stands for all; those that are absent here are told one by one.
    seen = {path.parent: path for path in files if path.exists()}
    word = secrets.token_hex(16)
    token = out / f".{_NAME}-{word[:8]}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        token.write_text(word, encoding="utf-8")
    except OSError as error:
        raise JobFailed(
            f"{out} cannot be written ({error.strerror or error}): choose another folder."
        ) from error
    try:
        yield Needs(source, tuple(seen.values()), out, token, word, __version__)
    finally:
        with suppress(OSError):
            token.unlink()


def _client_class(stack: ExitStack) -> type[Client]:
    from distributed import Client

    class Closed(Client):  # type: ignore[misc]  # distributed is not typed
        """Closed with the stack also where it could not connect: later its loop is gone."""

        def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
            stack.callback(self.close)
            super().__init__(*arguments, **options)

    return Closed


def _unfit(address: str, reason: str) -> JobFailed:
    return JobFailed(f"The worker at {address} {reason.rstrip('.')}.")
