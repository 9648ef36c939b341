"""What commands over many slides have in common: their options, and how they tell what became of a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from napari_her2.cohort.run import RETRIES
from napari_her2.commands.bars import drive
from napari_her2.commands.console import FAILED, in_words, output, pairs_table, say
from napari_her2.number_words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_her2.cohort.outcome import CohortProgress, CohortReport, SlideOutcome
    from napari_her2.cohort.tls import TlsFiles
    from napari_her2.steps import Progress

__all__ = [
    "RETRIES",
    "RETRIES_HELP",
    "SCHEDULER_HELP",
    "SKIP_HELP",
    "TLS_CA_HELP",
    "TLS_CERT_HELP",
    "TLS_KEY_HELP",
    "drive_cohort",
    "given_tls",
    "regions_of_slide",
]

SCHEDULER_HELP = (
    "Address of a dask scheduler (tls://host:8786, tcp://127.0.0.1:8786), or the file that it wrote (.json): "
    "its workers do it."
)
TLS_CA_HELP = "Certificate of the authority of a cluster with TLS (PEM)."
TLS_CERT_HELP = "Your own certificate for it (PEM)."
TLS_KEY_HELP = "The key of that certificate (PEM); by default in the same file."
RETRIES_HELP = "On a cluster: how often a slide that failed is tried again, elsewhere if possible."
SKIP_HELP = "Leave alone what an earlier run finished: same slide, model, options and version."


def given_tls(scheduler: str | None, ca: Path | None, cert: Path | None, key: Path | None) -> TlsFiles | None:
    """Put the certificates of a cluster together, or refuse them where there is none."""
    from napari_her2.cohort.tls import tls_files

    found = tls_files(ca, cert, key)
    if found is not None and scheduler is None:
        raise typer.BadParameter("certificates belong to a cluster: give --scheduler too.")
    return found


def regions_of_slide(regions: Path | None, slide: Path) -> Path | None:
    """Return the regions of a slide; in a folder, where they must not be missing, those of its name."""
    if regions is None or not regions.is_dir():
        return regions
    from napari_her2.errors import JobFailed
    from napari_her2.slide.names import slide_name

    names = [
        f"{slide_name(slide)}{ending}" for ending in (".geojson", ".geojson.gz", ".json", ".xml", ".ndpa")
    ]
    names.append(f"{slide.name}.ndpa")  # as NDP.view names it
    found = [regions / name for name in names if (regions / name).is_file()]
    if not found:
        raise JobFailed(f"{regions} holds no {names[0]}: put the regions of {slide.name} there.")
    return found[0]


def drive_cohort(
    steps: Generator[CohortProgress, None, CohortReport], *, slides: int, table: Path | None = None
) -> None:
    """Work through a cohort; every slide is told when it is done.

    Parameters
    ----------
    steps : generator of CohortProgress
    slides : int
        How many there are. The error of one alone is raised, that of one among others is told.
    table : Path, optional
        Where a row for each of several slides was written.

    Raises
    ------
    typer.Exit
        With 1, if a slide among others failed.
    """

    def tell(step: Progress) -> Callable[[], None] | None:
        warning: str = getattr(step, "warning", "")
        if warning:
            return lambda: say(warning)
        outcome: SlideOutcome | None = getattr(step, "outcome", None)
        if outcome is None or (slides == 1 and outcome.error is not None):
            return None
        return lambda: _print_outcome(outcome)

    try:
        report = drive(steps, tell=tell)
    except KeyboardInterrupt:
        if slides > 1:
            say("What is finished is kept: the same command with --skip-finished goes on.")
        raise
    failed = report.of("failed")
    if slides == 1 and failed and failed[0].error is not None:
        raise failed[0].error
    if any(outcome.worker for outcome in report.outcomes):
        _summarise(report)
    _say_what_is_withheld(report)
    if table is not None and slides > 1:
        output().print(f"All of them in one table: {table}", soft_wrap=True, markup=False, highlight=False)
    if failed:
        raise typer.Exit(FAILED)


def _print_outcome(outcome: SlideOutcome) -> None:
    if outcome.error is None:
        output().print(pairs_table(outcome.facts, title=outcome.title))
        return
    tried = f" ({outcome.tries} tries)" if outcome.tries > 1 else ""
    say(f"{outcome.path.name}: {in_words(outcome.error)}{tried}")


def _say_what_is_withheld(report: CohortReport) -> None:
    count = sum(outcome.withheld for outcome in report.outcomes)
    if count:
        text = (
            f"{counted(count, 'answer')} withheld. To see what the model says all the same, marked as such,"
        )
        output().print(f"{text} add --show-withheld.", soft_wrap=True)


def _summarise(report: CohortReport) -> None:
    """One line on a cluster's work, whose outcomes come in any order."""
    counts = ", ".join(f"{len(report.of(state))} {state}" for state in ("done", "skipped", "failed"))
    output().print(f"{len(report.outcomes)} slides: {counts}")
