"""A cohort of slides, scored or embedded one by one on this machine, or by the workers of a dask cluster."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.case_table import CASES_FILE, case_answers, write_case_table
from napari_her2.cohort.dispatch import Dispatcher
from napari_her2.cohort.embed_job import EmbedJob
from napari_her2.cohort.outcome import CohortProgress, CohortReport, SlideOutcome, forget_locals
from napari_her2.cohort.score_job import Case, ScoreJob
from napari_her2.cohort.sources import EncoderSource, ModelSource, absolute
from napari_her2.cohort.table import BY_DOUBT, check_order, write_score_table
from napari_her2.errors import JobFailed
from napari_her2.inference.options import ScoringOptions
from napari_her2.slide.names import slide_name
from napari_her2.steps import passed_on

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from napari_her2.cohort.jobs import SlideJob, Source
    from napari_her2.cohort.tls import TlsFiles
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.slide.tissue import Preset
    from napari_her2.steps import Progress

    Steps = Generator[CohortProgress, None, CohortReport]

RETRIES = 2
"""How often a slide that failed on a cluster is tried again."""


def score_cohort_steps(
    slides: Iterable[Case | Path | str],
    model: Path | str,
    out: Path | str,
    *,
    scheduler: str | None = None,
    tls: TlsFiles | None = None,
    retries: int = RETRIES,
    skip_finished: bool = False,
    order: str = BY_DOUBT,
    device: str = "auto",
    backend: str = "auto",
    **options: Any,  # noqa: ANN401 - the fields of ScoringOptions
) -> Steps:
    """Score slides, and write their results.

    Parameters
    ----------
    slides : iterable of Case, Path or str
        A path is a slide that is scored alone; a `Case` may have two slides, regions, its own µm/px.
    model : Path or str
        Name of a model, or its file.
    out : Path or str
        Folder for the results, a folder a slide in it; of several slides ``scores.csv`` has a row each.
    scheduler : str, optional
        Address of a dask scheduler ("tls://host:8786"), or the file it wrote for others to find it. Its
        workers, one for each GPU, score the slides; slides, model and ``out`` lie where every worker sees
        them under the same path. Without it the slides are scored here, one after the other.
    retries : int
        How often a slide that failed on the cluster is tried again, on another worker where there is one.
    skip_finished : bool
        Leave alone what is there already: the result of the same slide (by its fingerprint), model (by its
        SHA-256), options and version.
    order : str
        Of the rows of ``scores.csv``: "doubt", the most doubtful answer first, or "name".
    device, backend : str
        As for `score_steps` and `open_slide`; "auto" is the device of the worker.
    **options
        The fields of `ScoringOptions`.

    Yields
    ------
    CohortProgress
        With the outcome of a slide when it is done, in whatever order that happens. Closing the generator
        cancels; what is finished is kept.

    Returns
    -------
    CohortReport
        One outcome for each slide. A slide that failed is among them and stops no other.

    Raises
    ------
    JobFailed, ModelError
        What concerns all slides: the model, the folder, the cluster.
    """
    from napari_her2.whole_files import check_writable

    # A calibration is kept for one user: workers are given its gain.
    out, chosen, in_order = Path(out), ScoringOptions(**options).calibrated(), check_order(order)
    cases = [item if isinstance(item, Case) else Case(Path(item)) for item in slides]
    if scheduler is not None:
        out, cases = absolute(out), [anywhere(case) for case in cases]
    check_writable(out)
    source = ModelSource(model)
    bundle = source.load()
    jobs = [ScoreJob(case, out, chosen, device, backend, skip_finished) for case in cases]
    _refuse_doubles(jobs)
    report = yield from score_jobs_steps(
        jobs, source, bundle, out, scheduler=scheduler, tls=tls, retries=retries
    )
    if len(jobs) > 1:
        write_score_table(out, report.outcomes, in_order)
    if any(case.of is not None for case in cases):
        folders = [outcome.written for outcome in report.outcomes if outcome.written is not None]
        write_case_table(out / CASES_FILE, case_answers(folders, lone=True))
    return report


def score_jobs_steps(
    jobs: Sequence[ScoreJob],
    source: ModelSource,
    bundle: ModelBundle,
    out: Path,
    *,
    scheduler: str | None = None,
    tls: TlsFiles | None = None,
    retries: int = RETRIES,
    enough: Callable[[], bool] = lambda: False,
) -> Steps:
    """Do jobs with one model: what is behind `score_cohort_steps` and a day's list.

    Parameters
    ----------
    jobs : sequence of ScoreJob
        Those for a cluster with absolute paths, see `anywhere`.
    source : ModelSource
    bundle : ModelBundle
        What it loads.
    out : Path
        The folder of each job, or one above it.
    scheduler, tls, retries
        As for `score_cohort_steps`.
    enough : callable
        Whether to begin no other slide; those under way are finished.

    Yields
    ------
    CohortProgress

    Returns
    -------
    CohortReport

    Raises
    ------
    JobFailed
        What concerns all slides.
    """
    if scheduler is None:
        return (yield from _here("Scoring slides", jobs, bundle, enough))
    pinned = source.pinned(bundle)
    return (yield from _there("Scoring slides", jobs, pinned, out, scheduler, tls, retries, enough))


def embed_cohort_steps(
    slides: Iterable[Path | str],
    encoder: EncoderSource | Path | str,
    out: Path | str,
    *,
    scheduler: str | None = None,
    tls: TlsFiles | None = None,
    retries: int = RETRIES,
    skip_finished: bool = False,
    tile_mpp: float | None = None,
    mpp: float | None = None,
    tissue: Preset = "auto",
    min_tissue: float = 0.5,
    batch_size: int | None = None,
    cache: bool = True,
    device: str = "auto",
    backend: str = "auto",
) -> Steps:
    """Embed the tissue tiles of slides, and write their features as HDF5.

    Parameters
    ----------
    slides : iterable of Path or str
    encoder : EncoderSource, Path or str
        A model (its encoder) by name or file; `EncoderSource` for others.
    out : Path or str
        Folder for the files, one a slide.
    scheduler, tls, retries, skip_finished
        As for `score_cohort_steps`.
    tile_mpp : float, optional
        µm/px of the tiles; by default that of the model, else 0.5.
    mpp : float, optional
        µm per level-0 pixel of the slides, where the files do not say it.
    tissue, min_tissue, batch_size, cache, device, backend
        As of `EmbedJob`.

    Yields
    ------
    CohortProgress

    Returns
    -------
    CohortReport

    Raises
    ------
    JobFailed, ModelError
        What concerns all slides: the encoder, the folder, the cluster.
    """
    from napari_her2.whole_files import check_writable

    out, paths = Path(out), [Path(path) for path in slides]
    if scheduler is not None:
        out, paths = absolute(out), [absolute(path) for path in paths]
    check_writable(out)
    source = encoder if isinstance(encoder, EncoderSource) else EncoderSource(encoder)
    tool = source.load()
    scale = tile_mpp or tool.mpp
    chosen = (mpp, tissue, min_tissue, batch_size, cache, device, backend, skip_finished)
    jobs = [EmbedJob(path, out, scale, *chosen) for path in paths]
    _refuse_doubles(jobs)
    if scheduler is None:
        return (yield from _here("Embedding slides", jobs, tool))
    return (yield from _there("Embedding slides", jobs, source.pinned(tool), out, scheduler, tls, retries))


def _here(
    stage: str,
    jobs: Sequence[SlideJob[Any]],
    tool: Any,  # noqa: ANN401 - of any source
    enough: Callable[[], bool] = lambda: False,
) -> Steps:
    """Work on this machine, one slide after the other."""
    outcomes = []
    for done, job in enumerate(jobs, start=1):
        if enough():
            break
        try:
            outcome = yield from _named(job, tool, done - 1)
        except Exception as error:  # noqa: BLE001 - what nobody foresaw costs one slide too, as on a cluster
            forget_locals(error)
            outcome = SlideOutcome.failure(job.path, error)
        outcomes.append(outcome)
        place = (done - 1,)
        yield CohortProgress(stage, done, len(jobs), "slides", job.path.name, outcome=outcome, places=place)
    return CohortReport(tuple(outcomes))


def _named(
    job: SlideJob[Any],
    tool: Any,  # noqa: ANN401 - of any source
    place: int,
) -> Generator[CohortProgress, None, SlideOutcome]:
    """Pass on the steps of a slide, with its name before the stage."""

    def named(step: Progress) -> CohortProgress:
        stage = f"{job.path.name}: {step.stage}"
        return CohortProgress(stage, step.done, step.total, step.unit, step.note, places=(place,))

    return passed_on(job.steps(tool), named)


def _there(
    stage: str,
    jobs: Sequence[SlideJob[Any]],
    source: Source[Any],
    out: Path,
    scheduler: str,
    tls: TlsFiles | None,
    retries: int,
    enough: Callable[[], bool] = lambda: False,
) -> Steps:
    """Let the workers of a cluster work."""
    # Loads dask.distributed, an extra.
    from napari_her2.cohort.cluster import connect, shared_needs

    if retries < 0:
        raise JobFailed("A slide cannot be tried less than once: give a number of retries from 0 on.")
    files = [path for job in jobs for path in job.files]
    yield CohortProgress("Looking for the cluster", note=scheduler)
    with ExitStack() as stack:
        cluster = yield from connect(scheduler, tls, stack)
        needs = stack.enter_context(shared_needs(source, files, out))
        found, warning = len(cluster.workers()), cluster.warning()
        yield CohortProgress(
            "Checking the workers", 0, found, "workers", "each loads the model", warning=warning
        )
        cluster.admit(needs)
        return CohortReport((yield from Dispatcher(cluster, needs, jobs, retries, enough).steps(stage)))


def anywhere(case: Case) -> Case:
    """Return the same case with paths that mean the same on another machine."""

    def there(path: Path | None) -> Path | None:
        return None if path is None else absolute(path)

    further = tuple(replace(one, path=absolute(one.path), regions=there(one.regions)) for one in case.further)
    return replace(
        case, path=absolute(case.path), ihc=there(case.ihc), regions=there(case.regions), further=further
    )


def _refuse_doubles(jobs: Sequence[SlideJob[Any]]) -> None:
    """Refuse two slides of one name, whose results would take each other's place."""
    counts = Counter(slide_name(job.path) for job in jobs)
    doubled = next((name for name, count in counts.items() if count > 1), None)
    if doubled is not None:
        raise JobFailed(f"Two slides are called {doubled}: give them different folders for their results.")
