"""Training of the models that napari-her2 scores slides with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from os import PathLike
    from pathlib import Path

    from napari_her2.steps import Progress
    from napari_her2_training.findings import TrainingCheck

__all__ = ["check", "export", "report", "run"]


def run(
    method: str,
    config: str | PathLike[str],
    data: str | PathLike[str] | None,
    out: str | PathLike[str],
    resume: bool = False,
) -> Generator[Progress, None, Path]:
    """Train a model.

    Parameters
    ----------
    method : str
        "attention-mil", "wsmcl", "corr-a-net", "predictor", "corr-a-net-table", "low-resolution",
        "patches", "mil", "compare" or "encoder".
    config : path-like
        TOML file; those that come with the package are in `napari_her2_training/configs`, and may be
        given by their name alone: "demo_attention_mil".
    data : path-like or None
        Manifest (CSV), or the folder that a method reads; None takes what the configuration names.
    out : path-like
        Folder for checkpoints, metrics.json and the bundle.
    resume : bool
        Go on with the run that is in ``out``.

    Yields
    ------
    Progress
        Closing the generator stops the training; it can be resumed.

    Returns
    -------
    Path
        The finished bundle; where none can be made, the weights of the head, or of the encoder.

    Raises
    ------
    JobFailed
        With what to do next; before any work where the configuration or the manifest is at fault.
    """
    from pathlib import Path

    from napari_her2_training.command import train_steps

    manifest = None if data is None else Path(data)
    return (yield from train_steps(method, config=Path(config), data=manifest, out=Path(out), resume=resume))


def check(
    method: str,
    config: str | PathLike[str],
    data: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    device: str = "auto",
) -> Generator[Progress, None, TrainingCheck]:
    """Check a training without beginning it: a dry run that writes nothing.

    Parameters
    ----------
    method, config, data, out
        As `run` takes them; ``out`` may be left out.
    device : str
        "auto" takes that of the configuration.

    Yields
    ------
    Progress
        At least once a slide; closing the generator stops it.

    Returns
    -------
    TrainingCheck
        Faults, warnings and facts, and an estimate of time, memory and disk space.

    Raises
    ------
    JobFailed
        There is no such method. All other mistakes are faults of what is returned.
    """
    from pathlib import Path

    from napari_her2_training.dry_run import check_steps

    given = None if data is None else Path(data)
    place = None if out is None else Path(out)
    return (yield from check_steps(method, config=Path(config), data=given, out=place, device=device))


def report(
    run: str | PathLike[str],
    *,
    cases: int = 12,
    device: str = "auto",
    strange: str | PathLike[str] | None = None,
) -> Generator[Progress, None, Path]:
    """Write the report of a finished training: one page, and its numbers as CSV.

    Parameters
    ----------
    run : path-like
        Folder of the training, or of a comparison, which has a page of its own.
    cases : int, default 12
        So many failed cases are scored again and shown with their maps.
    device : str, default "auto"
    strange : path-like, optional
        Folder of slides that the model was not made for: they and the judged cases are scored, to see
        whether the model tells them apart.

    Yields
    ------
    Progress

    Returns
    -------
    Path
        ``report.html`` in the folder.

    Raises
    ------
    JobFailed
        If the folder holds no finished training, or that of the strange slides no slide.
    """
    from pathlib import Path

    from napari_her2.errors import JobFailed
    from napari_her2.steps import Progress
    from napari_her2_training.comparison.page import COMPARISON_FILE, write_comparison_page
    from napari_her2_training.reporting.page import report_steps

    folder = Path(run).expanduser()
    if (folder / COMPARISON_FILE).exists():
        if strange is not None:
            raise JobFailed(
                f"{folder} compares several models: look at strange slides with one of them, in its arms."
            )
        yield Progress("Writing the report")
        return write_comparison_page(folder)
    place = None if strange is None else Path(strange)
    return (yield from report_steps(folder, cases=cases, device=device, strange=place))


def export(
    run: str | PathLike[str],
    *,
    ensemble: bool = False,
    name: str = "",
    install: bool = False,
    force: bool = False,
) -> Path:
    """Make one model of a finished training; see `napari_her2_training.reporting.exporting.export_run`."""
    from pathlib import Path

    from napari_her2_training.reporting.exporting import export_run

    return export_run(Path(run), ensemble=ensemble, name=name, install=install, force=force)
