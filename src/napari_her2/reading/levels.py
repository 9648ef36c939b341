"""On which levels readings are compared, and where a reading or an answer of a model stands on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.models.class_scores import EQUIVOCAL, NO_POSITIVE_ISH, POSITIVE_ISH, findings_of
from napari_her2.reading.readings import ULTRALOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.reading.readings import Reading


@dataclass(frozen=True, slots=True)
class Levels:
    """Ordered levels.

    Parameters
    ----------
    name, title : str
    levels : tuple of str
        From the lowest to the highest.
    of_score : mapping of str to int
        A pathologist's score to its level; what is missing is decided by ISH, see `level_of`.
    """

    name: str
    title: str
    levels: tuple[str, ...]
    of_score: Mapping[str, int]

    def level_of(self, reading: Reading) -> int | None:
        """Return the level of a reading; None where it was skipped, or its ISH result is needed and open."""
        if reading.score in self.of_score:
            return self.of_score[reading.score]
        if reading.score == EQUIVOCAL:
            return {"positive": 1, "negative": 0}.get(reading.ish)
        return None

    def level_of_class(
        self, name: str, class_scores: Mapping[str, tuple[str, ...]] | None = None
    ) -> int | None:
        """Return the level of a class of a model.

        Parameters
        ----------
        name : str
            Of the class; empty where its answer is withheld.
        class_scores : mapping, optional
            Which scores each class holds, from the card of the model.

        Returns
        -------
        int or None
            None where there is no answer, or the class holds scores of more than one level.
        """
        levels = {self._level_of_finding(finding) for finding in findings_of(name, class_scores)}
        return levels.pop() if len(levels) == 1 else None

    def _level_of_finding(self, finding: str) -> int | None:
        """Level of a score, or of a 2+ with what is known of its ISH, as classes of models hold them."""
        if self.name == "positive" and finding in (POSITIVE_ISH, NO_POSITIVE_ISH, EQUIVOCAL):
            return {POSITIVE_ISH: 1, NO_POSITIVE_ISH: 0}.get(finding)
        score = "2+" if finding in (POSITIVE_ISH, NO_POSITIVE_ISH) else finding
        if score == "0":  # no model tells the two kinds of 0 apart
            zeros = {self.of_score.get("0, no staining"), self.of_score.get(ULTRALOW)}
            return zeros.pop() if len(zeros) == 1 else None
        return self.of_score.get(score)


def _mapped(*levels: int) -> dict[str, int]:
    return dict(zip(("0, no staining", ULTRALOW, "1+", "2+", "3+"), levels, strict=True))


LEVELS: Mapping[str, Levels] = {
    of.name: of
    for of in (
        Levels(
            "five", "0, ultralow, 1+, 2+, 3+", ("0", "ultralow", "1+", "2+", "3+"), _mapped(0, 1, 2, 3, 4)
        ),
        Levels("ihc", "IHC 0, 1+, 2+, 3+", ("0", "1+", "2+", "3+"), _mapped(0, 0, 1, 2, 3)),
        Levels(
            "ultralow",
            "no staining, or any",
            ("0, no staining", "ultralow or more"),
            _mapped(0, 1, 1, 1, 1),
        ),
        Levels("low", "0, or 1+ and more", ("0", "1+ or more"), _mapped(0, 0, 1, 1, 1)),
        Levels(
            "positive",
            "not positive, or positive (3+, or 2+ with ISH positive)",
            ("not positive", "positive"),
            {"0, no staining": 0, ULTRALOW: 0, "1+": 0, "3+": 1},
        ),
    )
}
"""By name. A 2+ is positive or not by its ISH result alone: without one it is missing there."""
