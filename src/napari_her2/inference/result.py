"""What scoring says: progress on the way, maps and the slide's result at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_her2.explain.geometries import TILES, TISSUE, Outline, TileValues, frames_of, images_seen
from napari_her2.explain.overlays import RAW, grouped
from napari_her2.inference.class_words import class_name, with_ish
from napari_her2.inference.doubt import NO_DOUBT_KNOWN, NOTHING_KNOWN, Doubt, SlideFamiliarity
from napari_her2.models.card import BOTH, NOTICE
from napari_her2.models.case_slides import EACH, MEAN
from napari_her2.models.class_scores import findings_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading
    from napari_her2.explain.maps import TileMap
    from napari_her2.explain.overlays import Drawing, Overlay, OverlayInfo
    from napari_her2.inference.asked import Asked
    from napari_her2.models.answer_sets import AnswerSets
    from napari_her2.models.bags import BagUncertainty
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.quality import Quality
    from napari_her2.slide.thumbnail import Thumbnail
    from napari_her2.slide.tissue import TissueMask


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of long work, yielded by the generators of this package.

    Parameters
    ----------
    stage : str
        What is being done, for a person: "Finding tissue", "Embedding tiles".
    done, total : int
        Units done and to be done in this stage; ``total`` 0 means not known.
    unit : str
        What is counted ("tiles").
    note : str
        Anything worth a line: which device, that the cache was used, memory was short.
    values : mapping of str to float
        Measures of a finished epoch of training ("train_loss", "validation_loss", ...); empty for all other
        reports.
    fold, folds : int
        Which fold of a training it is, counted from 1, and how many there are; 0 where there is one split.
    epoch, epochs : int
        Epochs of a training that are finished, and how many there will be; 0 for all other work.
    """

    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""
    note: str = ""
    values: Mapping[str, float] = field(default_factory=dict, hash=False)
    fold: int = 0
    folds: int = 0
    epoch: int = 0
    epochs: int = 0

    @property
    def title(self) -> str:
        """Stage and fold, for a person: "Training abmil, fold 2 of 5"."""
        return f"{self.stage}, fold {self.fold} of {self.folds}" if self.folds > 1 else self.stage

    @property
    def lasting(self) -> bool:
        """Whether it has to be shown even where newer ones of the same stage follow at once."""
        return False


@dataclass(frozen=True, slots=True, eq=False)
class TileTable:
    """What the model says of each tile, in the order of scoring.

    Parameters
    ----------
    index : (N, 2) int64
        (row, column) on the grid.
    origins_px0 : (N, 2) int64
        (y, x) of the corner, level-0 pixels.
    attention : (N,) float32 or None
        Attention weights; they sum to (about) one over the slide. None where the method has none: then
        nothing ranks the tiles.
    evidence : (N, C) float32 or None
        Signed class evidence; its mean over the tiles plus the bias is the logit. None where the method
        cannot tell it.
    probabilities : (N, C) float32 or None
        Of each tile by itself, where the method scores tiles.
    confidence : (N,) float32 or None
        That the model has in its score of each tile, 0 to 1: learnt, not a probability of being right. None
        where it has learnt none.
    """

    index: NDArray[np.int64]
    origins_px0: NDArray[np.int64]
    attention: NDArray[np.float32] | None
    evidence: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None = None
    confidence: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredSlide:
    """One slide of a result: which tiles were scored, and the maps over it.

    Parameters
    ----------
    name : str
    path : Path
    slide_id : str
        Of the open slide (`Slide.slide_id`): the viewer lays the result over it.
    fingerprint : str
        Of all its content (`Slide.fingerprint`).
    sha256_head : str
        SHA-256 over the size and the first and last MiB of its file (`Identity.head`).
    stain : str
        What the slide was scored as: "H&E" or "IHC".
    looks_like : str
        The stain that its colours show: "H&E", "IHC" or "unknown"; empty where nobody looked.
    table : TileTable
    maps : tuple of TileMap
    grid : TileGrid
    tissue_mm2 : float
    corrupt : (K, 2) int64
        (row, column) of tiles left out because the file is damaged there.
    tissue : TissueMask or None
        What was taken for tissue.
    compared : int
        How many of the most and how many of the least attended tiles the method compares with those of
        the other slide; 0 where it compares none.
    thumbnails : tuple of Thumbnail
        The images that the model was shown, where it takes images of the whole tissue.
    mpp_source : str
        Where the µm/px of the slide come from, `Slide.mpp_source`; empty where nobody noted it.
    extras : tuple of Drawing
        What the method draws beside maps.
    tiles_info : OverlayInfo
        What a tile is called, and how one is described.
    cells : CellReading or None
        The cells that were read, where the method reads cells.
    familiarity : SlideFamiliarity
        How much the slide looks like what the model learnt from; "not known" where the model cannot tell.
    quality : Quality or None
        What is wrong with which tiles, and whether they were left out; None where nobody looked.
    alone : mapping of str to float
        Where several slides are one bag: the probabilities that the model gives this one by itself.
    bounds_px0 : tuple of float
        (y, x) of the level-0 pixel that QuPath counts from; see `napari_her2.slide.frame.SlideFrame`.
    smooth : tuple of TileMap
        Of overlapping tiles, each shown in place of that of ``maps`` of its kind, class and scale; empty
        unless they were asked for. See `napari_her2.explain.smooth`.
    """

    name: str
    path: Path
    slide_id: str
    fingerprint: str
    sha256_head: str
    stain: str
    table: TileTable
    maps: tuple[TileMap, ...]
    grid: TileGrid
    tissue_mm2: float
    corrupt: NDArray[np.int64]
    tissue: TissueMask | None = None
    compared: int = 0
    thumbnails: tuple[Thumbnail, ...] = ()
    looks_like: str = ""
    mpp_source: str = ""
    extras: tuple[Drawing, ...] = ()
    tiles_info: OverlayInfo = TILES
    cells: CellReading | None = None
    familiarity: SlideFamiliarity = NOTHING_KNOWN
    quality: Quality | None = None
    alone: Mapping[str, float] = field(default_factory=dict)
    bounds_px0: tuple[float, float] = (0.0, 0.0)
    smooth: tuple[TileMap, ...] = ()

    @property
    def shown_maps(self) -> tuple[TileMap, ...]:
        """The maps as they are looked at: where there is a smoother one, that."""
        smooth = {(of.kind, of.class_name, of.info.scale): of for of in self.smooth}
        return tuple(smooth.get((of.kind, of.class_name, of.info.scale), of) for of in self.maps)

    @property
    def ranks(self) -> TileMap | None:
        """The map that puts the tiles in order; None where the method has none."""
        return next((tile_map for tile_map in self.maps if tile_map.info.ranking is not None), None)

    @property
    def overlays(self) -> tuple[Overlay, ...]:
        """Everything that can be laid over the slide, in the order in which it is offered."""
        drawings: list[Drawing] = [of for of in self.shown_maps if of.info.is_map or of.holds_any]
        drawings += [*self.extras, *images_seen(self.thumbnails)]
        if self.ranks is not None and len(self.table):
            drawings.append(frames_of(self.ranks, self.table.index))
        if self.tissue is not None:
            drawings.append(Outline(TISSUE, self.tissue))
        drawings.append(TileValues(self.tiles_info, self.maps, self.table.index, self.grid))
        return grouped(drawings)


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
