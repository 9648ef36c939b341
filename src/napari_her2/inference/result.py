"""What a scoring returns: the answer for a slide or a case, how sure it is, and what it was made from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_her2.explain.overlays import RAW
from napari_her2.inference.class_words import class_name, with_ish
from napari_her2.inference.doubt import NO_DOUBT_KNOWN, Doubt
from napari_her2.models.card import BOTH, NOTICE
from napari_her2.models.case_slides import EACH, MEAN
from napari_her2.models.class_scores import findings_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap
    from napari_her2.explain.overlays import Overlay
    from napari_her2.inference.asked import Asked
    from napari_her2.inference.scored_slide import ScoredSlide, TileTable
    from napari_her2.models.answer_sets import AnswerSets
    from napari_her2.models.bags import BagUncertainty
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.thumbnail import Thumbnail
    from napari_her2.slide.tissue import TissueMask


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """What an answer has to reach, whatever its doubt.

    Parameters
    ----------
    min_confidence : float or None
        Least probability of the top class, where the user or the card of the model asks for one.
    min_tiles : int
    reason : str
        Why the method itself gives no answer; empty where nothing speaks against it.
    class_labels : mapping of str to str
        How the card of the model words its classes.
    case_slides, case_rule : str
        What several slides of a case were when the model was calibrated, as its card has it.
    """

    min_confidence: float | None = None
    min_tiles: int = 0
    reason: str = ""
    class_labels: Mapping[str, str] = field(default_factory=dict)
    case_slides: str = EACH
    case_rule: str = MEAN


NO_LIMITS = AnswerLimits()


@dataclass(frozen=True, slots=True)
class CaseOf:
    """The case that a scored slide is of, where somebody named it.

    Parameters
    ----------
    case_id : str
    scorings : int
        Slides of the case of one stain, or pairs of slides: as many answers it has, unless they are joined.
    way, rule : str
        Of `napari_her2.models.case_slides.WAYS` and `RULES`: how one answer comes of them.
    """

    case_id: str
    scorings: int = 1
    way: str = EACH
    rule: str = MEAN


@dataclass(frozen=True, slots=True, eq=False)
class SlideResult:
    """A scored slide, or the slides of a case scored together: the answer, how sure, why, and from what.

    What concerns one slide (`slide`, `table`, `maps`, ...) is that of the first of ``slides``; `seen_from`
    gives the same result with another slide first.

    Parameters
    ----------
    slides : tuple of ScoredSlide
        One, or the H&E and the IHC slide of a case.
    method : str
        Of the model: a key of `napari_her2.methods.catalogue.METHODS`.
    model, model_sha256 : str
        Name of the model, and SHA-256 of its file.
    task : str
        Stain and task, always shown with the score: "H&E-based prediction of the HER2 IHC score".
    classes : tuple of str
        In the order of the probabilities: ("0", "1+", "2+", "3+").
    probabilities : mapping of str to float
        Empty of a method that has none: what it measures instead stands in ``measures``.
    score : str
        The most probable class, or what the method says; empty where there is none.
    label : str
        The class as it is shown: "2+ (equivocal, ISH required)", or "indeterminate" with a reason.
    abstained : bool
        Whether there is no answer: too little tissue, too unsure, or a slide that is unlike what the model
        learnt from, of which an answer that is shown all the same is still withheld.
    uncertainty : BagUncertainty or None
        None where the method has none, or with fewer tiles than one bag.
    device : str
        With the reason when it is the CPU: "cpu (no CUDA or MPS device found)".
    seconds : mapping of str to float
        Wall time of each stage.
    warnings : tuple of str
    version : str
        Of napari-her2.
    notice : str
        Shown wherever the score is shown.
    training_data, guideline : str
        What the model was trained on, and whose criteria its labels follow.
    regions : str or None
        What the scoring was limited to ("tumour.geojson", "2 drawn regions"), None for the whole tissue.
    head : str
        Which head of the model gave the answer: "fusion", "H&E" or "IHC"; empty where it has one only.
    heads : mapping of str to mapping of str to float
        Probabilities of every head that could speak, that of ``head`` among them.
    rule : str
        How scores of tiles became that of the slide, in words; empty where the model scores slides.
    trust : mapping of str to float
        Share of the tiles that the model trusts highly, moderately and little ("high", "medium", "low");
        empty where it does not say.
    class_scores : mapping of str to tuple of str
        Which scores each class holds, where the card of the model says it.
    precision : str
        In which the features of the tiles were computed ("float32", "bfloat16", "float16"); scores of tiles,
        and what follows from features, are float32 always. Empty where an older version did not say.
    reason : str
        Why the answer is withheld; empty where it is given.
    measures : mapping of str to plain values
        What the method measured, as it stands in result.json beside what every result has: numbers (NaN
        where there is none), texts, lists and mappings of them.
    doubt : Doubt
        How far the answer can be trusted: its set and promise, how familiar the slides are, how far the
        models of an ensemble part.
    answer_sets : AnswerSets or None
        Of the model, so that the same result can be judged for another coverage; None where it has none.
    limits : AnswerLimits
        What the answer has to reach, for the same reason.
    asked : Asked or None
        What was asked, so that it can be asked again; None of older results.
    case : CaseOf or None
        Whose slide it is; None where nobody named it.
    """

    slides: tuple[ScoredSlide, ...]
    method: str
    model: str
    model_sha256: str
    task: str
    classes: tuple[str, ...]
    probabilities: Mapping[str, float]
    score: str
    label: str
    abstained: bool
    uncertainty: BagUncertainty | None
    device: str
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    version: str
    notice: str = field(default=NOTICE)
    training_data: str = ""
    guideline: str = ""
    regions: str | None = None
    head: str = ""
    heads: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rule: str = ""
    trust: Mapping[str, float] = field(default_factory=dict)
    class_scores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    precision: str = ""
    reason: str = ""
    measures: Mapping[str, Any] = field(default_factory=dict)
    doubt: Doubt = NO_DOUBT_KNOWN
    answer_sets: AnswerSets | None = None
    limits: AnswerLimits = NO_LIMITS
    asked: Asked | None = None
    case: CaseOf | None = None

    @property
    def slide(self) -> str:
        """Name of the slide."""
        return self.slides[0].name

    @property
    def slide_path(self) -> Path:
        """File of the slide."""
        return self.slides[0].path

    @property
    def slide_id(self) -> str:
        """Which open slide it is."""
        return self.slides[0].slide_id

    @property
    def slide_sha256(self) -> str:
        """Fingerprint of the slide, of all its content."""
        return self.slides[0].fingerprint

    @property
    def slide_sha256_head(self) -> str:
        """SHA-256 over the size and the first and last MiB of the slide file."""
        return self.slides[0].sha256_head

    @property
    def table(self) -> TileTable:
        """Tiles of the slide."""
        return self.slides[0].table

    @property
    def maps(self) -> tuple[TileMap, ...]:
        """Maps over the slide."""
        return self.slides[0].maps

    @property
    def grid(self) -> TileGrid:
        """Tile grid of the slide."""
        return self.slides[0].grid

    @property
    def tissue_mm2(self) -> float:
        """Tissue of the slide that was scored, mm²."""
        return self.slides[0].tissue_mm2

    @property
    def corrupt(self) -> NDArray[np.int64]:
        """(K, 2) int64, tiles of the slide that are damaged."""
        return self.slides[0].corrupt

    @property
    def tissue(self) -> TissueMask | None:
        """What was taken for tissue on the slide."""
        return self.slides[0].tissue

    @property
    def confidence(self) -> float:
        """Probability of the top class; NaN where the method has no probabilities."""
        return self.probabilities[self.score] if self.probabilities else math.nan

    @property
    def margin(self) -> float:
        """Probability of the top class minus that of the second; NaN where there are none."""
        if not self.probabilities:
            return math.nan
        ordered = sorted(self.probabilities.values(), reverse=True)
        return ordered[0] - ordered[1] if len(ordered) > 1 else ordered[0]

    def named(self, name: str) -> str:
        """How a class is named beside a number: "High (3+)"."""
        return class_name(name, self.class_scores)

    def with_ish(self, ish: str) -> str:
        """Say what an ISH result of the user's would mean for the answer, which stays as it is; see there."""
        if self.abstained:
            return ""
        answer = self.doubt.answer
        if answer is None or len(answer.classes) < 2:
            return with_ish(self.score, ish, self.class_scores)
        # A set of classes holds what its classes hold.
        name = " or ".join(map(self.named, answer.classes))
        held = [finding for own in answer.classes for finding in findings_of(own, self.class_scores)]
        return with_ish(name, ish, {name: tuple(dict.fromkeys(held))})

    @property
    def head_scores(self) -> dict[str, str]:
        """Most probable class of every head."""
        return {head: max(chances, key=lambda name: chances[name]) for head, chances in self.heads.items()}

    @property
    def agree(self) -> bool | None:
        """Whether the heads of the two slides name the same class; None where there are not two."""
        single = [score for head, score in self.head_scores.items() if head != BOTH]
        return single[0] == single[1] if len(single) == 2 else None

    @property
    def thumbnails(self) -> tuple[Thumbnail, ...]:
        """Images of the slide that the model was shown, where it takes images of the whole tissue."""
        return self.slides[0].thumbnails

    @property
    def overlays(self) -> tuple[Overlay, ...]:
        """Everything that can be laid over the slide, in the order in which it is offered."""
        return self.slides[0].overlays

    def map(self, kind: str, class_name: str | None = None, scale: str = RAW) -> TileMap:
        """Return the map of a kind, of a class where it has one, and of a scale.

        Raises
        ------
        KeyError
            If there is no such map.
        """
        for tile_map in self.maps:
            if (tile_map.kind, tile_map.class_name, tile_map.info.scale) == (kind, class_name, scale):
                return tile_map
        raise KeyError(f"{kind} {class_name or ''}".strip())

    def seen_from(self, slide_id: str) -> SlideResult:
        """Return the same result with this slide first.

        Raises
        ------
        KeyError
            If the slide was not scored here.
        """
        own = [slide for slide in self.slides if slide.slide_id == slide_id]
        if not own:
            raise KeyError(slide_id)
        others = [slide for slide in self.slides if slide.slide_id != slide_id]
        return replace(self, slides=(*own, *others))
