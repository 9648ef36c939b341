"""Tables of a report: which slide, which model, how the answer came about, and what made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.inference.class_words import class_names
from napari_her2.inference.region_kinds import KINDS
from napari_her2.methods.catalogue import METHODS
from napari_her2.reports.page import Table
from napari_her2.slide.quality_limits import REASONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_her2.cohort.case_answer import CaseAnswer
    from napari_her2.desk.own_score import ManualScore
    from napari_her2.inference.region_kinds import Region
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.reader import Slide

Rows = tuple[tuple[str, ...], ...]
MOST_REGIONS, MOST_FACTS = 8, 14
_SHORT = 16
"""Digits of a hash: enough to tell it from all others that anybody will ever see."""


def tables_of(
    result: SlideResult,
    slides: Mapping[str, Slide],
    regions: Sequence[Region],
    manual: ManualScore,
    card: ModelCard | None,
) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
    """Return the tables of both columns.

    Parameters
    ----------
    result : SlideResult
        As it may be seen.
    slides : mapping of str to Slide
        Open slides by their fingerprint.
    regions : sequence of Region
    manual : ManualScore
    card : ModelCard or None
    """
    left = [
        Table(_of("Slide", scored, result), _slide_rows(scored, slides.get(scored.fingerprint)))
        for scored in result.slides
    ]
    if regions:
        left.append(_regions_table(result.slides[0], regions))
    if manual.given:
        left.append(Table("Own reading", _manual_rows(manual)))
    right = [
        Table("How the answer came about", _answer_rows(result)),
        Table("Model", _model_rows(result, card)),
        Table("Made by", _made_rows(result)),
    ]
    return tuple(left), tuple(right)


def case_table(case: CaseAnswer) -> Table:
    """Return what is said of a case, and of each of its slides.

    Parameters
    ----------
    case : CaseAnswer
        As far as it may be seen.
    """
    rows = tuple((slide.name, slide.answer, slide.familiarity) for slide in case.slides)
    return Table(
        f"Case {case.case_id}: {case.label}",
        rows,
        ("slide", "by itself", "like what the model learnt from"),
        f"{case.task}. {case.joined[:1].upper()}{case.joined[1:]}. {case.doubt[:1].upper()}{case.doubt[1:]}.",
    )


def _of(title: str, scored: ScoredSlide, result: SlideResult) -> str:
    return f"{title} ({scored.stain})" if len(result.slides) > 1 else title


def _slide_rows(scored: ScoredSlide, slide: Slide | None) -> Rows:
    grid = scored.grid
    y, x = grid.slide_mpp
    scale = f"{x:.4g}" if abs(y - x) < 1e-4 * x else f"{x:.4g} × {y:.4g}"
    source = f" ({scored.mpp_source})" if scored.mpp_source else ""
    height, width = grid.slide_shape_px0
    stain = scored.stain
    if scored.looks_like not in ("", scored.stain):
        stain += f", looks like {scored.looks_like}"
    rows = [
        ("file", scored.path.name),
        ("content", f"SHA-256 {scored.fingerprint[:_SHORT]}"),
        ("stain", stain),
        ("scale", f"{scale} µm/px{source}"),
        ("size", f"{width:,} × {height:,} px, {width * x / 1000:.1f} × {height * y / 1000:.1f} mm"),
    ]
    if slide is not None:
        objective = f", {slide.objective:g}× objective" if slide.objective else ""
        rows.append(("scanner", f"{slide.vendor or 'not stated'}{objective}"))
    rows.append(("damaged", f"{len(scored.corrupt):,} tiles left out" if len(scored.corrupt) else "nothing"))
    return tuple(rows)


def _regions_table(scored: ScoredSlide, regions: Sequence[Region]) -> Table:
    """Names, kinds and areas; of many the largest."""
    pixel_mm2 = scored.grid.slide_mpp[0] * scored.grid.slide_mpp[1] / 1e6
    each = sorted(((region.area.area * pixel_mm2, region) for region in regions), key=lambda of: -of[0])
    rows = tuple(
        (
            region.name or "without a name",
            KINDS[region.kind].title,
            "counted" if region.included else "left out",
            f"{mm2:.3g} mm²",
        )
        for mm2, region in each[:MOST_REGIONS]
    )
    more = len(each) - len(rows)
    note = f"and {more:,} smaller ones" if more else ""
    return Table("Drawn regions", rows, ("region", "kind", "", "area"), note)


def _manual_rows(manual: ManualScore) -> Rows:
    named = (("score", manual.score), ("ISH", manual.ish), ("category", manual.category()))
    note = (("note", manual.note),) if manual.note else ()
    return (*((name, value) for name, value in named if value), *note)


def _answer_rows(result: SlideResult) -> Rows:
    method = METHODS[result.method]
    rows = [("seen" if len(result.slides) == 1 else s.stain, method.seen(s)) for s in result.slides]
    rows.append(("limited to", result.regions or "nothing: all of the tissue"))
    rows += [(_of("quality", s, result), words) for s in result.slides if (words := _quality_words(s))]
    if result.head:
        rows.append(("head", f"{result.head}{_agreement(result)}"))
    rows += _first(method.facts(result))
    if whiskers := method.bars(result).whiskers:
        rows.append(("SD", whiskers.removeprefix("SD ")))
    rows += [("limit", words) for s in result.slides if (words := method.limit(s))]
    return tuple(rows)


def _first(facts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keep what a page has room for: of cells there is a fact for each of any number of regions."""
    more = len(facts) - MOST_FACTS
    return [*facts[:MOST_FACTS], *([("more", f"{more:,} lines in result.json")] if more > 0 else [])]


def _agreement(result: SlideResult) -> str:
    if result.agree is None:
        return ""
    each = ", ".join(f"{head} {result.named(score)}" for head, score in result.head_scores.items())
    return f" ({each}: they {'agree' if result.agree else 'do not agree'})"


def _quality_words(scored: ScoredSlide) -> str:
    """How much is poor, and whether it was left out; empty where nobody looked."""
    quality = scored.quality
    if quality is None:
        return ""
    shares = ", ".join(f"{REASONS[name]} {share:.1%}" for name, share in quality.shares.items() if share)
    what = "left out" if quality.left_out else "not left out"
    return f"{quality.share:.1%} of the tissue is poor, {what}{f': {shares}' if shares else ''}"


def _model_rows(result: SlideResult, card: ModelCard | None) -> Rows:
    method = METHODS[result.method]
    version = "" if card is None else f", version {card.version}"
    rows = [
        ("model", f"{result.model}{version}: {method.title}"),
        ("file", f"SHA-256 {result.model_sha256[:_SHORT]}"),
    ]
    if method.needs_weights:
        rows.append(("trained on", result.training_data or "not stated"))
    rows.append(("criteria", result.guideline or "not stated"))
    if result.class_scores:
        rows.append(("classes", ", ".join(class_names(result.classes, result.class_scores).values())))
    if card is not None:
        rows += [("use", card.intended_use), ("licence", card.licence), ("sees", method.sees(card))]
    rows.append(("method", method.paper))
    return tuple(rows)


def _made_rows(result: SlideResult) -> Rows:
    seconds = sum(result.seconds.values())
    asked = result.asked
    rows = [
        ("napari-her2", f"{result.version}{'' if asked is None else f', PyTorch {asked.torch}'}"),
        ("device", result.device),
        ("precision", f"features {result.precision or 'not stated'}, scores float32"),
        ("time", f"{seconds:.1f} s"),
    ]
    if asked is not None:
        rows.append(("read with", ", ".join(dict.fromkeys(slide.backend for slide in asked.slides))))
    return tuple(rows)
