"""A study of readers: its cases, who reads them, in which order, and what they may see.

A study is a folder. ``study.json`` holds what is written here, the folder ``readings`` what each reader read
(`napari_her2.reading.readings`). The order is a sort by SHA-256 of seed, reader, round, try and case, so it
is the same on every computer and with every version of every library, and a case that is added later
changes the order of no others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Literal, get_args

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CONSENSUS = "consensus"
"""The round in which readers agree on the cases that they read differently."""
Reveal = Literal["never", "each", "last"]
"""When a reader sees the name of the file and the answers of models: never, after each reading, or after each
reading of the last round alone, so that no answer is remembered in the rounds to come."""
MOST_ROUNDS, MOST_READERS, MOST_CASES = 9, 99, 100_000
NAME_MOST, TITLE_MOST = 60, 200
_STAINS = ("", "H&E", "IHC")


@dataclass(frozen=True, slots=True)
class StudySlide:
    """A slide of a case.

    Parameters
    ----------
    path : Path
    stain : str
        "H&E", "IHC", or empty where nobody stated it.
    mpp : float or None
        µm/px, where whoever made the study gave it.
    fingerprint : str
        Hash of its whole content; empty until the slide was opened once.
    """

    path: Path
    stain: str = ""
    mpp: float | None = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.stain not in _STAINS:
            raise JobFailed(f"A slide is of the stain H&E or IHC, not {self.stain!r:.40}: correct the list.")


@dataclass(frozen=True, slots=True)
class StudyCase:
    """A case: one slide, or the H&E and the IHC slide.

    Parameters
    ----------
    case_id : str
        What tables call it; readers who are blinded never see it.
    slides : tuple of StudySlide
    """

    case_id: str
    slides: tuple[StudySlide, ...]

    def __post_init__(self) -> None:
        check_name(self.case_id, "case", most=TITLE_MOST)
        if not 1 <= len(self.slides) <= 2:
            raise JobFailed(f"The case {self.case_id} has {len(self.slides)} slides: a case has one or two.")
        if len(self.slides) == 2 and {slide.stain for slide in self.slides} != {"H&E", "IHC"}:
            raise JobFailed(
                f"The two slides of the case {self.case_id} are H&E and IHC: state which is which."
            )


@dataclass(frozen=True, slots=True)
class Study:
    """What is read by whom.

    Parameters
    ----------
    title : str
    cases : tuple of StudyCase
    readers : tuple of str
    rounds : int
        How often each reader reads each case.
    seed : int
        Of the orders.
    blinded : bool
        Whether names of files, models and maps are hidden until the reader has scored.
    reveal : {"never", "each", "last"}
        What follows a reading that was saved, see `Reveal`.
    results : tuple of Path
        Folders of results (`result.json`) that may be shown then.
    washout_days : float
        Days between two rounds of one reader; a shorter time is reported, not refused.
    """

    title: str
    cases: tuple[StudyCase, ...]
    readers: tuple[str, ...]
    rounds: int = 1
    seed: int = 0
    blinded: bool = True
    reveal: Reveal = "last"
    results: tuple[Path, ...] = ()
    washout_days: float = 14.0
    _by_id: Mapping[str, StudyCase] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.title, "study", most=TITLE_MOST)
        object.__setattr__(self, "_by_id", {case.case_id: case for case in self.cases})
        if not 1 <= len(self.cases) <= MOST_CASES:
            raise JobFailed(f"A study has 1 to {MOST_CASES:,} cases, not {len(self.cases):,}: choose others.")
        _check_distinct([case.case_id for case in self.cases], "cases")
        if not 1 <= len(self.readers) <= MOST_READERS:
            raise JobFailed(f"A study has 1 to {MOST_READERS} readers, not {len(self.readers)}: name them.")
        for reader in self.readers:
            check_name(reader, "reader")
        _check_distinct(self.readers, "readers")
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise JobFailed(f"A study has 1 to {MOST_ROUNDS} rounds, not {self.rounds}: choose fewer.")
        if self.reveal not in get_args(Reveal):
            raise JobFailed(f"There is no reveal {self.reveal!r:.40}: choose never, each or last.")
        if not 0 <= self.washout_days <= 3650:
            raise JobFailed("The days between two rounds are 0 to 3650: choose another number.")

    @property
    def round_names(self) -> tuple[str, ...]:
        """Rounds in which everybody reads alone: "1", "2", ..."""
        return tuple(str(number) for number in range(1, self.rounds + 1))

    def case(self, case_id: str) -> StudyCase:
        """Return a case; JobFailed where the study has none of that name."""
        if case_id not in self._by_id:
            raise JobFailed(f"The study has no case {case_id!r:.80}: it was taken out, or is another study.")
        return self._by_id[case_id]

    def check_round(self, round_name: str) -> None:
        """Refuse a round that the study does not have."""
        if round_name not in (*self.round_names, CONSENSUS):
            raise JobFailed(
                f"The study has no round {round_name!r:.40}: choose {', '.join(self.round_names)} or "
                f"{CONSENSUS}."
            )

    def check_reader(self, reader: str) -> None:
        """Refuse a reader whom the study does not know."""
        if reader not in self.readers:
            raise JobFailed(f"The study has no reader {reader!r:.80}: add the reader first.")

    def reveals_after(self, round_name: str) -> bool:
        """Whether name and answers are shown once a reading of the round is saved."""
        last = round_name in (self.round_names[-1], CONSENSUS)
        return self.reveal == "each" or (self.reveal == "last" and last)

    def with_reader(self, reader: str) -> Study:
        """Return the study with one reader more."""
        return replace(self, readers=(*self.readers, reader))


def check_name(name: str, of: str, most: int = NAME_MOST) -> str:
    """Refuse a name that is empty, long, or no line of visible characters; return it."""
    if not name or name != name.strip() or len(name) > most or not name.isprintable():
        raise JobFailed(
            f"The name of a {of} is 1 to {most} visible characters, not {name!r:.80}: choose another."
        )
    return name


def order_of(study: Study, reader: str, round_name: str) -> tuple[str, ...]:
    """Return in which order a reader reads the cases of a round.

    For ``try`` = 0, 1, ... the cases are sorted by the SHA-256 of the UTF-8 text
    ``seed newline reader newline round newline try newline case``; the first try whose order differs from
    that of the round before is taken, so that two rounds never go alike (but for a single case).

    Parameters
    ----------
    study : Study
    reader, round_name : str

    Returns
    -------
    tuple of str
        Ids of all cases.
    """
    rounds = study.round_names if round_name in study.round_names else (round_name,)
    order: tuple[str, ...] = ()
    for name in rounds[: rounds.index(round_name) + 1]:
        order = _other_order(study, reader, name, order)
    return order


def _other_order(study: Study, reader: str, round_name: str, before: tuple[str, ...]) -> tuple[str, ...]:
    """Order of a round that differs from that of the round before."""
    ids = [case.case_id for case in study.cases]
    for attempt in count():
        start = f"{study.seed}\n{reader}\n{round_name}\n{attempt}\n"
        ranked = sorted((hashlib.sha256(f"{start}{case}".encode()).digest(), case) for case in ids)
        order = tuple(case for _, case in ranked)
        if order != before or len(ids) < 2:
            break
    return order


def washout_words(study: Study, ended: datetime | None, now: datetime | None = None) -> str:
    """Say that a reader begins a round sooner after the one before than the study wishes.

    Parameters
    ----------
    study : Study
    ended : datetime or None
        When the latest reading of the round before was made; None where there is none.
    now : datetime, optional

    Returns
    -------
    str
        Empty where nothing is to be said.
    """
    if ended is None or not study.washout_days:
        return ""
    passed = (now or datetime.now(UTC)) - ended
    if passed >= timedelta(days=study.washout_days):
        return ""
    days = max(passed / timedelta(days=1), 0.0)
    return (
        f"Your last reading of the round before is {days:.1f} days old, and the study wishes for "
        f"{study.washout_days:g} days between rounds: cases may be remembered."
    )


def _check_distinct(names: Iterable[str], of: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            raise JobFailed(f"Two {of} are called {name!r:.80}: give each a name of its own.")
