"""The cases that a model is wrong about, with the regions that it used."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps

from napari_her2.errors import Her2Error
from napari_her2.explain.maps import TileMap, limits_of
from napari_her2.methods.scoring import score_steps
from napari_her2.models.bundle import load_bundle
from napari_her2.models.card import PAIR
from napari_her2.models.case_slides import EACH, JOINED_BAGS
from napari_her2.slide.reader import open_slide
from napari_her2.steps import Progress
from napari_her2_training.cohort.features import holds_features
from napari_her2_training.cohort.manifest import STAINS
from napari_her2_training.reporting.plots import as_image, new_axes
from napari_her2_training.reporting.slides import model_of_fold, row_of, rows_by_case, slides_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.slide.reader import Slide
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.reporting.evaluation import FinishedRun

_SIDE_PX = 700


@dataclass(frozen=True, slots=True)
class Miss:
    """A slide, or a case, that a model is wrong about.

    Parameters
    ----------
    case : str
    fold : int
    true, predicted : str
        Classes.
    confidence : float
        Calibrated probability of the predicted class.
    number, among : int
        Which of the slides of its case it is, in the order of the manifest, and how many were judged.
    pictures : tuple of str
        Addresses of pictures that are part of a page, one a slide.
    caption : str
        What the pictures show, or why there is none.
    withheld : bool or None
        Whether the model withholds its answer because the slide is unlike what it learnt from: a user does
        not see it. None where the slides were not scored again.
    """

    case: str
    fold: int
    true: str
    predicted: str
    confidence: float
    number: int = 0
    among: int = 1
    pictures: tuple[str, ...] = ()
    caption: str = ""
    withheld: bool | None = None


def misses_of(run: FinishedRun) -> list[Miss]:
    """Return what the model is wrong about on the judged part, the surest first.

    Returns
    -------
    list of Miss
        Without pictures. A test slide is listed once, as the fold of the bundle says it.
    """
    found: list[Miss] = []
    given = run.of(run.judged)
    if run.judged == "test":
        given = {int(run.record["fold"]): given[int(run.record["fold"])]}
    for fold, predictions in given.items():
        chances, judged, seen = predictions.calibrated, Counter(predictions.cases), Counter[str]()
        for case, label, row in zip(predictions.cases, predictions.labels, chances, strict=True):
            top, number = int(row.argmax()), seen[case]
            seen[case] += 1
            if top != label:
                true, answer = run.classes[label], run.classes[top]
                found.append(Miss(case, fold, true, answer, float(row[top]), number, judged[case]))
    return sorted(found, key=lambda miss: -miss.confidence)


def picture_steps(
    run: FinishedRun, misses: list[Miss], *, most: int, device: str
) -> Generator[Progress, None, list[Miss]]:
    """Score the slides of misses again, for their maps.

    Parameters
    ----------
    run : FinishedRun
    misses : list of Miss
    most : int
        So many of them, from the first on.
    device : str

    Returns
    -------
    list of Miss
        With pictures where slides can be scored.
    """
    cases = rows_by_case(run)
    bundles: dict[int, ModelBundle] = {}
    shown = []
    for number, miss in enumerate(misses):
        if number < most:
            yield Progress("Looking at failed cases", number, min(most, len(misses)), "cases", miss.case)
            shown.append((yield from _pictured(run, miss, cases.get(miss.case, ()), bundles, device)))
        else:
            shown.append(miss)
    return shown


def _pictured(
    run: FinishedRun, miss: Miss, rows: Sequence[Case], bundles: dict[int, ModelBundle], device: str
) -> Generator[Progress, None, Miss]:
    def without(why: str) -> Miss:
        return replace(miss, caption=why)

    if run.record["bundle"] != "written":
        return without("Slides cannot be scored with this model, so there are no maps.")
    if not rows:
        return without("Its slides are not where the manifest was.")
    whole = run.case_slides != EACH
    case = rows[0] if whole else row_of(miss.number, miss.among, rows, run)
    if case is None:
        return without(f"Which of the {len(rows)} rows of its case it is cannot be told from the manifest.")
    try:
        of_rows = [slides_of(row, run.record["stain"]) for row in (rows if whole else (case,))]
        if any(holds_features(path) for paths in of_rows for path in paths):
            return without("It is given as features: there is no slide to draw on.")
        if miss.fold not in bundles:
            bundles[miss.fold] = load_bundle(model_of_fold(run, miss.fold))
        scales = {path: row.scale_of(path) for row in rows for path in (row.he, row.ihc) if path is not None}
        results = yield from _scored(of_rows, scales, bundles[miss.fold], run, device)
        result = results[0]
        pictures = tuple(draw_slide(slide, each) for each in results for slide in each.slides)
    except Her2Error as error:
        return without(str(error))
    drawn = _shown_map(result.slides[0], result.score)
    caption = "The method draws no map over the slide."
    if drawn is not None:
        of = "" if drawn.class_name is None else f" {result.named(drawn.class_name)}"
        caption = f"{drawn.info.title}{of}: {drawn.description}"
    shown = ", ".join(paths[0].name for paths in of_rows)
    which = f"{shown}. " if len(rows) > 1 else ""
    kept_back, withheld = "", any(each.doubt.withheld for each in results)
    if withheld:
        kept_back = "A user does not see this answer: it is withheld, for the slide is unlike what the model "
        kept_back += f"learnt from ({result.doubt.reason}). " if result.doubt.reason else "learnt from. "
    return replace(miss, pictures=pictures, caption=f"{which}{kept_back}{caption}", withheld=withheld)


def _scored(
    rows: Sequence[tuple[Path, ...]],
    scales: Mapping[Path, float | None],
    bundle: ModelBundle,
    run: FinishedRun,
    device: str,
) -> Generator[Progress, None, list[SlideResult]]:
    """Score the slides of a row, or those of a case as the run did: in one bag, or one after the other."""
    given = [(paths[0], paths[1] if len(paths) > 1 else None) for paths in rows]
    further: dict[Path, str] = {}
    if run.case_slides == JOINED_BAGS:
        stain = STAINS["he"] if bundle.card.stain == PAIR else bundle.card.stain
        for one, other in given[1:]:
            further |= {path: of for path, of in ((one, stain), (other, STAINS["ihc"])) if path is not None}
        given = given[:1]
    results = []
    for first, ihc in given:
        with ExitStack() as stack:

            def at_scale(path: Path, stack: ExitStack = stack) -> Slide | Path:
                mpp = scales.get(path)
                return path if mpp is None else stack.enter_context(open_slide(path, mpp=mpp))

            more = [(at_scale(path), of, None) for path, of in further.items() if path not in (first, ihc)]
            slides = at_scale(first), None if ihc is None else at_scale(ihc)
            results.append(
                (yield from score_steps(slides[0], bundle, slides[1], further=more, device=device))
            )
    return results


def draw_slide(scored: ScoredSlide, result: SlideResult) -> str:
    """Draw a slide beside itself with the map of where the model looked.

    Returns
    -------
    str
        Address of a picture that is part of a page.
    """
    with open_slide(scored.path) as slide:
        small = slide.thumbnail(_SIDE_PX)
        height, width = slide.shape
    extent = (0.0, float(width), float(height), 0.0)
    chosen = _shown_map(scored, result.score)
    shape = (2 if chosen is not None else 1) * 3.2 * min(1.0, width / height), 3.2 * min(1.0, height / width)
    figure, axes = new_axes(max(shape[0], 1.6), max(shape[1], 1.2))
    axes.remove()
    for number in range(2 if chosen is not None else 1):
        view = figure.add_subplot(1, 2 if chosen is not None else 1, number + 1)
        view.imshow(small, extent=extent)
        view.set_axis_off()
        if number and chosen is not None:
            _overlay(view, chosen)
        view.set(xlim=(0, width), ylim=(height, 0))
    return as_image(figure, dpi=100)


def _overlay(view: Any, tile_map: TileMap) -> None:  # noqa: ANN401 - axes of matplotlib
    high, wide = tile_map.grid.shape
    tall, broad = tile_map.grid.tile_px0
    low, top = limits_of(tile_map.values, tile_map.info.limits)
    view.imshow(
        tile_map.values,
        extent=(0.0, wide * broad, high * tall, 0.0),
        cmap=colormaps["viridis"].with_extremes(bad=(0, 0, 0, 0)),
        vmin=low,
        vmax=top,
        alpha=0.6,
        interpolation="nearest",
    )


def _shown_map(scored: ScoredSlide, score: str) -> TileMap | None:
    """Return the map that is shown first over a slide; None where there is none with a value."""
    for overlay in scored.overlays:
        drawing = overlay.chosen(score)
        shown = drawing.info.is_map and drawing.info.visible
        if shown and isinstance(drawing, TileMap) and drawing.holds_any:
            return drawing
    return None
