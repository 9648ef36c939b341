"""Scores that follow the regions: what scorings kept, by slide and model, and answers from it in a thread."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from napari_her2._napari.judging import judged_by
from napari_her2._napari.table_import import load_tables
from napari_her2._napari.torch_import import load_torch
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Sequence

    from napari_her2._napari.demands import Demands
    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.region_kinds import Region
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.sides import Sides
    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """An answer for regions.

    Parameters
    ----------
    result : SlideResult
    sides : Sides or None
        Inside and outside of the regions; None while they are being drawn, and for the whole slide.
    rebuilt : KeptScoring or None
        What the scoring of a result that came back had kept, where it was made again for this answer.
    """

    result: SlideResult
    sides: Sides | None
    rebuilt: KeptScoring | None = None


class Scorings:
    """What scorings kept, by the slide that regions are drawn on and by model: one each, the last."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], KeptScoring] = {}
        self._lost: dict[tuple[str, str], str] = {}

    def keep(self, kept: Iterable[KeptScoring]) -> None:
        """Keep scorings, each in place of the one before of its slide and model."""
        for one in kept:
            key = one.slide_ids[0], one.terms.card.name
            self._kept[key] = one
            self._lost.pop(key, None)

    def lose(self, result: SlideResult, reason: str) -> None:
        """Note that what the scoring of a result kept cannot be made again, and why, in a sentence."""
        self._lost[result.slide_id, result.model] = reason

    def lost(self, result: SlideResult) -> str:
        """Say why what the scoring of a result kept cannot be made again; empty where nobody tried."""
        return self._lost.get((result.slide_id, result.model), "")

    def of(self, result: SlideResult | None) -> KeptScoring | None:
        """Return what the scoring of a result kept, seen from its first slide; None where nothing was."""
        if result is None:
            return None
        kept = self._kept.get((result.slide_id, result.model))
        same = kept is not None and kept.slide_ids == tuple(of.slide_id for of in result.slides)
        return kept if same else None

    def keep_only(self, slide_ids: Collection[str]) -> None:
        """Let go of scorings of slides that were closed."""
        self._kept = {key: of for key, of in self._kept.items() if set(of.slide_ids) <= set(slide_ids)}
        self._lost = {key: why for key, why in self._lost.items() if key[0] in slide_ids}


def answering(
    kept: KeptScoring,
    regions: Sequence[Region] | None,
    demands: Demands,
    *,
    shown_anyway: bool,
    exact: bool,
) -> Generator[Progress, None, Followed]:
    """Answer a scoring again for regions.

    Parameters
    ----------
    kept : KeptScoring
    regions : sequence of Region or None
        None for the whole slide.
    demands : Demands
        That the answer is judged by.
    shown_anyway : bool
        Whether an answer that is withheld is shown all the same.
    exact : bool
        Whether the pixels of the regions are read where the model compares them, and both sides compared:
        once drawing rests.
    """
    yield Progress("Following the regions")
    from napari_her2.inference.sides import Sides, outer_side, side_of
    from napari_her2.methods.scoring import again

    def answer(of: Sequence[Region] | None, *, pixels: bool) -> SlideResult:
        found = again(kept, of, pixels=pixels)
        return judged_by(found, demands, shown_anyway=shown_anyway)

    result = answer(regions, pixels=exact)
    if regions is None or not exact:
        return Followed(result, None)
    yield Progress("Comparing with the rest of the slide")
    outer = outer_side(partial(answer, pixels=True), regions)
    return Followed(result, Sides(side_of(result), outer))


def rebuilding(
    result: SlideResult,
    slides: Sequence[Slide],
    regions: Sequence[Region] | None,
    demands: Demands,
) -> Generator[Progress, None, Followed]:
    """Answer a result that came back from the desk again for regions: what its scoring kept is made first.

    Parameters
    ----------
    result : SlideResult
    slides : sequence of Slide
        Those of the result, in its order.
    regions : sequence of Region or None
    demands : Demands
        As of `answering`.
    """
    load_torch()
    load_tables()
    from napari_her2.methods.rebuilding import rebuilt

    kept = yield from rebuilt(result, slides)
    followed = yield from answering(
        kept, regions, demands, shown_anyway=result.doubt.shown_anyway, exact=False
    )
    return replace(followed, rebuilt=kept)
