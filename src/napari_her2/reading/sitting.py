"""A reader at work: which case comes next, what was read of it, and for how long it was looked at."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.reading.agreement import LevelTable
from napari_her2.reading.disagreements import disagreements
from napari_her2.reading.levels import LEVELS
from napari_her2.reading.readings import Reading, ReadingFile, counted_readings, read_readings
from napari_her2.reading.worklist import CONSENSUS, order_of, washout_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from napari_her2.reading.worklist import Study, StudyCase


class Sitting:
    """One reader in one round of a study; no other program can read for them meanwhile.

    It begins at the first case that was neither read nor skipped, so that whoever left goes on there.

    Parameters
    ----------
    folder : Path
        Of the study.
    study : Study
    reader, round_name : str

    Attributes
    ----------
    order : tuple of str
        Ids of the cases, as they come; in the consensus round those on which readers part.
    at : int
        Place of the case that is shown, from 0.
    notes : tuple of str
        What the reader should know: lines that were cut off, a round that follows too soon.

    Raises
    ------
    JobFailed
        If the study has no such reader or round, another program reads for them, nothing is to be agreed on,
        or the readings cannot be read or written.
    """

    def __init__(self, folder: Path, study: Study, reader: str, round_name: str) -> None:
        study.check_reader(reader)
        study.check_round(round_name)
        self.folder, self.study = folder, study
        self.reader, self.round_name = reader, round_name
        self._file = ReadingFile(folder, reader, round_name)
        try:
            everybody = read_readings(folder)
            self.order = self._cases_to_read(everybody.readings)
            washout = washout_words(study, self._end_of_round_before(everybody.readings))
        except BaseException:
            self._file.close()
            raise
        self._others = tuple(of for of in counted_readings(everybody.readings) if of.round != CONSENSUS)
        self.notes = (*self._file.found.notes, *([washout] if washout else []))
        self._read: dict[str, list[Reading]] = defaultdict(list)
        for reading in self._file.found.readings:
            self._read[reading.case].append(reading)
        self.at = 0 if self._is_open(0) else self.next_open(0) or 0

    @property
    def case(self) -> StudyCase:
        """The case that is shown."""
        return self.study.case(self.order[self.at])

    @property
    def neutral_name(self) -> str:
        """What the case is called while it is blinded: its place in this reader's order, "Case 7"."""
        return f"Case {self.at + 1}"

    @property
    def latest(self) -> Reading | None:
        """What was last saved of the case that is shown, be it that it was skipped."""
        saved = self._read.get(self.order[self.at])
        return saved[-1] if saved else None

    @property
    def is_read(self) -> bool:
        """Whether the case that is shown has a score of this reader in this round."""
        return any(not of.skipped for of in self._read.get(self.order[self.at], []))

    @property
    def is_revealed(self) -> bool:
        """Whether its name and the answers of models were shown after a reading of this round."""
        return self.is_read and self.study.reveals_after(self.round_name)

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many cases are read, skipped, and there in all."""
        states = [self._state(case) for case in self.order]
        return states.count("read"), states.count("skipped"), len(states)

    def scores_of_others(self) -> tuple[str, ...]:
        """Scores that the readers gave the case before, without their names; for the consensus alone."""
        if self.round_name != CONSENSUS:
            return ()
        case = self.order[self.at]
        return tuple(sorted(of.score for of in self._others if of.case == case))

    def next_open(self, after: int) -> int | None:
        """Return the place of the next case to read behind a place, then of those before it.

        Cases that were skipped come once no other is left. None where every case is read.
        """
        places = [(after + 1 + step) % len(self.order) for step in range(len(self.order))]
        for wanted in ("open", "skipped"):
            for place in places:
                if place != after and self._state(self.order[place]) == wanted:
                    return place
        return None

    def save(
        self,
        score: str,
        *,
        percentage: float | None = None,
        ish: str = "",
        comment: str = "",
        seconds: float = 0.0,
        model_seen: bool = False,
        fingerprints: Mapping[str, str] | None = None,
    ) -> Reading:
        """Save a reading of the case that is shown; an earlier one stays in the file.

        Parameters
        ----------
        score, percentage, ish, comment, seconds, fingerprints
            As for `Reading`.
        model_seen : bool
            Whether a model's answer is open before the reader although nothing was revealed.

        Returns
        -------
        Reading

        Raises
        ------
        JobFailed
            If it is not complete, or could not be written.
        """
        return self._add(
            Reading(
                self.reader,
                self.order[self.at],
                self.round_name,
                score,
                percentage,
                ish,
                comment,
                seconds,
                changed=self.is_read,
                blinded=self.study.blinded and not self.is_revealed,
                model_seen=model_seen or self.is_revealed,
                fingerprints=dict(fingerprints or {}),
            )
        )

    def skip(self, reason: str, seconds: float = 0.0) -> Reading:
        """Save why the case that is shown is not read."""
        reason = reason.strip()
        if not reason:
            raise JobFailed("A case is skipped for a reason: write it down in a few words.")
        return self._add(
            Reading(
                self.reader,
                self.order[self.at],
                self.round_name,
                seconds=seconds,
                blinded=self.study.blinded and not self.is_revealed,
                model_seen=self.is_revealed,
                skipped=reason,
            )
        )

    def close(self) -> None:
        """Let another program read for this reader."""
        self._file.close()

    def _add(self, reading: Reading) -> Reading:
        self._file.add(reading)
        self._read[reading.case].append(reading)
        return reading

    def _state(self, case: str) -> str:
        saved = self._read.get(case, [])
        if any(not of.skipped for of in saved):
            return "read"
        return "skipped" if saved else "open"

    def _is_open(self, place: int) -> bool:
        return self._state(self.order[place]) == "open"

    def _cases_to_read(self, readings: tuple[Reading, ...]) -> tuple[str, ...]:
        if self.round_name != CONSENSUS:
            return order_of(self.study, self.reader, self.round_name)
        apart = disagreements(LevelTable(self.study, readings, LEVELS["five"]))
        if not apart:
            raise JobFailed(
                "There is no case on which two readers part, so nothing is to be agreed on: read the other "
                "rounds first."
            )
        return tuple(of.case for of in apart)

    def _end_of_round_before(self, readings: tuple[Reading, ...]) -> datetime | None:
        names = self.study.round_names
        place = names.index(self.round_name) if self.round_name in names else 0
        if not place:
            return None
        before = [of.time for of in readings if (of.reader, of.round) == (self.reader, names[place - 1])]
        return max(before, default=None)


class Stopwatch:
    """Seconds for which something was looked at; pauses do not count.

    Parameters
    ----------
    clock : callable
        Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before = 0.0
        self._since: float | None = None

    @property
    def running(self) -> bool:
        """Whether seconds count at this moment."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + (0.0 if self._since is None else self._clock() - self._since)

    def reset(self) -> None:
        """Stand at 0, and not run."""
        self._before, self._since = 0.0, None

    def run(self, running: bool) -> None:
        """Go on, or pause; nothing happens where it does so already."""
        if running and self._since is None:
            self._since = self._clock()
        elif not running and self._since is not None:
            self._before, self._since = self.seconds, None
