"""The door to training: what the command line and Python call."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.training_runs.files import RUN_FILE
from napari_her2_training.instead import AS_IT_IS, Instead
from napari_her2_training.methods import find_method
from napari_her2_training.running.log import Started, logged
from napari_her2_training.running.ranks import is_first, together, with_others

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_her2.steps import Progress


def train_steps(
    method: str,
    *,
    out: Path,
    config: Path | None = None,
    data: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    instead: Instead = AS_IT_IS,
) -> Generator[Progress, None, Path]:
    """Train a model step by step.

    Parameters
    ----------
    method : str
        A key of `napari_her2_training.methods.METHODS`.
    out : Path
        Folder for checkpoints, metrics.json and the bundle.
    config : Path, optional
        TOML file; by default the published protocol of the method. One that comes with the package may be
        given by its name alone ("demo_attention_mil").
    data : Path, optional
        Manifest (CSV); overrides the one that the configuration names.
    resume : bool
        Go on with the run that is in ``out``.
    device : str
        Overrides the configuration unless it is "auto".
    instead : Instead
        What goes in place of what the configuration says.

    Yields
    ------
    Progress
        Closing the generator stops the training, and so does a file ``stop`` in ``out``; it can be resumed.
        What it yields is also told in ``out`` (see `napari_her2_training.running.log`).

    Returns
    -------
    Path
        The finished bundle.

    Raises
    ------
    JobStopped
        A file ``stop`` asked for the end.
    JobFailed
        With what to do next; before any work where the configuration or the manifest is at fault.
    """
    known = find_method(method)
    settings, data = known.read(config, data, device, instead)
    # Imports torch and Lightning: not before the configuration is known to be good.
    train = known.load()
    file, out = known.file(config), Path(out).expanduser()
    again = ["train", method, "--config", str(file), "--data", str(data), "--out", str(out)]
    again += ["--device", settings.compute.device, *(["--resume"] if resume else []), *instead.flags()]
    with together(settings.compute, again):
        steps = with_others(train(settings, data, out, resume=resume))
        if not is_first():  # of several that learn together one tells
            return (yield from steps)
        if not resume and (out / RUN_FILE).exists():
            return (yield from steps)  # which refuses: what the folder tells of its run stays as it is
        started = Started(method, file, data, settings.compute.device, resume=resume, **asdict(instead))
        return (yield from logged(steps, out, started))
