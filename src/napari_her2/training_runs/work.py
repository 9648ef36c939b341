"""Commands of training that the dock runs beside napari, as generators whose closing ends them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed, ModelNameTaken
from napari_her2.inference.result import Progress
from napari_her2.training_runs.files import REPORT_FILE
from napari_her2.training_runs.processes import train_command, words_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path
    from typing import IO

    from napari_her2.training_runs.processes import RunRequest

_SECONDS_BETWEEN_LOOKS = 0.1
_MAY_REPLACE = "To replace it, add --force"  # what the command line adds for those who type


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
    """

    name: str
    line: str
    configs: tuple[ConfigChoice, ...]
    folder: str = ""
    table: bool = True


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a dry run found.

    Parameters
    ----------
    faults, warnings : tuple of str
    facts : tuple of (str, str)
        Name and text, estimates of time, memory and disk space among them.
    """

    faults: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Ended:
    code: int
    output: str
    said: str


def listing_methods() -> Generator[Progress, None, tuple[MethodChoice, ...]]:
    """Ask the training package which methods it has; nothing of it is imported here."""
    command = [sys.executable, "-m", "napari_her2", "train", "--list", "--json"]
    ended = yield from _running(command, "Looking for the methods")
    if ended.code:
        raise JobFailed(ended.said or "The training methods could not be listed.")
    return tuple(
        MethodChoice(
            method["name"],
            method["line"],
            tuple(ConfigChoice(config["name"], config["about"]) for config in method["configs"]),
            method["folder"],
            method["table"],
        )
        for method in json.loads(ended.output)["methods"]
    )


def checking(request: RunRequest) -> Generator[Progress, None, CheckReport]:
    """Check cases, files and splits and estimate time and memory; nothing is trained."""
    command = train_command(request, "--dry-run", "--json")
    ended = yield from _running(command, "Checking the cases, their files and splits")
    try:
        told = json.loads(ended.output)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise JobFailed(ended.said or f"The check ended without a word, with the code {ended.code}.")
    facts = told.get("facts") or ()
    return CheckReport(
        tuple(str(fault) for fault in told.get("faults") or ()),
        tuple(str(warning) for warning in told.get("warnings") or ()),
        tuple((str(name), str(text)) for name, text in (facts.items() if isinstance(facts, dict) else facts)),
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
    command = [sys.executable, "-m", "napari_her2", "export", str(out), "--install"]
    command += [*(["--ensemble"] if ensemble else []), *(["--force"] if force else [])]
    ended = yield from _running(command, "Exporting the model")
    if ended.code:
        said, decision, _ = ended.said.partition(_MAY_REPLACE)
        if decision:
            raise ModelNameTaken(said.strip())
        raise JobFailed(said or f"The export ended without a word, with the code {ended.code}.")
    lines = ended.output.strip().splitlines()
    return lines[-1].strip() if lines else "The model was installed."


def reporting_run(out: Path) -> Generator[Progress, None, Path]:
    """Write the report of a finished run.

    Returns
    -------
    Path
        The page.
    """
    command = [sys.executable, "-m", "napari_her2", "report", str(out)]
    ended = yield from _running(command, "Writing the report")
    if ended.code:
        raise JobFailed(ended.said or f"The report ended without a word, with the code {ended.code}.")
    return out / REPORT_FILE


def _running(command: Sequence[str], stage: str) -> Generator[Progress, None, _Ended]:
    """Run a command to its end; closing the generator ends it."""
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
        return _Ended(process.returncode, _read(output), words_of(_read(errors)))


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
