"""The door to dry runs: what a training would find, and take, without beginning it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.inference.result import Progress
from napari_her2.training_runs.files import RUN_FILE
from napari_her2.whole_files import check_writable
from napari_her2_training.config import find_config, read_config
from napari_her2_training.dry_run.findings import Findings, TrainingCheck, size
from napari_her2_training.methods import find_method

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from napari_her2_training.config import RunConfig
    from napari_her2_training.running.machines import Machines

_CHECKS: Mapping[str, tuple[str, str]] = {
    "attention-mil": ("bags", "check_attention_mil"),
    "wsmcl": ("bags", "check_wsmcl"),
    "corr-a-net": ("fields", "check_corr_a_net"),
    "predictor": ("fields", "check_predictor"),
    "corr-a-net-table": ("fields", "check_table"),
    "low-resolution": ("arms", "check_low_resolution"),
    "patches": ("arms", "check_patches"),
    "mil": ("arms", "check_mil"),
    "compare": ("arms", "check_comparison"),
    "encoder": ("patches", "check_encoder"),
}
"""Module and function of each method."""


def check_steps(
    method: str,
    *,
    config: Path | None = None,
    data: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
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
    file = find_config(config if config is not None else method.replace("-", "_"))
    settings: RunConfig | None = None
    with findings.noted():
        settings = read_config(file, known.config)
    place: Path | None = data.expanduser() if data is not None else None
    if settings is not None:
        if place is None and settings.data.manifest:
            place = file.parent / settings.data.manifest
        if place is None:
            findings.faults.append(
                "There is no data to train on: give a manifest or a folder, or [data] manifest in the "
                "configuration."
            )
    if settings is not None and place is not None:
        if device != "auto":
            settings = replace(settings, compute=replace(settings.compute, device=device))
        yield Progress("Checking the cases")
        # Imports torch and Lightning: not before the configuration is known to be good.
        module, function = _CHECKS[method]
        check: Any = getattr(import_module(f"napari_her2_training.dry_run.{module}"), function)
        yield from check(settings, place, _machines(settings, findings), findings)
    if out is not None:
        _check_out(Path(out).expanduser(), findings)
    known = bool(findings.seconds)
    if known and "learning" not in findings.seconds:
        findings.leave_out("learning")
    return TrainingCheck(
        method=method,
        config=file,
        data=place or Path(),
        faults=tuple(findings.faults),
        warnings=tuple(findings.warnings),
        facts=findings.all_facts(),
        estimates=tuple(findings.estimates()),
        seconds=sum(findings.seconds.values()) if known else None,
        memory_bytes=findings.memory_bytes or None,
        disk_bytes=findings.disk_bytes or None,
    )


def _machines(settings: RunConfig, findings: Findings) -> Machines | None:
    """Choose on what it would run as the training does: the cache is then asked for the same features."""
    from napari_her2_training.running.machines import choose_machines

    chosen: Machines | None = None
    with findings.noted():
        chosen = choose_machines(settings.compute)
        findings.facts["Device"] = chosen.name
    return chosen


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
