"""The pathologist's own score and ISH result, kept beside the model's output and never inferred from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.inference.class_words import ish_disagrees
from napari_her2.whole_files import replaced_file

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.inference.result import SlideResult

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

        HER2-low and HER2-ultralow are treatment labels, not results of ASCO/CAP. An ISH result that does not
        agree with the score is told with it.
        """
        if self.score == "2+":
            return {
                "positive": "HER2-positive (2+, ISH positive)",
                "negative": "HER2-low (2+, ISH negative)",
            }.get(self.ish, "equivocal: ISH required")
        category, score = {
            "0, no staining": ("HER2-null", "0"),
            "0, with membrane staining": ("HER2-ultralow", "0"),
            "1+": ("HER2-low", "1+"),
            "3+": ("HER2-positive", "3+"),
        }.get(self.score, ("", ""))
        doubt = ish_disagrees(score, self.ish) if category else ""
        return f"{category}. {doubt}" if doubt else category

    def to_json(self, result: SlideResult | None = None) -> dict[str, str]:
        """Return the entries, their category, and what ISH would mean for a result, for export."""
        meant = "" if result is None else result.with_ish(self.ish)
        return asdict(self) | {"category": self.category(), "ish_beside_prediction": meant}


def category_beside(manual: ManualScore, result: SlideResult | None) -> str:
    """Category that is shown beside a result; the prediction itself never changes with it.

    Parameters
    ----------
    manual : ManualScore
    result : SlideResult or None

    Returns
    -------
    str
        That of the pathologist's own score; without one what the ISH result would mean for the prediction;
        empty where nothing follows.
    """
    return manual.category() or ("" if result is None else result.with_ish(manual.ish))


def write_manual(folder: Path, manual: ManualScore, result: SlideResult | None = None) -> Path | None:
    """Write ``manual.json`` beside an exported result.

    Parameters
    ----------
    folder : Path
    manual : ManualScore
    result : SlideResult, optional
        That the folder holds.

    Returns
    -------
    Path or None
        None where nothing was entered; an older file is then taken away.

    Raises
    ------
    JobFailed
        If the folder cannot be written to.
    """
    target = folder / "manual.json"
    try:
        if not manual.given:
            target.unlink(missing_ok=True)
            return None
        with replaced_file(target) as file:
            file.write_text(
                json.dumps(manual.to_json(result), indent=2, ensure_ascii=False), encoding="utf-8"
            )
    except OSError as error:
        raise JobFailed(
            f"Your own score could not be written to {folder} ({error.strerror or error}): "
            "choose a folder that can be written to."
        ) from error
    return target
