"""``napari-her2 info``: what a slide file says of itself; without one, on what this machine computes."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_her2.commands.console import output, pairs_table
from napari_her2.number_words import size_in_words

if TYPE_CHECKING:
    from napari_her2.slide.reader import Slide

MPP_HELP = "Your own µm per level-0 pixel, where the file states none or a wrong one."
BACKEND_HELP = "Library that reads the slide: auto, tiffslide or openslide."


def info(
    slide: Annotated[
        Path | None,
        typer.Argument(help="Slide file, or folder of DICOM files; without it: this machine."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    mpp: Annotated[float | None, typer.Option(help=MPP_HELP)] = None,
    backend: Annotated[str, typer.Option(help=BACKEND_HELP)] = "auto",
) -> None:
    """Show dimensions, levels, µm/px and where it comes from, vendor and associated images."""
    if slide is None:
        if mpp is not None or backend != "auto":
            raise typer.BadParameter("--mpp and --backend are for a slide: name its file.")
        _show_machine(as_json=as_json)
        return
    from napari_her2.slide.reader import open_slide

    with open_slide(slide, mpp=mpp, backend=backend) as opened:  # type: ignore[arg-type]  # checked there
        values = slide_values(opened) | {"kept": _kept(opened)}
    if as_json:
        typer.echo(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        output().print(pairs_table(_rows(values)))


def _show_machine(*, as_json: bool) -> None:
    values = machine_values()
    if as_json:
        typer.echo(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False))
        return
    rows: list[tuple[str, object]] = [
        ("napari-her2", f"{values['version']}, PyTorch {values['torch']}, Python {values['python']}"),
        ("device", values["device"]),
        ("features", f"{values['precision']} ({values['precision_reason']})"),
        ("JPEG", f"decoded {values['jpeg']}"),
        ("threads", values["threads"]),
    ]
    output().print(pairs_table(rows))


def machine_values() -> dict[str, Any]:
    """Return on what this machine computes and in which precision, ready for JSON."""
    import platform

    import torch

    from napari_her2 import __version__
    from napari_her2.inference.device import choose_device
    from napari_her2.inference.gpu_jpeg import decoding_words
    from napari_her2.inference.precision import name_of

    device = choose_device()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.name,
        "precision": name_of(device.autocast_dtype),
        "precision_reason": device.precision_reason,
        "jpeg": decoding_words(device.torch_device),
        "threads": torch.get_num_threads(),
    }


def _kept(slide: Slide) -> dict[str, Any] | None:
    """Return what is kept of the work on a slide in napari; None where nothing is."""
    from napari_her2.desk.kept_slide import time_in_words
    from napari_her2.desk.store import Desk
    from napari_her2.errors import JobFailed

    desk = Desk()
    if not len(desk):
        return None  # whoever keeps nothing need not wait until the slide is known by its content
    size = desk.size(slide.fingerprint)
    try:
        kept = desk.read(slide.fingerprint)
    except JobFailed as error:
        return {"words": str(error), "bytes": size}
    if kept is None:
        return None
    return {"words": f"{kept.words() or 'the view'} ({time_in_words(kept.time)})", "bytes": size}


def slide_values(slide: Slide) -> dict[str, Any]:
    """Return what is known of a slide, ready for JSON; pairs are (y, x) or (height, width)."""
    return {
        "path": str(slide.path),
        "name": slide.name,
        "backend": slide.backend,
        "vendor": slide.vendor,
        "objective": slide.objective,
        "shape": list(slide.shape),
        "mpp": list(slide.mpp) if slide.mpp else None,
        "mpp_source": slide.mpp_source,
        "levels": [
            {"shape": list(shape), "downsample": list(downsample)}
            for shape, downsample in zip(slide.level_shapes, slide.level_downsamples, strict=True)
        ],
        "associated_images": list(slide.associated_images),
        "icc_profile_bytes": len(slide.icc_profile or b""),
        "sha256_head": slide.identity.head,
        "warnings": list(slide.warnings),
    }


def _rows(values: dict[str, Any]) -> list[tuple[str, object]]:
    height, width = values["shape"]
    mpp = values["mpp"]
    micrometres = (
        f"{mpp[1]:.5g} x {mpp[0]:.5g} µm/px ({values['mpp_source']})"
        if mpp
        else "not stated in the file: give it with --mpp"
    )
    rows: list[tuple[str, object]] = [
        ("slide", values["path"]),
        ("reader", values["backend"]),
        ("vendor", values["vendor"] or "not stated"),
        ("objective", f"{values['objective']:g}x" if values["objective"] else "not stated"),
        ("size", f"{width:,} x {height:,} px"),
        ("scale", micrometres),
    ]
    if mpp:
        rows.append(("area", f"{width * mpp[1] / 1000:.2f} x {height * mpp[0] / 1000:.2f} mm"))
    rows += [
        (
            f"level {number}",
            f"{level['shape'][1]:,} x {level['shape'][0]:,} px, downsample {level['downsample'][1]:.4f}",
        )
        for number, level in enumerate(values["levels"])
    ]
    rows.append(("associated images", ", ".join(values["associated_images"]) or "none"))
    icc = values["icc_profile_bytes"]
    rows.append(("ICC profile", f"{icc:,} bytes" if icc else "none"))
    if values["kept"] is not None:
        kept = values["kept"]
        rows.append(("kept work", f"{kept['words']}, {size_in_words(kept['bytes'])}"))
    rows += [("warning", text) for text in values["warnings"]]
    return rows
