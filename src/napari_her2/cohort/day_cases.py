"""What a model takes of each row of a list, where rows of one case belong together.

Rows that name one case_id are slides of one case. A model scores them as one bag, where it learnt so, or each
by itself, and the answers are joined when they are there (`napari_her2.cohort.case_answer`).
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.cohort.score_job import Further
from napari_her2.inference.result import CaseOf
from napari_her2.methods.catalogue import method_of
from napari_her2.models.case_slides import JOINED_ANSWERS, JOINED_BAGS, WAYS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_her2.cohort.entry import Entry
    from napari_her2.cohort.score_job import Case
    from napari_her2.models.card import ModelCard

AUTO = "auto"
CHOICES: tuple[str, ...] = (AUTO, *WAYS)
"""How slides of a case are answered: as the model learnt it, or as the user says."""


def way_of(card: ModelCard, wanted: str = AUTO) -> str:
    """Return how several slides of a case are answered by a model.

    Parameters
    ----------
    card : ModelCard
    wanted : str
        Of `CHOICES`. By itself a model that learnt from joined bags is given them; of all others the answers
        are joined.

    Returns
    -------
    str
        Of `napari_her2.models.case_slides.WAYS`.
    """
    if wanted != AUTO:
        return wanted
    return JOINED_BAGS if card.case_slides == JOINED_BAGS else JOINED_ANSWERS


def cases_for(entries: Sequence[Entry], card: ModelCard, wanted: str = AUTO) -> list[Case | str]:
    """Return what a model takes of each row.

    Parameters
    ----------
    entries : sequence of Entry
    card : ModelCard
    wanted : str
        Of `CHOICES`.

    Returns
    -------
    list of Case or str
        A sentence where it takes nothing of a row: also where its slides are scored with another row.

    Raises
    ------
    ModelError
        If this version does not know the method of the model.
    """
    found = [entry.case_for(card) for entry in entries]
    rows: dict[str, list[int]] = defaultdict(list)
    for number, entry in enumerate(entries):
        if entry.case_id:
            rows[entry.case_id].append(number)
    for case_id, numbers in rows.items():
        if len(numbers) > 1:
            _together(case_id, numbers, entries, found, card, way_of(card, wanted))
        elif not isinstance(only := found[numbers[0]], str):
            found[numbers[0]] = replace(only, of=CaseOf(case_id))
    return found


def _together(
    case_id: str,
    numbers: Sequence[int],
    entries: Sequence[Entry],
    found: list[Case | str],
    card: ModelCard,
    way: str,
) -> None:
    """Say what is scored of the rows of one case."""
    taken: dict[tuple[str, str], int] = {}
    for number in numbers:  # an IHC slide may serve several H&E slides of a case
        case = found[number]
        if not isinstance(case, str):
            key = (os.path.realpath(case.path), os.path.realpath(case.ihc) if case.ihc else "")
            if key in taken:
                found[number] = f"Its slide is that of another row of case {case_id}, and is scored once."
            else:
                taken[key] = number
    if not taken:
        return
    broken = [entries[number].problem for number in numbers if entries[number].problem]
    of = CaseOf(case_id, len(taken) + len(broken), way, card.case_rule)
    first, *others = taken.values()
    if way != JOINED_BAGS or not others:
        for number in taken.values():
            found[number] = _of(found[number], of)
        return
    if broken or not method_of(card).joins_bags:
        why = (
            f"Another slide of case {case_id} cannot be scored: {broken[0]}"
            if broken
            else f"{card.name} cannot score several slides as one bag: join their answers instead."
        )
        for number in taken.values():
            found[number] = why
        return
    bag = _of(found[first], of)
    further = _further([(number, found[number]) for number in (first, *others)], entries, card)
    found[first] = replace(bag, further=further)
    for number in others:
        found[number] = f"Its slides are scored together with {bag.path.name}, as one bag of case {case_id}."


def _of(case: Case | str, of: CaseOf) -> Case:
    assert not isinstance(case, str)
    return replace(case, of=of)


def _further(
    rows: Sequence[tuple[int, Case | str]], entries: Sequence[Entry], card: ModelCard
) -> tuple[Further, ...]:
    """Slides of all rows but the first, each once."""
    seen: set[str] = set()
    found: list[Further] = []
    for at, (number, case) in enumerate(rows):
        assert not isinstance(case, str)
        stain = card.stain
        if method_of(card).takes_pair:
            stain = "H&E" if entries[number].he == case.path else "IHC"
        own: list[tuple[Path | None, str, Path | None, float | None, str]] = [
            (case.path, stain, case.regions, case.mpp, case.mpp_source),
            (case.ihc, "IHC", None, case.ihc_mpp, case.ihc_mpp_source),
        ]
        for path, of, regions, mpp, source in own:
            if path is None or os.path.realpath(path) in seen:
                continue
            seen.add(os.path.realpath(path))
            if at:
                found.append(Further(path, of, regions, mpp, source))
    return tuple(found)
