"""What a training tells of itself in its folder, read from outside: how it stands, and its curves.

The training package writes these files (its module ``run_log`` says how); nothing of it is imported here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from napari_her2.errors import JobFailed
from napari_her2.inference.locks import FileLock
from napari_her2.outside import Reading
from napari_her2.steps import Progress
from napari_her2.training_runs.files import LOCK_FILE, PROCESS_FILE, PROGRESS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PROCESS = Reading(limit=64 * 1024, nan=True)
_CHUNK_BYTES = 128 * 1024  # some ten milliseconds of parsing: a window stays fluent meanwhile

State: TypeAlias = Literal["running", "finished", "stopped", "failed", "lost"]
_TOLD: tuple[State, ...] = ("running", "finished", "stopped", "failed")


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """What ``process.json`` says, and whether it is still true.

    Parameters
    ----------
    state : str
        "running", "finished", "stopped", "failed"; "lost" where the process died without a word.
    message : str
        Why it ended, for a person.
    method : str
    config, data : str
        Paths.
    device : str
    pid : int
    host : str
        Name of the computer it runs on.
    started : float
        Seconds since 1970.
    ended : float or None
    bundle : Path or None
        The finished model.
    encoder, weights, case_slides, case_rule : str
        In place of those of the configuration; empty where it has its own.
    """

    state: State
    message: str
    method: str
    config: str
    data: str
    device: str
    pid: int
    host: str
    started: float
    ended: float | None = None
    bundle: Path | None = None
    encoder: str = ""
    weights: str = ""
    case_slides: str = ""
    case_rule: str = ""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A report of a training.

    Parameters
    ----------
    time : float
        Seconds since 1970.
    progress : Progress
    """

    time: float
    progress: Progress


@dataclass(frozen=True, slots=True)
class Curve:
    """One measure over the epochs of one stage.

    Parameters
    ----------
    name : str
        "train_loss", "validation_loss", "validation_macro_auc".
    points : tuple of (int, float)
        Epoch, counted from 1, and value; epochs rise.
    """

    name: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class StageCurves:
    """The curves of a stage: of one fold, or of one of several models.

    Parameters
    ----------
    stage : str
        The same for all folds.
    title : str
        Which one it is, for a person.
    curves : tuple of Curve
    """

    stage: str
    title: str
    curves: tuple[Curve, ...]

    def of_loss(self) -> tuple[Curve, ...]:
        """Losses: low is good."""
        return tuple(curve for curve in self.curves if curve.name.endswith("loss"))

    def of_measures(self) -> tuple[Curve, ...]:
        """All others: measures on the validation cases, high is good."""
        return tuple(curve for curve in self.curves if not curve.name.endswith("loss"))


def read_process(out: Path) -> ProcessRecord | None:
    """Read how the training in a folder stands.

    Parameters
    ----------
    out : Path

    Returns
    -------
    ProcessRecord or None
        None where no training has told of itself.
    """
    record = _read_json(out / PROCESS_FILE)
    if record is None or record.get("state") not in _TOLD:
        return None
    state: State = record["state"]
    if state == "running" and not is_alive(out):
        # It may have ended between the two looks.
        again = _read_json(out / PROCESS_FILE)
        if again is not None and again.get("state") in _TOLD:
            record, state = again, again["state"]
        state = "lost" if state == "running" else state
    bundle = record.get("bundle")
    return ProcessRecord(
        state=state,
        message=str(record.get("message") or ""),
        method=str(record.get("method") or ""),
        config=str(record.get("config") or ""),
        data=str(record.get("data") or ""),
        device=str(record.get("device") or "auto"),
        pid=_whole(record.get("pid")),
        host=str(record.get("host") or ""),
        started=_number(record.get("started")) or 0.0,
        ended=_number(record.get("ended")),
        bundle=Path(bundle) if isinstance(bundle, str) and bundle else None,
        encoder=str(record.get("encoder") or ""),
        weights=str(record.get("weights") or ""),
        case_slides=str(record.get("case_slides") or ""),
        case_rule=str(record.get("case_rule") or ""),
    )


