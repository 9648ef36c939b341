"""Trainings in processes of their own: started, stopped, ended, and remembered between sessions of napari."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Literal, TypeAlias

from napari_her2.errors import JobFailed
from napari_her2.outside import Reading
from napari_her2.own_files import private_folder, read_own, write_own
from napari_her2.training_runs.files import RUN_FILE, STOP_FILE
from napari_her2.training_runs.log import ProcessRecord, State, read_process
from napari_her2.training_runs.outcome import read_outcome

TRAIN_LOG, OUTCOME_FILE = "train.log", "outcome.json"
STATE_VARIABLE = "NAPARI_HER2_TRAININGS"

PACKAGE = "napari_her2_training"
_EXTRA = (PACKAGE, "lightning", "sklearn", "matplotlib", "jinja2")
_FORMAT = 1
_MOST_KNOWN = 20
_KNOWN = Reading(limit=256 * 1024)
_END_BYTES = 8 * 1024
_OUTCOME = Reading(limit=256 * 1024)

RunState: TypeAlias = State | Literal["starting", "absent"]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is to be trained, and where.

    Parameters
    ----------
    method : str
    config : str
        Name of a configuration that comes with the package, or the path of a file.
    data : str
        Path of the manifest.
    out : str
        Path of the folder of the run.
    device : str
    encoder : str
        In place of that of the configuration; empty leaves it.
    weights : str
        Of that encoder: "installed", or the path of a file.
    case_slides, case_rule : str
        How several slides of a case give one answer, in place of what the configuration says.
    """

    method: str
    config: str
    data: str
    out: str
    device: str = "auto"
    encoder: str = ""
    weights: str = ""
    case_slides: str = ""
    case_rule: str = ""

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.out)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands.

    Parameters
    ----------
    state : str
        "starting", "running", "finished", "stopped", "failed", "lost" (it died without a word), or "absent"
        (its folder is gone, or tells nothing).
    message : str
        A sentence for a person; empty where the state says it all.
    record : ProcessRecord or None
    """

    state: RunState
    message: str = ""
    record: ProcessRecord | None = None

    @property
    def is_live(self) -> bool:
        """Whether a process works on it."""
        return self.state in ("starting", "running")


@dataclass(frozen=True, slots=True, eq=False)
class _Child:
    process: subprocess.Popen[bytes]
    started: float
    log_offset: int


# Of this session of napari: they tell how a process ended that never came to tell of itself. Kept until
# napari ends, since a training outlives the dock that started it.
_CHILDREN: dict[Path, _Child] = {}
# Processes that told their end and were replaced by those that resume: they take a moment to leave.
_LEAVING: list[subprocess.Popen[bytes]] = []
# When the processes began that the user ended from here: they had no time to say so themselves.
_ENDED: dict[Path, float] = {}


def missing_extra() -> str:
    """Say what to install before anything can be trained; empty where all is there."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if not missing:
        return ""
    return (
        f"Training needs packages that are not installed ({', '.join(missing)}): install napari-her2 with "
        'its training extra, pip install "napari-her2[training]", and start again.'
    )


def train_command(request: RunRequest, *more: str) -> list[str]:
    """Return the command that trains, with further options."""
    command = [sys.executable, "-m", "napari_her2", "train", request.method, "--data", request.data]
    command += ["--out", request.out, "--device", request.device]
    for option, value in (
        ("config", request.config),
        ("encoder", request.encoder),
        ("weights", request.weights),
        ("case-slides", request.case_slides),
        ("case-rule", request.case_rule),
    ):
        command += [f"--{option}", value] if value else []
    return [*command, *more]


def holds_run(out: Path) -> bool:
    """Whether a training has begun in a folder: it can be resumed, and no other can begin there."""
    return (out / RUN_FILE).exists()


def start_training(request: RunRequest, *, resume: bool = False) -> None:
    """Start a training in a process of its own, which lives on when napari ends, and remember it.

    Parameters
    ----------
    request : RunRequest
    resume : bool
        Go on with what is in its folder.

    Raises
    ------
    JobFailed
        If a training runs there already, or the process cannot be started.
    """
    out = request.folder
    if status_of(out).is_live:
        raise JobFailed(f"A training is running in {out} already.")
    if not resume and holds_run(out):
        raise JobFailed(f"{out} holds a training already: resume it, or choose another folder.")
    started = time.time()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / STOP_FILE).unlink(missing_ok=True)
        command = train_command(request, "--json", *(["--resume"] if resume else []))
        with (out / TRAIN_LOG).open("ab") as log, (out / OUTCOME_FILE).open("wb") as outcome:
            offset = log.tell()
            process = _detached(command, outcome, log)
    except OSError as error:
        raise JobFailed(
            f"The training could not be started in {out} ({error.strerror or error}): choose a folder that "
            "may be written to."
        ) from error
    before, _CHILDREN[out] = _CHILDREN.get(out), _Child(process, started, offset)
    if before is not None:
        _LEAVING.append(before.process)
    remember(request)


def _detached(command: list[str], output: IO[bytes], log: IO[bytes]) -> subprocess.Popen[bytes]:
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=log,
        start_new_session=sys.platform != "win32",
        creationflags=flags,
    )


