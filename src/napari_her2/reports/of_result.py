"""The page of a result: of a slide, or of the slides of a case."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.deciding import deciding_cells, why
from napari_her2.cohort.case_answer import case_answer
from napari_her2.desk.own_score import ManualScore, category_beside
from napari_her2.explain.colours import coloured
from napari_her2.explain.geometries import frames_of
from napari_her2.explain.maps import TileMap
from napari_her2.export.case import joining_values
from napari_her2.inference.presentation import answer_classes, heading, trust_parts
from napari_her2.inference.withheld import without_answer
from napari_her2.methods.catalogue import METHODS
from napari_her2.models.case_slides import JOINED_BAGS
from napari_her2.number_words import counted
from napari_her2.reports.facts import case_table, tables_of
from napari_her2.reports.page import Answer, Bar, Page, Picture, Row
from napari_her2.reports.pictures import map_picture, place_picture, png_of, slide_picture, view_of
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_her2.cohort.case_answer import CaseAnswer
    from napari_her2.inference.region_kinds import Region
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.reader import Slide

SHOWN_TILES = 8
SHOWN_IMAGES, MOST_WARNINGS = 4, 8
MAPS_OF_ONE, MAPS_OF_PAIR = 2, 2
_CELL_UM = 24.0
_NOT_AT_HAND = "The file of the slide was not at hand: maps lie over white, and no tile is shown."


@dataclass(frozen=True, slots=True)
class Desk:
    """What a report shows beside the result: what a person left on the slide, and what is known of the model.

    Parameters
    ----------
    manual : ManualScore
        The pathologist's own.
    regions : sequence of Region
        On the first slide; where there are none, those that were asked for.
    card : ModelCard or None
        Of the model, where it is at hand.
    when : datetime or None
        Time of the report; now.
    case : CaseAnswer or None
        Of the case, where it has several slides; that of one bag is found by itself.
    """

    manual: ManualScore = field(default_factory=ManualScore)
    regions: Sequence[Region] = ()
    card: ModelCard | None = None
    when: datetime | None = None
    case: CaseAnswer | None = None


def report_steps(
    result: SlideResult, slides: Mapping[str, Slide] | None = None, desk: Desk | None = None
) -> Generator[Progress, None, Page]:
    """Make the page of a result.

    Parameters
    ----------
    result : SlideResult
        An answer that is withheld, and not shown anyway, stands nowhere on the page.
    slides : mapping of str to Slide, optional
        Open slides by their fingerprint; of those that are missing the page says so.
    desk : Desk, optional

    Yields
    ------
    Progress

    Returns
    -------
    Page
    """
    beside, opened = desk or Desk(), slides or {}
    seen = without_answer(result)
    regions = _regions(result, beside)
    rows: list[Row] = []
    for number, scored in enumerate(seen.slides):
        yield Progress("Drawing the report", number, len(seen.slides), "slides")
        slide = opened.get(scored.fingerprint)
        here = regions if number == 0 else ()
        rows.append(_maps_row(seen, scored, slide, here))
        yield Progress("Drawing the report", number, len(seen.slides), "slides")
        rows += _places_row(seen, scored, slide)
    case = beside.case or _case_of(result)
    left, right = tables_of(seen, opened, regions, beside.manual, beside.card)
    when = beside.when or datetime.now(UTC)
    return Page(
        title=f"HER2 report: {' and '.join(scored.name for scored in seen.slides)}",
        subtitle=f"Written on {when:%Y-%m-%d %H:%M %Z} by napari-her2",
        notice=seen.notice,
        answer=_answer(seen, beside.manual, case),
        rows=tuple(rows),
        left=left,
        right=right,
        wide=() if case is None else (case_table(case),),
        warnings=_first_warnings(seen),
    )


def _case_of(result: SlideResult) -> CaseAnswer | None:
    return None if result.case is None or len(result.slides) < 2 else case_answer([joining_values(result)])


def _first_warnings(result: SlideResult) -> tuple[str, ...]:
    """Keep what a page has room for, and say how many more there are."""
    more = len(result.warnings) - MOST_WARNINGS
    return (*result.warnings[:MOST_WARNINGS], *((f"{more:,} more in result.json.",) if more > 0 else ()))


def _regions(result: SlideResult, desk: Desk) -> tuple[Region, ...]:
    if desk.regions or result.asked is None or result.asked.regions is None:
        return tuple(desk.regions)
    return tuple(region.region() for region in result.asked.regions)


def _answer(result: SlideResult, manual: ManualScore, case: CaseAnswer | None) -> Answer:
    doubt, method = result.doubt, METHODS[result.method]
    lines = []
    if case is not None:
        one_bag = result.case is not None and result.case.way == JOINED_BAGS
        said = "all tiles as one bag" if one_bag else case.label
        lines.append(f"Case {case.case_id} ({counted(len(case.slides), 'slide')}): {said}")
    if doubt.withheld and doubt.shown_anyway:
        lines.append(f"⚠ Withheld, and shown on request: {result.reason}.")
    elif result.reason:
        lines.append(_sentence(result.reason))
    trust = " · ".join(trust_parts(result))
    lines += [_sentence(trust)] if trust else []
    if category := category_beside(manual, result):
        lines.append(f"By the pathologist's own reading: {category}" if manual.category() else category)
    bars = method.bars(result)
    strong = {result.named(name) for name in answer_classes(result)}
    shown = tuple(
        Bar(name, share, _bar_text(bars.number.format(share), bars.spread.get(name)), name in strong)
        for name, share in bars.shares.items()
    )
    greyed = doubt.withheld and doubt.shown_anyway
    return Answer(result.task, heading(result), tuple(lines), greyed, bars.title, shown)


def _bar_text(value: str, sd: float | None) -> str:
    return value if sd is None else f"{value} (SD {sd:.3f})"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _maps_row(
    result: SlideResult, scored: ScoredSlide, slide: Slide | None, regions: Sequence[Region]
) -> Row:
    """Show the slide, and the first of its maps, each as its overlay describes itself."""
    view = view_of(scored, slide)
    pair = len(result.slides) > 1
    pictures = [slide_picture(scored, view, regions, "Slide")]
    for tile_map in _first_maps(result, scored)[: MAPS_OF_PAIR if pair else MAPS_OF_ONE]:
        title = tile_map.info.title
        if tile_map.class_name is not None:
            title = f"{title}: {result.named(tile_map.class_name)}"
        pictures.append(map_picture(scored, view, tile_map, title, result.named))
    note = "" if slide is not None else _NOT_AT_HAND
    title = f"{scored.stain}: {scored.name}" if pair else "Maps"
    return Row(title, tuple(pictures), note, 140 if pair else 200)


def _first_maps(result: SlideResult, scored: ScoredSlide) -> list[TileMap]:
    """List the maps that show anything, those first that the viewer shows unasked."""
    found = []
    for overlay in scored.overlays:
        drawing = overlay.chosen(result.score or None)
        if isinstance(drawing, TileMap) and _shows_anything(drawing):
            found.append(drawing)
    return sorted(found, key=lambda of: not of.info.visible)


def _shows_anything(tile_map: TileMap) -> bool:
    listed = tile_map.info.is_map and bool(tile_map.info.title)
    return listed and bool(coloured(tile_map)[..., 3].any())


def _places_row(result: SlideResult, scored: ScoredSlide, slide: Slide | None) -> list[Row]:
    """Tiles, cells or images that decided; nothing where none did more than others."""
    of = f" ({scored.stain})" if len(result.slides) > 1 else ""
    height = 62 if len(result.slides) > 1 else 76
    if scored.thumbnails:
        return [Row(f"What the model saw{of}", _images(scored), height_px=120)]
    if scored.cells is not None:
        title = "The cells nearest to a threshold of the rules, with their class"
        pictures = () if slide is None else _cells(scored, slide)
    elif scored.ranks is not None:
        frames = frames_of(scored.ranks, scored.table.index)
        title = f"The most {frames.ranking.adjective} tiles, of {scored.grid.tile_um:g} µm{of}"
        pictures = () if slide is None else _tiles(scored, slide, frames.first(SHOWN_TILES).tolist())
    else:
        return []
    note = "" if slide is not None else "They are cut from the file of the slide, which was not at hand."
    return [Row(title, pictures, note, height)] if pictures or slide is None else []


def _tiles(scored: ScoredSlide, slide: Slide, first: Sequence[int]) -> tuple[Picture, ...]:
    assert scored.ranks is not None
    grid, index = scored.grid, scored.table.index
    found = []
    for place, tile in enumerate(first, start=1):
        middle = (index[tile] + 0.5) * grid.tile_px0
        picture = place_picture(slide, (middle[0], middle[1]), grid.tile_px0, f"{place}")
        found += [] if picture is None else [picture]
    return tuple(found)


def _cells(scored: ScoredSlide, slide: Slide) -> tuple[Picture, ...]:
    reading = scored.cells
    assert reading is not None
    found, side = [], _CELL_UM / np.asarray(scored.grid.slide_mpp)
    for number in deciding_cells(reading, SHOWN_TILES).tolist():
        middle = reading.cells.centre_um[number].astype(np.float64) / scored.grid.slide_mpp
        caption = why(reading, number).rpartition(": ")[2]
        picture = place_picture(slide, (middle[0], middle[1]), (side[0], side[1]), caption)
        found += [] if picture is None else [picture]
    return tuple(found)


def _images(scored: ScoredSlide) -> tuple[Picture, ...]:
    return tuple(
        Picture("", png_of(seen.rgb), (seen.size_px, seen.size_px), f"{seen.mpp:.3g} µm/px")
        for seen in scored.thumbnails[:SHOWN_IMAGES]
    )
