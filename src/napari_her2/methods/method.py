"""What a method is: everything in which one method differs from another has a name here.

Importing this room loads no PyTorch: models are listed, and cards shown, without it. What is heavy is
imported where a method begins to score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from napari_her2.models.card import PAIR

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from napari_her2.cells.rules import Rules
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.models.card import ModelCard
    from napari_her2.steps import Progress

Takes = Literal["tiles", "fields", "patches", "image", "cells"]
Explanation = Literal[
    "tile gallery", "images seen", "region Grad-CAM", "faithfulness", "representation", "cells"
]


@dataclass(frozen=True, slots=True)
class Bars:
    """What is shown of an answer as bars, one a class.

    Parameters
    ----------
    title : str
        What the lengths are: "Probabilities".
    shares : mapping of str to float
        What each bar is called, and its length, 0 to 1; empty where there are none.
    tip : str
        What they mean, in a sentence.
    spread : mapping of str to float
        Standard deviation of each, as whiskers; empty where nothing varies.
    row : str
        What a share is called in a table: "P({name})".
    number : str
        How its value is written there.
    whiskers : str
        What the whiskers are, in words; empty where there are none.
    """

    title: str
    shares: Mapping[str, float]
    tip: str
    spread: Mapping[str, float] = field(default_factory=dict)
    row: str = "P({name})"
    number: str = "{:.3f}"
    whiskers: str = ""


class Method(ABC):
    """A way from slides to a score.

    Attributes
    ----------
    name : str
        As cards write it: "attention-mil".
    title : str
        For a person.
    paper : str
        Authors, year, and where to find it.
    takes : str
        What it is shown of a slide.
    stains : tuple of str
        Of the slides that it takes; `PAIR` where it takes both slides of a case, or either.
    architectures : tuple of str
        Keys of `napari_her2.models.architectures.ARCHITECTURES`: the heads of its bundles.
    no_overlap : str
        Why its maps cannot be made smoother by overlapping tiles, behind the name of a model: "sees ...";
        empty where they can.
    needs_weights : bool
        Whether it needs a bundle; a method without one has a card of its own (`own_card`).
    explanations : frozenset of str
        How its answers can be explained; `explains` says it for one model.
    drawings : tuple of type
        Geometries that it brings along: frozen dataclasses, which kept results may hold.
    joins_bags : bool
        Whether several slides of a case can be scored as one bag of tiles (`ScoringJob.further`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    takes: ClassVar[Takes]
    stains: ClassVar[tuple[str, ...]] = ("H&E", "IHC")
    architectures: ClassVar[tuple[str, ...]] = ()
    no_overlap: ClassVar[str] = "does not make its maps from tiles by themselves"
    needs_weights: ClassVar[bool] = True
    explanations: ClassVar[frozenset[Explanation]] = frozenset()
    drawings: ClassVar[tuple[type[Any], ...]] = ()
    joins_bags: ClassVar[bool] = False

    @property
    def takes_pair(self) -> bool:
        """Whether it takes the H&E and the IHC slide of a case together."""
        return PAIR in self.stains

    @abstractmethod
    def score(self, job: ScoringJob) -> Generator[Progress, None, SlideResult]:
        """Score a slide, or the two slides of a case.

        Parameters
        ----------
        job : ScoringJob

        Yields
        ------
        Progress
            At least once a batch. Closing the generator cancels.

        Returns
        -------
        SlideResult

        Raises
        ------
        SlideError, ModelError, JobFailed
        """

    def again(self, kept: KeptScoring, regions: Regions | None, *, pixels: bool = True) -> SlideResult:
        """Answer a scoring again for other regions; nothing is embedded or measured again.

        Parameters
        ----------
        kept : KeptScoring
            From `score`, where the job asked for it.
        regions : Regions or None
            Of the first slide; None for all of its tissue.
        pixels : bool
            Whether what the pixels inside the regions look like is read from the slide, where it is open and
            the model compares that: some tenths of a second. Without it that part of the familiarity
            stays as it was for what was scored first.

        Returns
        -------
        SlideResult
            As a new scoring with these regions gives it, but for the times; with ``pixels``.

        Raises
        ------
        JobFailed
            If the regions hold nothing, or something that was not scored (`NotComputed`).
        NotImplementedError
            If the method does not keep its scorings.
        """
        raise NotImplementedError(f"{self.name} does not keep its scorings")

    def sees(self, card: ModelCard) -> str:
        """Name what a model is shown of a slide: "96 px tiles at 0.5 µm/px"."""
        return f"{card.tile_px} px tiles at {card.mpp:g} µm/px"

    def explains(self, card: ModelCard) -> frozenset[Explanation]:
        """How answers of a model can be explained; by default as those of any model of the method."""
        del card
        return self.explanations

    def any_scale(self, card: ModelCard) -> bool:
        """Whether a model takes slides of any µm/px, because it sees all tissue in one image."""
        del card
        return False

    def seen(self, scored: ScoredSlide) -> str:
        """Count what was seen of a slide: "1,234 tiles of 48 µm at 0.5 µm/px · 12.3 mm² tissue"."""
        size = f"{scored.grid.tile_um:g} µm at {scored.grid.mpp:g} µm/px"
        words = f"{len(scored.table):,} tiles of {size} · {scored.tissue_mm2:.1f} mm² tissue"
        if len(scored.corrupt):
            words += f" · {len(scored.corrupt):,} damaged tiles left out"
        return words

    def files(self, scored: ScoredSlide) -> tuple[tuple[str, Callable[[Path], None]], ...]:
        """Name what the method adds to the folder of a result, beside what every slide has.

        Parameters
        ----------
        scored : ScoredSlide

        Returns
        -------
        tuple of (str, callable)
            A name of `napari_her2.export.result_files.OF_A_METHOD`, and what writes a file of that path from
            what the slide holds: also of a result that was kept, and is read again.
        """
        del scored
        return ()

    def limit(self, scored: ScoredSlide) -> str:
        """Warn of what the method cannot see on a slide, and what follows from it; empty for nothing."""
        del scored
        return ""

    def facts(self, result: SlideResult) -> tuple[tuple[str, str], ...]:
        """How the answer came about, as names and values for a card, a table or a report."""
        return (("score of the slide", result.rule),) if result.rule else ()

    def bars(self, result: SlideResult) -> Bars:
        """Say what is shown of an answer as bars; by default its probabilities."""
        tip, whiskers, sds = "Probability of each score", "", dict[str, float]()
        between, drawn = result.doubt.spread, result.uncertainty
        if between is not None:
            sds, whiskers = dict(between.sd), f"SD between the {between.models} models that answer together"
        elif drawn is not None:
            sds = dict(zip(result.classes, map(float, drawn.sd), strict=True))
            whiskers = (
                f"SD over {drawn.draws} random bags of {drawn.bag_size} tiles: how the answer hangs on the "
                f"tiles seen, not how sure the model is"
            )
        if whiskers:
            tip += f"; whiskers: {whiskers}"
        spread = {result.named(name): sd for name, sd in sds.items()}
        named = {result.named(name): value for name, value in result.probabilities.items()}
        return Bars("Probabilities", named, tip, spread, whiskers=whiskers)

    def joined_probabilities(self, slides: Sequence[Mapping[str, float]], rule: str) -> dict[str, float]:
        """Join the answers of the slides of a case, each with probabilities of the same classes.

        Parameters
        ----------
        slides : sequence of mapping of str to float
            Class to probability, in the order of the classes.
        rule : str
            Of `napari_her2.models.case_slides.RULES`.

        Returns
        -------
        dict of str to float
        """
        from napari_her2.models.case_slides import joined_probabilities

        names = list(slides[0])
        joined = joined_probabilities([[of[name] for name in names] for of in slides], rule)
        return dict(zip(names, joined.tolist(), strict=True))

    def joined_score(self, scores: Sequence[str], classes: Sequence[str]) -> str:
        """Join the scores of the slides of a case, of a method without probabilities.

        Parameters
        ----------
        scores : sequence of str
            Of each slide a class, or nothing where it has no score.
        classes : sequence of str

        Returns
        -------
        str
            A class; empty where they give none, as by default.
        """
        del scores, classes
        return ""

    def rejudged(self, result: SlideResult, rules: Rules, calibration: str) -> SlideResult:
        """Judge the cells of a result by other rules; nothing is read or measured again.

        Parameters
        ----------
        result : SlideResult
            Of this method.
        rules : Rules
        calibration : str
            Name of the calibration that the gain is from; empty where there is none.

        Returns
        -------
        SlideResult

        Raises
        ------
        NotImplementedError
            If the method has no rules that could be changed.
        """
        raise NotImplementedError(f"{self.name} judges no cells by rules")

    def own_card(self) -> ModelCard:
        """Return the card of a method that needs no weights: it is chosen by that card's name, as models are.

        Raises
        ------
        NotImplementedError
            If the method needs weights.
        """
        raise NotImplementedError(f"{self.name} needs a model")
