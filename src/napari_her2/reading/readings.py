"""What readers read: one file a reader and round, a line a reading, on the disk before the next case.

A line is appended whole and synced; nothing that was read is ever changed. A reading that is corrected, or
made again, is another line (``changed``), so that the first one stays. A program that is killed loses the
case that was being entered and no other: a line that it left half is sealed and left out, and reported.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from napari_her2 import outside
from napari_her2.desk.own_score import ISH_RESULTS, SCORES, ManualScore
from napari_her2.errors import JobFailed
from napari_her2.inference.locks import FileLock
from napari_her2.own_files import open_own
from napari_her2.whole_files import not_written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

FOLDER = "readings"
COMMENT_MOST = 4000
ULTRALOW = "0, with membrane staining"
"""What HER2-ultralow is read as (together with no more than 10 % of cells); no model predicts it."""
_FORMAT = 1
_FILE = outside.Reading(limit=256 * outside.MiB, advice="ask whoever runs the study for the file as it was")
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """One case as one reader read it.

    Parameters
    ----------
    reader, case, round : str
        "1", "2", ... or "consensus" for the round.
    score : str
        One of `napari_her2.desk.own_score.SCORES`; empty where the case was skipped.
    percentage : float or None
        Cells with membrane staining, per cent of the tumour cells; None where not given.
    ish : str
        One of `napari_her2.desk.own_score.ISH_RESULTS`.
    comment : str
    seconds : float
        How long the slide was shown while napari was the active program: pauses do not count.
    time : datetime
        When it was saved.
    changed : bool
        Whether the reader had read the case in this round before: the earlier reading stays in the file.
    blinded : bool
        Whether names, models and maps were hidden.
    model_seen : bool
        Whether an answer of a model for the case had been shown in this round before.
    skipped : str
        Why the case was not read; empty where it was.
    fingerprints : mapping of str to str
        Stain to the content of the slide that was shown, where it was known by then.
    """

    reader: str
    case: str
    round: str = "1"
    score: str = ""
    percentage: float | None = None
    ish: str = ""
    comment: str = ""
    seconds: float = 0.0
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    changed: bool = False
    blinded: bool = True
    model_seen: bool = False
    skipped: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise JobFailed(problem)

    @property
    def category(self) -> str:
        """What follows by ASCO/CAP, see `napari_her2.desk.own_score.ManualScore.category`."""
        return ManualScore(self.score, self.ish).category()

    def _problem(self) -> str:
        if self.score not in SCORES or self.ish not in ISH_RESULTS:
            return "A reading has one of the scores and one of the ISH results that are offered: choose one."
        if bool(self.score) == bool(self.skipped):
            return "A reading has a score, or a reason why the case was skipped: give one of them."
        if self.percentage is not None and not 0 <= self.percentage <= 100:
            return "The percentage of stained cells lies between 0 and 100: correct it."
        if not 0 <= self.seconds < math.inf:
            return "The time that a reading took is a number of seconds: correct it."
        if max(len(self.comment), len(self.skipped)) > COMMENT_MOST:
            return f"A comment has at most {COMMENT_MOST:,} characters: shorten it."
        return ""


@dataclass(frozen=True, slots=True)
class ReadingsFound:
    """The readings of a file, or of a study.

    Parameters
    ----------
    readings : tuple of Reading
        In the order in which they were saved.
    notes : tuple of str
        What could not be read of the files, a sentence each.
    """

    readings: tuple[Reading, ...] = ()
    notes: tuple[str, ...] = ()


class ReadingFile:
    """The readings of one reader in one round, to be added to; held by one program at a time.

    Parameters
    ----------
    folder : Path
        Of the study.
    reader, round_name : str

    Attributes
    ----------
    path : Path
    found : ReadingsFound
        What the file held when it was opened.

    Raises
    ------
    JobFailed
        If another program holds it, it cannot be written, or is of a newer version.
    """

    def __init__(self, folder: Path, reader: str, round_name: str) -> None:
        self.path = reading_path(folder, reader, round_name)
        self._lock = FileLock(self.path.with_suffix(".lock"), shared=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            held = self._lock.acquire()
        except OSError as error:
            raise not_written(self.path, error) from error
        if not held:
            raise JobFailed(
                f"{reader} is reading round {round_name} in another window or on another computer: go on "
                f"there, or close it."
            )
        try:
            self.found = _read_file(self.path) if os.path.lexists(self.path) else ReadingsFound()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, reading: Reading) -> None:
        """Append a reading; it is on the disk when this returns.

        Raises
        ------
        JobFailed
            If it could not be written; the file is then as it was before.
        """
        line = json.dumps(_values(reading), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            with open_own(self.path, "ab", shared=True) as file:
                before = file.seek(0, os.SEEK_END)
                if before and not _ends_a_line(self.path, before):
                    line = b"\n" + line  # what a killed program left half stays a line of its own
                try:
                    _write_synced(file.fileno(), line)
                except OSError:
                    os.ftruncate(file.fileno(), before)
                    raise
            if not before:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise JobFailed(
                f"The reading could not be saved to {self.path.parent} ({error.strerror or error}): free "
                f"space or check the folder, then save again."
            ) from error

    def close(self) -> None:
        """Let another program read on."""
        self._lock.release()


def reading_path(folder: Path, reader: str, round_name: str) -> Path:
    """Where the readings of a reader and round are; names become safe file names, told apart by a digest."""
    plain = _NOT_IN_A_NAME.sub("-", reader.lower()).strip("-")[:30]
    digest = hashlib.sha256(reader.encode()).hexdigest()[:8]
    return folder / FOLDER / f"{plain or 'reader'}-{digest}-round-{round_name}.jsonl"


def read_readings(folder: Path) -> ReadingsFound:
    """Return what all readers of a study have read, by file and then in the order of saving.

    Parameters
    ----------
    folder : Path
        Of the study; nobody is kept from reading on.

    Raises
    ------
    JobFailed
        If a file is of a newer version, too large, or cannot be read at all.
    """
    parts = [_read_file(path) for path in sorted((folder / FOLDER).glob("*.jsonl"))]
    readings = tuple(reading for part in parts for reading in part.readings)
    return ReadingsFound(readings, tuple(note for part in parts for note in part.notes))


def counted_readings(readings: Iterable[Reading], *, corrected: bool = False) -> tuple[Reading, ...]:
    """Return the one reading of each reader, round and case that counts; skipped cases are left out.

    Parameters
    ----------
    readings : iterable of Reading
        In the order of saving.
    corrected : bool
        Takes the latest. Else it is the latest of those that were made before an answer of a model was
        shown, or the first of all, so that no model has a part in it.
    """
    groups: dict[tuple[str, str, str], list[Reading]] = defaultdict(list)
    for reading in readings:
        if not reading.skipped:
            groups[reading.reader, reading.round, reading.case].append(reading)
    return tuple(_counts(group, corrected=corrected) for group in groups.values())


def _counts(group: Sequence[Reading], *, corrected: bool) -> Reading:
    if corrected:
        return group[-1]
    unseen = [reading for reading in group if not reading.model_seen]
    return unseen[-1] if unseen else group[0]


def _read_file(path: Path) -> ReadingsFound:
    lines = _FILE.raw(path).split(b"\n")
    readings, notes = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        values = _line_values(line, path)
        if values is None:
            # Without a newline behind it, or sealed by the next reading: a program was killed as it wrote.
            notes.append(
                f"Line {number} of {outside.shown(path.name)} is cut off or damaged and is left out: the "
                f"case that was being saved is to be read again."
            )
        else:
            readings.append(_reading(values, path, number))
    return ReadingsFound(tuple(readings), tuple(notes))


def _line_values(line: bytes, path: Path) -> dict[str, Any] | None:
    try:
        values = _FILE.parsed_json(line.decode(), path)
    except (UnicodeDecodeError, JobFailed):
        return None
    return values if isinstance(values, dict) else None


def _reading(values: dict[str, Any], path: Path, number: int) -> Reading:
    version = values.pop("format", None)
    if isinstance(version, int) and version > _FORMAT:
        raise JobFailed(
            f"{path.name} was written by a newer version of napari-her2: update napari-her2 to open it."
        )
    try:
        values["time"] = datetime.fromisoformat(values["time"])
        if values["time"].tzinfo is None:
            values["time"] = values["time"].replace(tzinfo=UTC)
        return Reading(**_checked(values))
    except (KeyError, TypeError, ValueError, JobFailed) as problem:
        raise _FILE.refusal(path, f"holds no reading in line {number} ({problem!s:.120})") from problem


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a reading, each of its type."""
    texts = ("reader", "case", "round", "score", "ish", "comment", "skipped")
    flags = ("changed", "blinded", "model_seen")
    if not all(isinstance(values[name], str) for name in texts):
        raise TypeError("a name is no text")
    if not all(isinstance(values[name], bool) for name in flags):
        raise TypeError("a mark is neither true nor false")
    percentage = values["percentage"]
    numbers = [values["seconds"], *([] if percentage is None else [percentage])]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers):
        raise TypeError("a number is none")
    prints = values["fingerprints"]
    if not isinstance(prints, dict) or not all(isinstance(item, str) for item in prints.values()):
        raise TypeError("a fingerprint is no text")
    return values


def _values(reading: Reading) -> dict[str, Any]:
    values = asdict(replace(reading, fingerprints=dict(reading.fingerprints)))
    moment = reading.time.astimezone(UTC).isoformat(timespec="milliseconds")
    return {"format": _FORMAT} | values | {"time": moment, "seconds": round(reading.seconds, 1)}


def _write_synced(descriptor: int, data: bytes) -> None:
    """Write without a buffer: what a full disk refuses must not be written later, when the file is closed."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def _ends_a_line(path: Path, size: int) -> bool:
    with open_own(path, "rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _sync_folder(folder: Path) -> None:
    """Have the name of a new file on the disk too; where folders cannot be opened there is no need."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
