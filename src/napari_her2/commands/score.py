"""``napari-her2 score``: slides to scores, files and a table."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_her2.commands.cohort import (
    RETRIES,
    RETRIES_HELP,
    SCHEDULER_HELP,
    SKIP_HELP,
    TLS_CA_HELP,
    TLS_CERT_HELP,
    TLS_KEY_HELP,
    drive_cohort,
    given_tls,
)
from napari_her2.commands.info import BACKEND_HELP, MPP_HELP
from napari_her2.commands.shares import (
    COVERAGE_HELP,
    MIN_FAMILIARITY_HELP,
    OVERLAP_HELP,
    SHOW_WITHHELD_HELP,
    coverage_of,
    least_familiarity_of,
    overlap_of,
)
from napari_her2.models.answer_sets import COVERAGE
from napari_her2.models.case_slides import WAYS
from napari_her2.models.familiarity import LEAST_FAMILIARITY

if TYPE_CHECKING:
    from napari_her2.cells.rules import Rules
    from napari_her2.slide.quality_limits import QualityLimits

LIST_HELP = (
    "A day's list: a table with the columns he and ihc (and case_id, mpp, ihc_mpp, regions), a row a case. "
    "It goes on where it was stopped."
)
HE_NAMES_HELP = (
    "How files of H&E slides are called in a folder (*_HE.svs); by default the words in them tell."
)
CASE_CHOICES = ("auto", *WAYS)
CASE_SLIDES_HELP = (
    "Of a list with several rows of one case_id: each, joined bags (all tiles of a case as one bag) or "
    "joined answers; by default as the model learnt, else joined answers. cases.csv has one answer a case."
)
DRY_RUN_HELP = "Of a list: show what belongs together and what each model takes, and end."
DEVICE_HELP = "auto, cpu, cuda, cuda:0 or mps."
TISSUE_HELP = "Tissue preset: auto, resection or biopsy."


def score(
    model: Annotated[list[str], typer.Option(help="Name of a model, or its file; more than one for a list.")],
    out: Annotated[
        Path,
        typer.Option(help="Folder for the results; a folder a slide in it, of a list one a model first."),
    ],
    slides: Annotated[
        list[Path] | None,
        typer.Argument(help="Slide files, or folders of slides: a list.", metavar="SLIDE"),
    ] = None,
    listed: Annotated[Path | None, typer.Option("--list", help=LIST_HELP, metavar="FILE.csv")] = None,
    he_names: Annotated[str, typer.Option(help=HE_NAMES_HELP, metavar="PATTERN")] = "",
    ihc_names: Annotated[str, typer.Option(help="The same for IHC slides.", metavar="PATTERN")] = "",
    subfolders: Annotated[bool, typer.Option(help="Whether subfolders belong to a folder.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=DRY_RUN_HELP)] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Of a list: try again what failed before.")
    ] = False,
    case_slides: Annotated[
        str, typer.Option("--case-slides", help=CASE_SLIDES_HELP, metavar="|".join(CASE_CHOICES))
    ] = "auto",
    ihc: Annotated[
        Path | None,
        typer.Option(help="IHC slide of the same case, beside its H&E slide, for models that take both."),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            help="GeoJSON, .xml of ImageScope or .ndpa of NDP.view; only what lies inside is scored (one "
            "slide). Or a folder with such a file for each slide, case-7.geojson for case-7.svs."
        ),
    ] = None,
    mpp: Annotated[float | None, typer.Option(help=MPP_HELP)] = None,
    ihc_mpp: Annotated[float | None, typer.Option(help="The same for the IHC slide.")] = None,
    stain: Annotated[
        str, typer.Option(help="Of a slide scored alone: auto (from its colours), H&E or IHC.")
    ] = "auto",
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    tissue: Annotated[str, typer.Option(help=TISSUE_HELP)] = "auto",
    min_tissue: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Least share of a tile that is tissue; by default the model's, else 0.5."
        ),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Below this probability the answer is indeterminate; by default the model's, else 0.5.",
        ),
    ] = None,
    coverage: Annotated[
        float, typer.Option(parser=coverage_of, metavar="SHARE", help=COVERAGE_HELP)
    ] = COVERAGE,
    min_familiarity: Annotated[
        float, typer.Option(parser=least_familiarity_of, metavar="SHARE", help=MIN_FAMILIARITY_HELP)
    ] = LEAST_FAMILIARITY,
    show_withheld: Annotated[bool, typer.Option("--show-withheld", help=SHOW_WITHHELD_HELP)] = False,
    leave_out_poor: Annotated[
        bool | None,
        typer.Option(
            "--leave-out-poor/--keep-poor",
            help="Leave out tissue out of focus, under a pen, folded, under a bubble or blank; by default as "
            "the model learnt.",
        ),
    ] = None,
    quality_limits: Annotated[
        Path | None,
        typer.Option(help="TOML with limits of quality, such as most_blur_um = 1.5.", metavar="FILE.toml"),
    ] = None,
    overlap: Annotated[float, typer.Option(parser=overlap_of, metavar="SHARE", help=OVERLAP_HELP)] = 0.0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Tiles computed together; by default what suits the device.")
    ] = None,
    cache: Annotated[bool, typer.Option(help="Keep embeddings on disk for the next run.")] = True,
    override_fit: Annotated[
        bool, typer.Option("--override-fit", help="Score a slide that the model was not made for.")
    ] = False,
    backend: Annotated[str, typer.Option(help=BACKEND_HELP)] = "auto",
    calibration: Annotated[
        str, typer.Option(help="Name of a calibration, for models that read cells.", metavar="NAME")
    ] = "",
    rules: Annotated[
        Path | None,
        typer.Option(
            help="JSON with thresholds that cells are judged by, or a result.json that holds them.",
            metavar="FILE.json",
        ),
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help=SCHEDULER_HELP)] = None,
    tls_ca: Annotated[Path | None, typer.Option(help=TLS_CA_HELP)] = None,
    tls_cert: Annotated[Path | None, typer.Option(help=TLS_CERT_HELP)] = None,
    tls_key: Annotated[Path | None, typer.Option(help=TLS_KEY_HELP)] = None,
    retries: Annotated[int, typer.Option(min=0, help=RETRIES_HELP)] = RETRIES,
    skip_finished: Annotated[bool, typer.Option("--skip-finished", help=SKIP_HELP)] = False,
    sort: Annotated[
        str, typer.Option(help="Of several slides: by doubt, the most doubtful answer first, or by name.")
    ] = "doubt",
) -> None:
    """Score slides. Research use only; not for diagnosis or treatment decisions."""
    if not slides and listed is None:
        raise typer.BadParameter("give slides, a folder of slides, or --list FILE.csv.")
    from napari_her2.commands.cohort import regions_of_slide
    from napari_her2.commands.day import DayWishes, is_list, score_day

    given = list(slides or ())
    chosen: dict[str, Any] = {
        "preset": tissue,
        "stain": stain,
        "min_tissue": min_tissue,
        "min_confidence": min_confidence,
        "coverage": coverage,
        "min_familiarity": min_familiarity,
        "show_withheld": show_withheld,
        "batch_size": batch_size,
        "cache": cache,
        "override_fit": override_fit,
        "calibration": calibration,
        "rules": _rules(rules),
        "leave_out_poor": leave_out_poor,
        "overlap": overlap,
        **_limits(quality_limits),
    }
    tls = given_tls(scheduler, tls_ca, tls_cert, tls_key)
    if case_slides not in CASE_CHOICES:
        raise typer.BadParameter(f"--case-slides takes {', '.join(CASE_CHOICES)}, not {case_slides!r}.")
    wishes = DayWishes(
        he_names, ihc_names, subfolders, mpp, ihc_mpp, regions, dry_run, retry_failed, case_slides
    )
    if listed is not None or len(model) > 1 or wishes.of_a_list or is_list(given):
        if ihc or (regions and not regions.is_dir()):
            raise typer.BadParameter("--ihc and a file of --regions belong to one slide, not to a list.")
        sources = given if listed is None else [*given, listed]
        cluster = None if scheduler is None else (scheduler, tls, retries)
        score_day(sources, model, out, wishes, chosen, device=device, backend=backend, cluster=cluster)
        return
    if len(given) > 1 and ((regions and not regions.is_dir()) or ihc):
        raise typer.BadParameter("--regions and --ihc belong to one slide: score it alone.")
    from napari_her2.cohort.run import score_cohort_steps
    from napari_her2.cohort.score_job import Case
    from napari_her2.cohort.table import BY_DOUBT, BY_NAME, TABLE_FILE

    if sort not in (BY_DOUBT, BY_NAME):
        raise typer.BadParameter(f"--sort takes {BY_DOUBT} or {BY_NAME}, not {sort!r}.")
    steps = score_cohort_steps(
        [Case(path, ihc, regions_of_slide(regions, path), mpp, ihc_mpp) for path in given],
        model[0],
        out,
        scheduler=scheduler,
        tls=tls,
        retries=retries,
        skip_finished=skip_finished,
        order=sort,
        device=device,
        backend=backend,
        **chosen,
    )
    drive_cohort(steps, slides=len(given), table=out / TABLE_FILE)


def _limits(path: Path | None) -> dict[str, QualityLimits]:
    if path is None:
        return {}
    from napari_her2.slide.quality_limits import read_limits

    return {"quality_limits": read_limits(path)}


def _rules(path: Path | None) -> Rules | None:
    if path is None:
        return None
    from napari_her2.cells.rules_file import read_rules

    return read_rules(path)
