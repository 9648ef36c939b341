"""``napari-her2 report``: one page about a result, or the report of a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_her2.commands.bars import drive
from napari_her2.commands.console import JSON_HELP, tell
from napari_her2.commands.score import DEVICE_HELP
from napari_her2.commands.training_extra import training

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.reports.page import Page
    from napari_her2.steps import Progress

WHAT_HELP = "Folder of a result, its result.json, folder of a study of readers, or of a finished training."
_HTML, _PDF = ".html", ".pdf"


def report(
    what: Annotated[Path, typer.Argument(help=WHAT_HELP, metavar="RUN_OR_RESULT")],
    out: Annotated[
        Path | None,
        typer.Option(help="File of the page, .html or .pdf; by default both, beside the result."),
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="The HTML page alone.")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="The PDF alone.")] = False,
    slide: Annotated[
        list[Path] | None, typer.Option(help="Where a slide lies now, if it was moved since.")
    ] = None,
    cases: Annotated[
        int,
        typer.Option(min=0, help="Of a training: so many failed cases are scored again and shown."),
    ] = 12,
    device: Annotated[str, typer.Option(help=f"Of a training: {DEVICE_HELP}")] = "auto",
    strange: Annotated[
        Path | None,
        typer.Option(
            help="Of a training: slides that the model was not made for: does it tell them from the judged?",
            metavar="FOLDER",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Write one page about a result as HTML and PDF, or the report of a training. Research use only."""
    if _is_result(what):
        kinds = [kind for kind, alone in ((_HTML, html), (_PDF, pdf)) if alone] or [_HTML, _PDF]
        written = drive(_page_steps(what, _targets(what, out, kinds), slide or ()), "report")
        words = " and ".join(map(str, written))
        tell("report", f"The report was written to {words}", as_json=as_json, path=str(written[0]))
        return
    page = drive(training().report(what, cases=cases, device=device, strange=strange), "report")
    tell("report", f"The report was written to {page}", as_json=as_json, path=str(page))


def _is_result(path: Path) -> bool:
    """Whether a path leads to a result or a study; all else is left to trainings, which say what it lacks."""
    from napari_her2.export.result_files import KEPT_NAME, RESULT_FILE
    from napari_her2.reading.study_file import STUDY_FILE

    if path.is_dir():
        return any((path / name).exists() for name in (RESULT_FILE, KEPT_NAME, STUDY_FILE))
    return path.suffix in (Path(RESULT_FILE).suffix, Path(KEPT_NAME).suffix)


def _targets(what: Path, out: Path | None, kinds: Sequence[str]) -> list[Path]:
    from napari_her2.export.result_files import REPORTS

    if out is not None:
        if out.suffix.lower() not in (_HTML, _PDF):
            raise typer.BadParameter(f"--out takes a name that ends in .html or .pdf, not {out.name!r}.")
        return [out]
    folder = what if what.is_dir() else what.parent
    return [folder / name for name in REPORTS if Path(name).suffix in kinds]


def _page_steps(
    what: Path, targets: Sequence[Path], slides: Sequence[Path]
) -> Generator[Progress, None, list[Path]]:
    from contextlib import ExitStack

    from napari_her2.reports.at_hand import (
        card_at_hand,
        case_beside,
        kept_path,
        manual_beside,
        result_at,
        slides_steps,
    )
    from napari_her2.reports.of_result import Desk, report_steps
    from napari_her2.reports.of_study import study_steps

    if study := _study(what):
        page = yield from study_steps(study)
    else:
        kept = kept_path(what)
        result = result_at(kept)
        case = case_beside(result, kept.parent)
        desk = Desk(manual=manual_beside(kept), card=card_at_hand(result), case=case)
        with ExitStack() as stack:
            opened = yield from slides_steps(result, stack, slides)
            page = yield from report_steps(result, opened, desk)
    return [_written(page, target) for target in targets]


def _study(path: Path) -> Path | None:
    from napari_her2.reading.study_file import STUDY_FILE

    folder = path if path.is_dir() else path.parent
    leads = path == folder or path.name == STUDY_FILE
    return folder if leads and (folder / STUDY_FILE).is_file() else None


def _written(page: Page, target: Path) -> Path:
    if target.suffix.lower() == _HTML:
        from napari_her2.reports.html import write_html

        return write_html(page, target)
    from napari_her2._qt.parts.pdf import without_window, write_pdf

    running = without_window()
    write_pdf(page, target)
    del running
    return target
