"""Cases as a finished model sees them: scored the ordinary way, their looks and its probabilities noted."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from napari_her2.errors import Her2Error, JobFailed, JobStopped
from napari_her2.inference.further import FurtherSlide
from napari_her2.inference.job import ScoringJob
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.unchanged import identified, unchanged
from napari_her2.methods.catalogue import method_of
from napari_her2.models.card import PAIR, SLIDE
from napari_her2.models.case_slides import JOINED_BAGS, joined_probabilities
from napari_her2.slide.reader import open_slide
from napari_her2.steps import Progress, passed_on
from napari_her2_training.cohort.contents import real
from napari_her2_training.cohort.features import holds_features
from napari_her2_training.cohort.manifest import STAINS, in_cases, label_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.inference.doubt import Signature
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard
    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case, Stain

STAGE = "Learning what the model has seen"


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCase:
    """What a model makes of a case.

    Parameters
    ----------
    case_id : str
    label : int
    signatures : tuple of Signature
        What its slides look like to the model.
    probabilities : mapping of str to (C,) float64
        Calibrated, by head, as the temperatures of a card.
    """

    case_id: str
    label: int
    signatures: tuple[Signature, ...]
    probabilities: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Scorer:
    """Scores cases with a model.

    Parameters
    ----------
    bundle : ModelBundle
    mapping : ClassMapping
        Its classes.
    device : Device
    any_stain : bool
        Whether slides that do not look like their column are scored all the same.
    """

    bundle: ModelBundle
    mapping: ClassMapping
    device: Device
    any_stain: bool = False

    def case_steps(
        self, cases: Sequence[Case], part: str, remarks: list[str]
    ) -> Generator[Progress, None, list[ScoredCase]]:
        """Score cases as whole, as the card of the model says that several slides give one answer.

        Parameters
        ----------
        cases : sequence of Case
            All rows of each.
        part : str
        remarks : list of str
            Gets a sentence for each row that could not be scored; its whole case is left out.

        Yields
        ------
        Progress

        Returns
        -------
        list of ScoredCase
            One a case, with the signatures of all its slides.
        """
        together = in_cases(cases)
        if self.bundle.card.case_slides == JOINED_BAGS:
            return (yield from self._each_steps(together, part, remarks))
        rows = yield from self.steps(cases, part, remarks)
        found: list[ScoredCase] = []
        for own in together:
            scored = [row for row in rows if row.case_id == own[0].case_id]
            if len(scored) == len(own):
                found.append(self._joined(scored))
        return found

    def _joined(self, rows: Sequence[ScoredCase]) -> ScoredCase:
        first, rule = rows[0], self.bundle.card.case_rule
        heads = [head for head in first.probabilities if all(head in row.probabilities for row in rows)]
        of = {head: np.stack([row.probabilities[head] for row in rows]) for head in heads}
        joined = {head: joined_probabilities(each, rule) for head, each in of.items()}
        looks = tuple(one for row in rows for one in row.signatures)
        return ScoredCase(first.case_id, first.label, looks, joined)

    def steps(
        self, cases: Sequence[Case], part: str, remarks: list[str]
    ) -> Generator[Progress, None, list[ScoredCase]]:
        """Score cases.

        Parameters
        ----------
        cases : sequence of Case
        part : str
            Which they are, in the progress.
        remarks : list of str
            Gets a sentence for each that could not be scored, and is left out.

        Yields
        ------
        Progress
            Counts cases.

        Returns
        -------
        list of ScoredCase
            In the order of the cases.
        """
        return (yield from self._each_steps([(case,) for case in cases], part, remarks))

    def _each_steps(
        self, cases: Sequence[Sequence[Case]], part: str, remarks: list[str]
    ) -> Generator[Progress, None, list[ScoredCase]]:
        """Score rows, those that are given together as one bag."""
        found: list[ScoredCase] = []
        stage = f"{STAGE}: {part} cases"
        for number, rows in enumerate(cases):
            case = rows[0]
            counted = partial(replace, stage=stage, done=number, total=len(cases), unit="cases", note="")
            yield Progress(stage, number, len(cases), "cases", case.case_id)
            try:
                found.append((yield from passed_on(self._case(rows), counted)))
            except JobStopped:
                raise
            except Her2Error as error:
                remarks.append(f"{case.where}{error}")
                yield Progress(stage, number, len(cases), "cases", f"left out: {case.case_id}")
        yield Progress(stage, len(cases), len(cases), "cases")
        return found

    def _case(self, rows: Sequence[Case]) -> Generator[Progress, None, ScoredCase]:
        case = rows[0]
        first, second, stain = slides_of(self.bundle.card, case)
        more = further_slides(self.bundle.card, rows)
        options = ScoringOptions(stain=stain, override_fit=self.any_stain)
        signatures: list[Signature] = []
        with ExitStack() as stack:
            he, ihc = (
                None if path is None else stack.enter_context(open_slide(path, mpp=case.scale_of(path)))
                for path in (first, second)
            )
            assert he is not None
            yield from identified(he, ihc)
            stack.enter_context(unchanged(he, ihc))
            scales = {path: row.scale_of(path) for row in rows for path in (row.he, row.ihc)}
            further = tuple(
                FurtherSlide(stack.enter_context(open_slide(path, mpp=scales.get(path))), of)
                for path, of in more
            )
            for one in further:
                yield from identified(one.slide)
                stack.enter_context(unchanged(one.slide))
            job = ScoringJob(
                he, ihc, self.bundle, None, self.device, options, signatures=signatures, further=further
            )
            result = yield from method_of(self.bundle.card).score(job)
        heads = result.heads or {SLIDE: result.probabilities}
        return ScoredCase(
            case.case_id,
            label_of(case, self.mapping),
            tuple(small(signature) for signature in signatures),
            {
                name: np.array([chances[own] for own in result.classes], np.float64)
                for name, chances in heads.items()
            },
        )


def slides_of(card: ModelCard, case: Case) -> tuple[Path, Path | None, str]:
    """Return the slide of a case that a model takes, the IHC slide where it takes both, and the first stain.

    Raises
    ------
    JobFailed
        The case has no such slide, or features in its place.
    """
    columns: tuple[Stain, ...] = ("he", "ihc") if card.stain == PAIR else (_column(card.stain),)
    given = [(column, path) for column in columns if (path := getattr(case, column)) is not None]
    if not given:
        raise JobFailed(f"it has no {' and no '.join(STAINS[column] for column in columns)} slide.")
    for _, path in given:
        if holds_features(path):
            raise JobFailed(f"{path.name} holds features, of which no slide can be scored: name the slide.")
    (column, first), *others = given
    return first, others[0][1] if others else None, STAINS[column]


def further_slides(card: ModelCard, rows: Sequence[Case]) -> list[tuple[Path, str]]:
    """Return the slides that a model takes of all rows of a case but the first, each once, with its stain.

    Raises
    ------
    JobFailed
        A row has no such slide, or features in its place.
    """
    different: dict[Path, tuple[Path, str]] = {}
    known: set[Path] = set()
    for number, row in enumerate(rows):
        first, second, stain = slides_of(card, row)
        own = [(path, of) for path, of in ((first, stain), (second, STAINS["ihc"])) if path is not None]
        if number == 0:
            known = {real(path) for path, _ in own}
        different |= {real(path): (path, of) for path, of in own if real(path) not in {*known, *different}}
    return [slide for path, slide in different.items() if path not in known]


def _column(stain: str) -> Stain:
    return next(column for column, name in STAINS.items() if name == stain)


def small(signature: Signature) -> Signature:
    """Halve what a signature takes in memory: hundreds of slides are held at once."""
    return replace(signature, features=cast("NDArray[np.float32]", signature.features.astype(np.float16)))
