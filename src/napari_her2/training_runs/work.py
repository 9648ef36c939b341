"""Commands of training that the dock runs beside napari, as generators whose closing ends them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed, ModelError, ModelNameTaken, SlideError
from napari_her2.steps import Progress
from napari_her2.training_runs.outcome import read_outcome
from napari_her2.training_runs.processes import last_line, train_command

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import IO

    from napari_her2.training_runs.outcome import Outcome
    from napari_her2.training_runs.processes import RunRequest

_SECONDS_BETWEEN_LOOKS = 0.1
_ERRORS = {kind.__name__: kind for kind in (JobFailed, ModelError, ModelNameTaken, SlideError)}


@dataclass(frozen=True, slots=True)
class ConfigChoice:
    """A configuration that comes with the package, and what it says of itself."""

    name: str
    about: str


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """A training method to choose.

    Parameters
    ----------
    name : str
    line : str
        What it learns from.
    configs : tuple of ConfigChoice
    folder : str
        What folder its data may be, in words; empty where it takes tables of cases alone.
    table : bool
        Whether its data may be a table of cases.
    encoder : bool
        Whether the encoder that it looks at tiles through can be chosen.
    case_ways : tuple of str
        What several slides of a case may be to it (`napari_her2.models.case_slides.WAYS`); empty where it
        learns from no cases.
    """

    name: str
    line: str
    configs: tuple[ConfigChoice, ...]
    folder: str = ""
    table: bool = True
    encoder: bool = False
    case_ways: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a dry run found.

    Parameters
    ----------
    faults, warnings : tuple of str
    facts : tuple of (str, str)
        Name and text.
    estimates : tuple of str
        Names of the facts that are estimates: of time, memory and disk space.
    """

    faults: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    estimates: tuple[str, ...] = ()


def listing_methods() -> Generator[Progress, None, tuple[MethodChoice, ...]]:
    """Ask the training package which methods it has; nothing of it is imported here."""
    command = [sys.executable, "-m", "napari_her2", "train", "--list", "--json"]
    ended = yield from _running(command, "Looking for the methods", "methods")
    return tuple(
        MethodChoice(
            method["name"],
            method["line"],
            tuple(ConfigChoice(config["name"], config["about"]) for config in method["configs"]),
            method["folder"],
            method["table"],
            bool(method.get("encoder")),
            tuple(method.get("case_ways", ())),
        )
        for method in ended.fields["methods"]
    )


def checking(request: RunRequest) -> Generator[Progress, None, CheckReport]:
    """Check cases, files and splits and estimate time and memory; nothing is trained."""
    command = train_command(request, "--dry-run", "--json")
    checked = (yield from _running(command, "Checking the cases, their files and splits", "check")).fields
    return CheckReport(
        tuple(checked["faults"]),
        tuple(checked["warnings"]),
        tuple((name, str(text)) for name, text in checked["facts"].items()),
        tuple(checked["estimates"]),
    )


def exporting_run(
    out: Path, *, ensemble: bool = False, force: bool = False
) -> Generator[Progress, None, str]:
    """Make the model of a finished run and install it, so that slides can be scored with it.

    Parameters
    ----------
    out : Path
    ensemble : bool
        All folds answer together, instead of the best one.
    force : bool
        Replace a model of the same name.

    Returns
    -------
    str
        What was made.

    Raises
    ------
    ModelNameTaken
        If another model of the same name is installed.
    """
    command = [sys.executable, "-m", "napari_her2", "export", str(out), "--install", "--json"]
    command += [*(["--ensemble"] if ensemble else []), *(["--force"] if force else [])]
    return (yield from _running(command, "Exporting the model", "model")).message


def reporting_run(out: Path) -> Generator[Progress, None, Path]:
    """Write the report of a finished run.

    Returns
    -------
    Path
        The page.
    """
    command = [sys.executable, "-m", "napari_her2", "report", str(out), "--json"]
    return Path((yield from _running(command, "Writing the report", "report")).fields["path"])


def _running(command: Sequence[str], stage: str, kind: str) -> Generator[Progress, None, Outcome]:
    """Run a command to its end and return its outcome, of this kind; closing the generator ends it.

    Raises
    ------
    Her2Error
        That which ended the command; JobFailed where it told none.
    """
    # Into files: a pipe that nobody reads would fill up and hold the command.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": errors}
        if sys.platform == "win32":
            options["creationflags"] = subprocess.CREATE_NO_WINDOW
        with subprocess.Popen(command, **options) as process:
            try:
                while process.poll() is None:
                    yield Progress(stage)
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
            finally:
                if process.poll() is None:
                    process.kill()
        outcome, words = read_outcome(_read(output)), last_line(_read(errors))
    if outcome is None:
        raise JobFailed(words or f"{stage} ended with the code {process.returncode} and without a word.")
    if outcome.kind != kind:
        raise _ERRORS.get(outcome.kind, JobFailed)(outcome.message)
    return outcome


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
