"""The pathologist's own score and ISH result, kept beside the model's output and never inferred from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.inference.presentation import with_ish

if TYPE_CHECKING:
    from pathlib import Path

# "0 with membrane staining" exists for the pathologist alone: no model here was trained to tell it from 0.
SCORES = ("", "0, no staining", "0, with membrane staining", "1+", "2+", "3+")
ISH_RESULTS = ("", "positive", "negative", "pending")


@dataclass(frozen=True, slots=True)
class ManualScore:
    """What the pathologist reads.

    Parameters
    ----------
    score : str
        One of `SCORES`; empty where not given.
    ish : str
        One of `ISH_RESULTS`; empty where not given.
    note : str
        Free text.
    """

    score: str = ""
    ish: str = ""
    note: str = ""

    @property
    def given(self) -> bool:
        """Whether anything was entered."""
        return bool(self.score or self.ish or self.note)

    def category(self) -> str:
        """Category that follows from the pathologist's entries (ASCO/CAP 2018, affirmed 2023); "" while open.

        HER2-low and HER2-ultralow are treatment labels, not results of ASCO/CAP.
        """
        if self.score == "2+":
            return {
                "positive": "HER2-positive (2+, ISH positive)",
                "negative": "HER2-low (2+, ISH negative)",
            }.get(self.ish, "equivocal: ISH required")
        return {
            "0, no staining": "HER2-null",
            "0, with membrane staining": "HER2-ultralow",
            "1+": "HER2-low",
            "3+": "HER2-positive",
        }.get(self.score, "")

    def to_json(self) -> dict[str, str]:
        """Return the entries and their category, for export."""
        return asdict(self) | {"category": self.category()}


def category_beside(manual: ManualScore, predicted: str) -> str:
    """Category that is shown beside a result; the prediction itself never changes with it.

    Parameters
    ----------
    manual : ManualScore
    predicted : str
        Class that the model names; empty where it gives no answer.

    Returns
    -------
    str
        That of the pathologist's own score; without one what the ISH result would mean for the prediction;
        empty where nothing follows.
    """
    return manual.category() or with_ish(predicted, manual.ish)


def write_manual(folder: Path, manual: ManualScore) -> Path | None:
    """Write ``manual.json`` beside an exported result.

    Parameters
    ----------
    folder : Path
    manual : ManualScore

    Returns
    -------
    Path or None
        None where nothing was entered; an older file is then taken away.

    Raises
    ------
    JobFailed
        If the folder cannot be written to.
    """
    target, part = folder / "manual.json", folder / ".manual.json.part"
    try:
        if not manual.given:
            target.unlink(missing_ok=True)
            return None
        part.write_text(json.dumps(manual.to_json(), indent=2, ensure_ascii=False), encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise JobFailed(
            f"Your own score could not be written to {folder} ({error.strerror or error}): "
            "choose a folder that can be written to."
        ) from error
    return target
