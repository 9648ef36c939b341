"""HER2 IHC cell by cell, by the criteria of ASCO/CAP: membranes are measured, rules make the score.

No weights, and nothing learnt: thresholds of completeness and mass, chosen on few images and not validated,
make a class of each cell, and the criteria make a score of the percentages. Without a drawn tumour there are
percentages of all cells and no score; without a calibration every score is called uncalibrated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from napari_her2.methods.method import Bars, Method
from napari_her2.models.card import NOTICE

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.cells.reading import CellReading
    from napari_her2.cells.rules import Rules
    from napari_her2.cells.table import Cells
    from napari_her2.inference.cell_reading import MeasuredPieces, ReadCells
    from napari_her2.inference.cell_scope import CellGround, CellScope
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.kept_cells import KeptCells
    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.inference.terms import Terms
    from napari_her2.models.card import ModelCard
    from napari_her2.steps import Progress

BASIS = "measured by rules, thresholds chosen on few images, not validated"
GUIDELINE = "ASCO/CAP 2018, affirmed 2023"
TASK = f"HER2 IHC score by rules ({GUIDELINE})"


class IHCRulesMethod(Method):
    """Every cell of an IHC slide, its membrane, and the criteria."""

    name = "ihc-rules"
    title = f"HER2 IHC by rules ({GUIDELINE})"
    paper = "Wolff et al. 2023, doi:10.1200/JCO.22.02864 (criteria)"
    takes = "cells"
    stains = ("IHC",)
    needs_weights = False
    explanations = frozenset({"cells"})
    no_overlap = "counts cells, each of which lies in one tile"

    def own_card(self) -> ModelCard:
        """Return its card; see `Method.own_card`."""
        from napari_her2.models.card import ModelCard

        return ModelCard(
            name="ihc-rules",
            version="1",
            method=self.name,
            architecture="rules",
            arguments={},
            encoder=None,
            stain="IHC",
            tile_px=160,
            mpp=0.5,
            classes=("0", "1+", "2+", "3+"),
            task=TASK,
            training_data="none: thresholds chosen on few images, not validated",
            licence="BSD-3-Clause",
            intended_use=(
                "Research on HER2 IHC of the breast: completeness and strength of the membrane of each cell, "
                "in tumour that a person drew. Not for diagnosis."
            ),
            guideline=GUIDELINE,
            notice=f"{NOTICE} {BASIS[:1].upper()}{BASIS[1:]}.",
        )

    def sees(self, card: ModelCard) -> str:
        """Name what is seen; see `Method.sees`."""
        return f"every cell at {card.mpp:g} µm/px"

    def seen(self, scored: ScoredSlide) -> str:
        """Count the cells; see `Method.seen`."""
        read = 0 if scored.cells is None else len(scored.cells.cells)
        words = f"{read:,} cells at {scored.grid.mpp:g} µm/px · {scored.tissue_mm2:.1f} mm² tissue"
        if len(scored.corrupt):
            words += f" · {len(scored.corrupt):,} damaged places left out"
        return words

    def bars(self, result: SlideResult) -> Bars:
        """Show the share of the cells of each class; see `Method.bars`."""
        shares = {name: value / 100 for name, value in result.measures["percentages"].items()}
        of = result.measures["cells_of"]
        tip = f"Share of {of} in each class: measured, and no probability"
        return Bars("Share of cells", shares, tip, row="cells {name}", number="{:.1%}")

    def facts(self, result: SlideResult) -> tuple[tuple[str, str], ...]:
        """How the answer came about; see `Method.facts`."""
        from napari_her2.inference.cell_measures import cell_facts

        return (*cell_facts(result.measures), ("basis", BASIS))

    def score(self, job: ScoringJob) -> Generator[Progress, None, SlideResult]:
        """Read the cells of a slide and judge them; see `Method.score`."""
        from napari_her2.inference.cell_reading import measured_pieces
        from napari_her2.inference.cell_scope import cell_ground, cell_scope
        from napari_her2.inference.kept_cells import KeptCells
        from napari_her2.inference.kept_scoring import open_slide_or_none
        from napari_her2.inference.leaving_out import without_poor_cells
        from napari_her2.steps import Progress

        yield Progress("Finding tissue")
        ground = cell_ground(job)
        scope = yield from without_poor_cells(job, cell_scope(ground, job.regions))
        job.clock.lap("tissue")
        measured = yield from measured_pieces(
            job.slide,
            scope.area,
            preset=job.options.preset,
            cache=job.options.cache,
            stored_only=job.stored_only,
        )
        job.clock.lap("cells")
        yield Progress("Judging cells")
        if job.kept is not None:
            slides = (open_slide_or_none(job.slide),)
            of = job.terms, slides, (job.slide.slide_id,)
            job.kept.append(KeptCells(*of, ground, measured, scope.quality))
        return self._answered(job.terms, ground, scope, measured.within(scope.area))

    def again(self, kept: KeptScoring, regions: Regions | None, *, pixels: bool = True) -> SlideResult:
        """Judge the same cells for other regions; see `Method.again`.

        Places without tissue that a region reaches into are measured with ``pixels``, else left out.
        """
        from napari_her2.inference.cell_scope import cell_scope
        from napari_her2.inference.leaving_out import without_known_cells

        held = cast("KeptCells", kept)
        scope = without_known_cells(cell_scope(held.ground, regions), held.quality)
        measured = _measured_too(held, scope, pixels=pixels)
        _know(measured.every.cells, held.terms.options.cell_rules())
        return self._answered(held.anew(), held.ground, scope, measured.within(scope.area, copied=False))

    def _answered(self, terms: Terms, ground: CellGround, scope: CellScope, read: ReadCells) -> SlideResult:
        """Judge cells that were read, and assemble the result."""
        from napari_her2.inference.assemble import Answer, assemble
        from napari_her2.inference.cell_answer import reading_of, scored_cells
        from napari_her2.inference.precision import FLOAT32

        reading, warnings = reading_of(ground, terms.options, scope, read)
        slide = scored_cells(ground, scope, read, reading)
        answer = Answer(
            None,
            (slide,),
            precision=FLOAT32,
            regions=scope.words,
            measures={"fitted": read.fit.values(), "processor_seconds": read.seconds},
            warnings=(*scope.warnings, *warnings),
            doubt="not judged yet",
        )
        result = self._judged(assemble(terms, answer), reading)
        terms.clock.lap("judge")
        return replace(result, device="cpu", seconds=terms.clock.seconds)

    def joined_score(self, scores: Sequence[str], classes: Sequence[str]) -> str:
        """Return the highest score: of several specimens that which stains most decides.

        Parameters
        ----------
        scores, classes : sequence of str
            See `Method.joined_score`.
        """
        return (
            max(scores, key=list(classes).index) if scores and all(map(classes.__contains__, scores)) else ""
        )

    def rejudged(self, result: SlideResult, rules: Rules, calibration: str) -> SlideResult:
        """Judge the same cells by other rules; see `Method.rejudged`."""
        reading = result.slides[0].cells
        if reading is None:
            raise ValueError(f"a result of {self.name} holds cells")
        return self._judged(result, reading.judged_by(rules, calibration))

    def _judged(self, result: SlideResult, reading: CellReading) -> SlideResult:
        """Return a result with what follows from a reading of its cells."""
        from napari_her2.cells.deciding import changed_words
        from napari_her2.cells.summary import summarised
        from napari_her2.inference.assemble import score_label
        from napari_her2.inference.cell_answer import with_reading
        from napari_her2.inference.cell_measures import cell_measures, task_words
        from napari_her2.inference.presentation import task_in_words

        before = result.slides[0].cells
        known = () if before is None else changed_words(before.rules)
        slide = with_reading(result.slides[0], reading)
        summary = summarised(reading)
        label, reason = score_label(summary.score, " ".join(summary.reasons), self.own_card())
        if summary.alternatives and not reason:
            label = f"{label}, borderline with {' or '.join(summary.alternatives)}"
        gain = reading.rules.gain if reading.calibration else None
        return replace(
            result,
            slides=(slide, *result.slides[1:]),
            asked=result.asked
            and result.asked.with_options(rules=reading.rules, calibration=reading.calibration, gain=gain),
            task=task_in_words(task_words(TASK, reading), (slide,)),
            score=summary.score,
            label=label,
            reason=reason,
            abstained=bool(reason),
            rule=summary.why,
            measures={**result.measures, **cell_measures(reading, summary)},
            warnings=(
                *changed_words(reading.rules),
                *(warning for warning in result.warnings if warning not in known),
            ),
        )


def _know(cells: Cells, rules: Rules) -> None:
    """Judge the membrane of every measured cell once, so that each region only has to pick."""
    from napari_her2.cells.rules import Rules, completeness, lateral_mass, membrane_mass

    completeness(cells, Rules())  # which lymphocytes and stromal cells are left out by
    completeness(cells, rules)
    membrane_mass(cells)
    if rules.gastric:
        lateral_mass(cells, rules)


def _measured_too(held: KeptCells, scope: CellScope, *, pixels: bool) -> MeasuredPieces:
    """Return what was measured, with the places that regions reach into and that hold no tissue."""
    from napari_her2.cells.areas import TissueArea
    from napari_her2.inference.cell_reading import measured_pieces
    from napari_her2.inference.kept_scoring import NotComputed
    from napari_her2.steps import finished

    measured, tissue, options = held.measured, held.ground.tissue, held.terms.options
    missing = measured.missing(scope.area)
    if not len(missing):
        return measured
    if not tissue.mask.any() or TissueArea(tissue).meets(measured.boxes_px0(missing)).any():
        raise NotComputed(
            f"The cells of {len(missing):,} places in the regions were not measured yet: press Score to "
            f"measure them."
        )
    slide = held.slides[0]()
    if slide is None or not pixels or not options.cache:
        return measured
    return finished(measured_pieces(slide, scope.area, preset=options.preset))