def status_of(out: Path) -> RunStatus:
    """Tell how the run in a folder stands, from what its process tells and whether it lives."""
    _LEAVING[:] = [process for process in _LEAVING if process.poll() is None]
    record, child = read_process(out), _CHILDREN.get(out)
    if child is not None:
        code = child.process.poll()
        if record is None or record.started < child.started:  # it has not told of itself yet
            if code is None:
                return RunStatus("starting", record=record)
            if _ENDED.get(out) == child.started:
                return RunStatus("stopped", "It was stopped before it began.", record)
            words = _why_not_begun(out, child.log_offset)
            return RunStatus("failed", words or f"It ended at once, with the code {code}.", record)
    if record is not None:
        message = record.message
        if record.state == "lost" and _ENDED.get(out) == record.started:
            return RunStatus("stopped", "It was ended, and can be resumed from its last epoch.", record)
        if record.state == "lost":
            message = (
                "It ended unexpectedly: its process was ended, memory ran out, or the computer was switched "
                "off. Resume it to go on."
            )
        return RunStatus(record.state, message, record)
    words = _why_not_begun(out, 0)
    if words:
        return RunStatus("failed", words)
    reason = "It has not begun." if out.is_dir() else "Its folder is gone, or its drive is not connected."
    return RunStatus("absent", reason)


def request_stop(out: Path) -> None:
    """Ask a training to end after its batch; it can be resumed. One that only starts is ended at once.

    Raises
    ------
    JobFailed
        If its folder cannot be written to.
    """
    if status_of(out).state == "starting":  # it takes old wishes to stop away before it begins
        end_now(out)
        return
    try:
        (out / STOP_FILE).touch()
    except OSError as error:
        raise JobFailed(
            f"The training in {out} could not be asked to stop ({error.strerror or error})."
        ) from error


def end_now(out: Path) -> None:
    """End the process of a training at once; it can be resumed from its last finished epoch.

    Raises
    ------
    JobFailed
        If it runs on another computer, or may not be ended.
    """
    status, child = status_of(out), _CHILDREN.get(out)
    record = status.record
    if not status.is_live:
        return
    if status.state == "starting" and child is not None:
        _ENDED[out] = child.started
        child.process.kill()
        return
    if record is None or record.pid <= 1:
        return
    if record.host != platform.node():
        raise JobFailed(f"This training runs on the computer {record.host}: end it there.")
    _ENDED[out] = record.started
    try:
        _kill(record.pid)
    except ProcessLookupError:
        return
    except OSError as error:
        raise JobFailed(f"The training could not be ended ({error.strerror or error}).") from error
    finally:
        with contextlib.suppress(OSError):
            (out / STOP_FILE).unlink(missing_ok=True)


def _kill(pid: int) -> None:
    if sys.platform == "win32":
        os.kill(pid, signal.SIGTERM)  # which ends a process at once there
    elif os.getpgid(pid) == pid:
        os.killpg(pid, signal.SIGKILL)  # with the processes of its other devices
    else:
        os.kill(pid, signal.SIGKILL)


def state_file() -> Path:
    """File of the known runs: the environment variable, else in the state folder of the user."""
    import platformdirs

    chosen = os.environ.get(STATE_VARIABLE)
    base = platformdirs.user_state_path("napari-her2", appauthor=False) / "trainings.json"
    return Path(chosen) if chosen else base


def known_runs() -> tuple[RunRequest, ...]:
    """Return the runs that were started or opened on this computer, the latest first."""
    path = state_file()
    try:
        content = _KNOWN.parsed_json(read_own(path, _KNOWN.limit).decode(), path)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            return ()
        names = [field.name for field in fields(RunRequest)]
        # What came later may be missing in a list of an older version.
        defaults = dict.fromkeys(("encoder", "weights", "case_slides", "case_rule"), "")
        return tuple(
            RunRequest(**{name: str((defaults | run)[name]) for name in names}) for run in content["runs"]
        )
    # The list is a convenience: a damaged file must not keep the dock from opening.
    except (OSError, JobFailed, ValueError, TypeError, KeyError):
        return ()


def remember(request: RunRequest) -> None:
    """Keep a run, as the latest of the known ones."""
    others = [run for run in known_runs() if run.out != request.out]
    _keep([request, *others][:_MOST_KNOWN])


def forget(out: Path) -> None:
    """Take a run off the list; its folder stays as it is."""
    _keep([run for run in known_runs() if run.folder != out])


def _keep(runs: list[RunRequest]) -> None:
    kept = {"format": _FORMAT, "runs": [asdict(run) for run in runs]}
    # A training goes on whether or not it can be remembered.
    path = state_file()
    with contextlib.suppress(OSError):
        private_folder(path.parent)
        write_own(path, json.dumps(kept, indent=1, ensure_ascii=False).encode())


def run_in(out: Path) -> RunRequest:
    """Return the run that is in a folder, as its process tells of it.

    Raises
    ------
    JobFailed
        If no training has told of itself there.
    """
    record = read_process(out)
    if record is None:
        raise JobFailed(f"There is no training in {out}: choose the output folder of one.")
    return RunRequest(
        record.method,
        record.config,
        record.data,
        str(out),
        record.device,
        record.encoder,
        record.weights,
        record.case_slides,
        record.case_rule,
    )


def last_line(text: str) -> str:
    """Return the last line of what a command printed: Python's own word where it died without an outcome."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _why_not_begun(out: Path, offset: int) -> str:
    """Tell why a process ended that never came to tell of itself; empty where nothing tells it."""
    with contextlib.suppress(JobFailed, UnicodeDecodeError):
        outcome = read_outcome(_OUTCOME.raw(out / OUTCOME_FILE).decode())
        if outcome is not None:
            return outcome.message
    try:
        with (out / TRAIN_LOG).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(offset, size - _END_BYTES))
            return last_line(file.read().decode(errors="replace"))
    except OSError:
        return ""
