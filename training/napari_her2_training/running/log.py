"""What a training tells of itself while it runs, for whoever looks at its folder from outside.

``OUT/progress.jsonl`` gets a line for each report: a JSON object with time (seconds since 1970) and the
fields of `Progress`. Reports are thinned to about one a second, those of a finished epoch never. A line
``{"started": ..., "resume": ...}`` opens each start; one that does not resume makes all lines before it
history. The file is only appended to, and its last line may be half written.

``OUT/process.json`` says which process trains what, and how it ended: "running", "finished" (with the
model), "stopped" or "failed" (with the reason). ``OUT/run.lock`` is locked as long as that process lives. The
operating system gives the lock back however the process ends, so that a state "running" without a lock means
that it was killed; a process number alone would be fooled by the next process of that number.

``OUT/stop``, a file that anyone may make, ends the training after its batch; it can be resumed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_her2 import __version__
from napari_her2.errors import Her2Error, JobFailed, JobStopped
from napari_her2.inference.locks import FileLock
from napari_her2.steps import passed_on
from napari_her2.training_runs.files import LOCK_FILE, PROCESS_FILE, PROGRESS_FILE, STOP_FILE
from napari_her2_training.files import write_json

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2.steps import Progress

_SECONDS_BETWEEN_LINES = 1.0
_SECONDS_BETWEEN_LOOKS = 0.2  # for the stop file: on a network drive each look costs milliseconds
_SECONDS_FOR_THE_LOCK = 2.0  # who looks at the run holds it for a moment
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Started:
    """What a training was started with.

    Parameters
    ----------
    method : str
    config, data : Path
        Configuration and manifest.
    device : str
        As it was asked for.
    resume : bool
        Whether it goes on with what is in its folder.
    encoder, weights, case_slides, case_rule : str
        In place of those of the configuration.
    """

    method: str
    config: Path
    data: Path
    device: str = "auto"
    resume: bool = False
    encoder: str = ""
    weights: str = ""
    case_slides: str = ""
    case_rule: str = ""


def logged(
    steps: Generator[Progress, None, Path], out: Path, started: Started
) -> Generator[Progress, None, Path]:
    """Run a training and tell of it in its folder; end it where a file ``stop`` asks for that.

    Parameters
    ----------
    steps : generator of Progress
        The training.
    out : Path
        Its folder; made when absent.
    started : Started

    Yields
    ------
    Progress
        As the training does.

    Returns
    -------
    Path
        What the training returns.

    Raises
    ------
    JobStopped
        If it was asked to stop; it can be resumed.
    JobFailed
        If the folder cannot be used, or another process trains in it.
    """
    with RunLog(out, started) as log:
        try:
            # Which closes it before the end is told: its threads write to the folder until then.
            bundle = yield from passed_on(steps, log.take)
        except (GeneratorExit, KeyboardInterrupt, JobStopped):
            log.end("stopped", "It was stopped, and can be resumed.")
            raise
        except Her2Error as error:
            log.end("failed", str(error))
            raise
        except BaseException as error:
            log.end("failed", _in_words(error))
            raise
        log.end("finished", bundle=bundle)
        return bundle


class RunLog:
    """The files that tell of a training; a context that holds the lock of its folder."""

    def __init__(self, out: Path, started: Started) -> None:
        self.out = out
        self._started = started
        self._began = 0.0
        self._lock = FileLock(out / LOCK_FILE)
        self._written, self._looked = -math.inf, -math.inf
        self._stage: str | None = None

    def __enter__(self) -> RunLog:
        """Take the folder, and tell that the training runs."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            taken = self._take_lock()
        except OSError as error:
            raise _unusable(self.out, error) from error
        if not taken:
            raise JobFailed(
                f"A training is running in {self.out}: stop it or wait for its end, or choose another folder."
            )
        try:
            (self.out / STOP_FILE).unlink(missing_ok=True)
            self._began = time.time()
            self._append(f'{{"started": {self._began:.3f}, "resume": {json.dumps(self._started.resume)}}}')
            self._write_state("running", "", None)
        except OSError as error:
            self._lock.release()
            raise _unusable(self.out, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Give the folder back."""
        self._lock.release()

    def take(self, progress: Progress) -> Progress:
        """Write a report and pass it on.

        Raises
        ------
        JobStopped
            If somebody asked for the end.
        """
        self._write(progress)
        if self.stop_wanted():
            raise JobStopped("The training was stopped as asked; it can be resumed.")
        return progress

    def _write(self, progress: Progress) -> None:
        """Write a report, unless one of the same stage was written just now."""
        now = time.monotonic()
        last = progress.total > 0 and progress.done >= progress.total
        fresh = progress.title != self._stage or progress.values or last
        if not fresh and now - self._written < _SECONDS_BETWEEN_LINES:
            return
        self._written, self._stage = now, progress.title
        # JSON knows no NaN: a measure that could not be taken is left out.
        values = {name: value for name, value in progress.values.items() if math.isfinite(value)}
        line = {"time": round(time.time(), 3), **asdict(progress), "values": values}
        # Whoever looks on misses a line; a training is not given up for that.
        with contextlib.suppress(OSError):
            self._append(json.dumps(line, ensure_ascii=False))

    def stop_wanted(self) -> bool:
        """Whether somebody asked for the end; asked once, it is not asked any more."""
        now = time.monotonic()
        if now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return False
        self._looked = now
        try:
            (self.out / STOP_FILE).unlink()
        except OSError:
            return False
        return True

    def end(self, state: str, message: str = "", bundle: Path | None = None) -> None:
        """Tell how the training ended."""
        with contextlib.suppress(OSError):
            self._write_state(state, message, bundle)

    def _write_state(self, state: str, message: str, bundle: Path | None) -> None:
        record: dict[str, Any] = {
            "format": _FORMAT,
            "pid": os.getpid(),
            "host": platform.node(),
            "version": __version__,
            "started": self._began,
            "method": self._started.method,
            "config": str(self._started.config.resolve()),
            "data": str(self._started.data.resolve()),
            "device": self._started.device,
            "encoder": self._started.encoder,
            "weights": self._started.weights,
            "state": state,
            "message": message,
            "bundle": None if bundle is None else str(bundle.resolve()),
            "ended": None if state == "running" else time.time(),
        }
        write_json(self.out / PROCESS_FILE, record)

    def _append(self, line: str) -> None:
        with (self.out / PROGRESS_FILE).open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a process before this one was killed while it wrote
                    line = f"\n{line}"
            file.write(f"{line}\n".encode())

    def _take_lock(self) -> bool:
        until = time.monotonic() + _SECONDS_FOR_THE_LOCK
        while not self._lock.acquire():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True


def _in_words(error: BaseException) -> str:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"It ended because of an error that was not foreseen: {first_line} ({type(error).__name__})."


def _unusable(out: Path, error: OSError) -> JobFailed:
    return JobFailed(
        f"{out} cannot be used ({error.strerror or error}): choose a folder that may be written to."
    )
