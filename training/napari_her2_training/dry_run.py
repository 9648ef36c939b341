"""Dry runs: what a training would find, and take, without beginning it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.steps import Progress
from napari_her2.training_runs.files import RUN_FILE
from napari_her2.whole_files import check_writable
from napari_her2_training.findings import Findings, TrainingCheck, size
from napari_her2_training.instead import AS_IT_IS, Instead
from napari_her2_training.methods import find_method

if TYPE_CHECKING:
    from collections.abc import Generator


def check_steps(
    method: str,
    *,
    config: Path | None = None,
    data: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
    instead: Instead = AS_IT_IS,
) -> Generator[Progress, None, TrainingCheck]:
    """Check a training without beginning it: configuration, labels, leakage, slides, tiles, time and memory.

    Every slide is opened and its tissue found; a batch of tiles is read and encoded, and a step of learning
    is made on made-up data, to tell how long it all would take. Nothing is written, neither into the cache
    nor into the folder of the run, and nothing is downloaded.

    Parameters
    ----------
    method : str
        A key of `napari_her2_training.methods.METHODS`.
    config : Path, optional
        TOML file, or the name of one of ours; by default the published protocol of the method.
    data : Path, optional
        Manifest or folder; overrides the one that the configuration names.
    out : Path, optional
        Folder that the run would have: whether it can be written to, and has room.
    device : str
        Overrides the configuration unless it is "auto".
    instead : Instead
        What goes in place of what the configuration says.

    Yields
    ------
    Progress
        At least once a slide. Closing the generator stops it.

    Returns
    -------
    TrainingCheck
        What is wrong with configuration, manifest or slides stands in its faults.

    Raises
    ------
    JobFailed
        There is no such method.
    """
    known = find_method(method)
    findings = Findings()
    place = data.expanduser() if data is not None else Path()
    with findings.noted():
        settings, place = known.read(config, data, device, instead)
        yield Progress("Checking the cases")
        # Imports torch and Lightning: not before the configuration is known to be good.
        run = known.load()
        yield from run(settings, place, Path(out or ""), resume=False, findings=findings)
    if out is not None:
        _check_out(Path(out).expanduser(), findings)
    timed = bool(findings.seconds)
    if timed and "learning" not in findings.seconds:
        findings.leave_out("learning")
    return TrainingCheck(
        method=method,
        config=known.file(config),
        data=place,
        faults=tuple(findings.faults),
        warnings=tuple(findings.warnings),
        facts=findings.all_facts(),
        estimates=tuple(findings.estimates()),
        seconds=sum(findings.seconds.values()) if timed else None,
        memory_bytes=findings.memory or None,
        disk_bytes=findings.disk_bytes or None,
    )


def _check_out(out: Path, findings: Findings) -> None:
    with findings.noted():
        check_writable(out)
        if (out / RUN_FILE).exists():
            findings.warn(f"{out} holds a run already: resume it, or choose another folder.")
        existing = next(folder for folder in (out, *out.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        if findings.disk_bytes > free:
            findings.warn(
                f"The run takes about {size(findings.disk_bytes)}, and {size(free)} are free where {out} "
                f"lies: make room, or choose another folder."
            )