class LogTail:
    """Follows ``progress.jsonl``: reads what was added, and joins it to curves.

    Parameters
    ----------
    out : Path
        Folder of the training; the file may not exist yet.
    """

    def __init__(self, out: Path) -> None:
        self._path = out / PROGRESS_FILE
        self._offset = 0
        self._history = _History()
        self.last: LogEntry | None = None

    @property
    def stages(self) -> tuple[StageCurves, ...]:
        """Curves of every stage that has finished an epoch, in the order of their beginning."""
        return self._history.stages()

    def read(self) -> tuple[tuple[LogEntry, ...], bool]:
        """Read some of what was added since the last time.

        Returns
        -------
        tuple of LogEntry
            In the order of writing.
        bool
            Whether there is more to read.
        """
        try:
            size = self._path.stat().st_size
            if size < self._offset:  # another file took its place
                self._start_over(offset=0)
            if size == self._offset:
                return (), False
            with self._path.open("rb") as file:
                file.seek(self._offset)
                chunk = file.read(_CHUNK_BYTES)
        except OSError:
            return (), False
        # A line that is being written waits for its end; one that never ends is given up.
        whole = chunk.rfind(b"\n") + 1 or (len(chunk) if len(chunk) == _CHUNK_BYTES else 0)
        self._offset += whole
        entries: list[LogEntry] = []
        for line in chunk[:whole].splitlines():
            record = _parse(line)
            if record is None:
                continue
            if "started" in record:
                if not record.get("resume"):
                    self._start_over(offset=self._offset)
                    entries.clear()
                continue
            entry = _entry(record)
            if entry is not None:
                entries.append(entry)
        self._history.add(entries)
        if entries:
            self.last = entries[-1]
        return tuple(entries), whole > 0 and self._offset < size

    def _start_over(self, *, offset: int) -> None:
        self._offset = offset
        self._history = _History()
        self.last = None


class _History:
    """Epochs by stage and fold. One that begins anew with its first epoch is the next of that title."""

    def __init__(self) -> None:
        self._stages: list[tuple[Progress, dict[int, Mapping[str, float]]]] = []

    def add(self, entries: Iterable[LogEntry]) -> None:
        for progress in (entry.progress for entry in entries):
            if progress.values and progress.epoch:
                self._epochs_of(progress)[progress.epoch] = progress.values

    def _epochs_of(self, progress: Progress) -> dict[int, Mapping[str, float]]:
        for first, epochs in reversed(self._stages):
            if first.title == progress.title:
                if progress.epoch == 1 and len(epochs) > 1:
                    break
                return epochs
        self._stages.append((progress, {}))
        return self._stages[-1][1]

    def stages(self) -> tuple[StageCurves, ...]:
        titles = [first.title for first, _ in self._stages]
        out = []
        for number, (first, epochs) in enumerate(self._stages):
            nth = titles[: number + 1].count(first.title)
            title = f"{first.title} ({nth})" if titles.count(first.title) > 1 else first.title
            out.append(StageCurves(first.stage, title, _curves(epochs)))
        return tuple(out)


def _curves(epochs: Mapping[int, Mapping[str, float]]) -> tuple[Curve, ...]:
    points: dict[str, list[tuple[int, float]]] = {}
    for epoch in sorted(epochs):
        for name, value in epochs[epoch].items():
            points.setdefault(name, []).append((epoch, value))
    return tuple(Curve(name, tuple(found)) for name, found in points.items())


def _entry(record: Mapping[str, Any]) -> LogEntry | None:
    time, stage, values = _number(record.get("time")), record.get("stage"), record.get("values")
    if time is None or not isinstance(stage, str):
        return None
    numbers = {
        str(name): number
        for name, value in (values.items() if isinstance(values, dict) else ())
        if (number := _number(value)) is not None
    }
    of_older = numbers.pop("epoch", 0)  # versions up to 0.1 told it among the measures
    counts = {
        name: _whole(record.get(name)) for name in ("done", "total", "fold", "folds", "epoch", "epochs")
    }
    counts["epoch"] = counts["epoch"] or int(of_older)
    unit, note = str(record.get("unit") or ""), str(record.get("note") or "")
    return LogEntry(time, Progress(stage, unit=unit, note=note, values=numbers, **counts))


def is_alive(out: Path) -> bool:
    """Whether a process holds the lock of a training."""
    path = out / LOCK_FILE
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        free = lock.acquire()
    except OSError:  # a folder that we may only read: what is told has to be believed
        return True
    lock.release()
    return not free


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return _parse(_PROCESS.raw(path))
    except JobFailed:
        return None


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        record = _PROCESS.parsed_json(text.decode(), "the log")
    except (JobFailed, UnicodeDecodeError):
        return None
    return record if isinstance(record, dict) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: object) -> int:
    return int(_number(value) or 0)
