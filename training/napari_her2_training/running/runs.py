"""A training run: its folder, its steps, its bundle.

``OUT/run.json`` says which configuration the run began with, ``OUT/foldK`` holds the checkpoints of a fold,
``OUT/NAME.safetensors`` and ``OUT/metrics.json`` appear last, whole, and mean that the run is finished.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.training_runs.files import RUN_FILE
from napari_her2_training.files import OWN_FILES, write_json
from napari_her2_training.running.ranks import from_first, is_first

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.config import RunConfig


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Folder of a run.

    Parameters
    ----------
    path : Path
    resume : bool
        Whether steps go on from what is there.
    """

    path: Path
    resume: bool


def open_run(out: Path, config: RunConfig, manifest: Path, *, resume: bool) -> RunFolder:
    """Begin a run in a folder, or go on with the one that is there.

    Raises
    ------
    JobFailed
        The folder holds another run, or one that was not to be resumed, or cannot be written to.
    """
    return from_first(_opened(out, config, manifest, resume=resume) if is_first() else RunFolder(out, resume))


def _opened(out: Path, config: RunConfig, manifest: Path, *, resume: bool) -> RunFolder:
    record = {
        "config": config.digest(),
        "manifest": hashlib.sha256(_content(manifest)).hexdigest(),
    }
    file = out / RUN_FILE
    try:
        out.mkdir(parents=True, exist_ok=True)
        if file.exists():
            known = OWN_FILES.json_object(file)
            if not resume:
                raise JobFailed(f"{out} holds a run already: go on with --resume, or choose another folder.")
            for what in record:
                if known.get(what) != record[what]:
                    raise JobFailed(
                        f"The run in {out} began with another {what}: resume with that one, "
                        f"or choose another folder."
                    )
            return RunFolder(out, resume=resume)
        write_json(file, record)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise JobFailed(
            f"{out} cannot be used ({reason}): choose a folder that may be written to."
        ) from error
    return RunFolder(out, resume=False)


def _content(manifest: Path) -> bytes:
    """Bytes of a manifest; of a folder, the names of its files."""
    if manifest.is_dir():
        names = sorted(str(path.relative_to(manifest)) for path in manifest.rglob("*.*"))
        return "\n".join(names).encode()
    return manifest.read_bytes()
