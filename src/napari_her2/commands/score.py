"""``napari-her2 score``: slides to scores, files and a table."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_her2.commands.console import FAILED, drive, in_words, output, pairs_table, say
from napari_her2.commands.info import BACKEND_HELP, MPP_HELP
from napari_her2.errors import Her2Error

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.slide.reader import Slide

DEVICE_HELP = "auto, cpu, cuda, cuda:0 or mps."
HEAD_WORDS = {"fusion": "both slides together", "H&E": "the H&E slide alone", "IHC": "the IHC slide alone"}
TISSUE_HELP = "Tissue preset: auto, resection or biopsy."


def score(
    slides: Annotated[list[Path], typer.Argument(help="Slide files.", metavar="SLIDE...")],
    model: Annotated[str, typer.Option(help="Name of a model, or its file.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; one folder a slide in it.")],
    ihc: Annotated[
        Path | None,
        typer.Option(help="IHC slide of the same case, beside its H&E slide, for models that take both."),
    ] = None,
    regions: Annotated[
        Path | None, typer.Option(help="GeoJSON; only tiles inside are scored (one slide).")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help=MPP_HELP)] = None,
    ihc_mpp: Annotated[float | None, typer.Option(help="The same for the IHC slide.")] = None,
    stain: Annotated[
        str, typer.Option(help="Of a slide scored alone: auto (from its colours), H&E or IHC.")
    ] = "auto",
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    tissue: Annotated[str, typer.Option(help=TISSUE_HELP)] = "auto",
    min_tissue: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of a tile that is tissue.")
    ] = 0.5,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Below this probability the answer is indeterminate.")
    ] = 0.5,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Tiles computed together; by default what suits the device.")
    ] = None,
    cache: Annotated[bool, typer.Option(help="Keep embeddings on disk for the next run.")] = True,
    override_fit: Annotated[
        bool, typer.Option("--override-fit", help="Score a slide that the model was not made for.")
    ] = False,
    backend: Annotated[str, typer.Option(help=BACKEND_HELP)] = "auto",
) -> None:
    """Score slides. Research use only; not for diagnosis or treatment decisions."""
    if len(slides) > 1 and (regions or ihc):
        raise typer.BadParameter("--regions and --ihc belong to one slide: score it alone.")
    options = {
        "preset": tissue,
        "stain": stain,
        "min_tissue": min_tissue,
        "min_confidence": min_confidence,
        "batch_size": batch_size,
        "cache": cache,
        "override_fit": override_fit,
    }
    bundle = _prepare(out, model)
    failed = False
    for path in slides:
        try:
            opening = (_Opening(path, mpp, backend), _Opening(ihc, ihc_mpp, backend) if ihc else None)
            result, reader = _score_one(*opening, bundle, out, regions, device, options)
        except (Her2Error, OSError) as error:
            if len(slides) == 1:
                raise
            # The other slides are not to blame.
            say(f"{path.name}: {in_words(error)}")
            failed = True
            continue
        output().print(pairs_table(_rows(result, reader, out), title=f"{result.slide}: {result.label}"))
    if failed:
        raise typer.Exit(FAILED)


def _prepare(out: Path, model: str) -> ModelBundle:
    """Refuse what would fail at the end before anything is computed."""
    from napari_her2.export.atomic import check_writable
    from napari_her2.models.registry import load_model

    check_writable(out)
    return load_model(model)


@dataclass(frozen=True, slots=True)
class _Opening:
    """A slide to be opened, and how."""

    path: Path
    mpp: float | None
    backend: str

    def open(self) -> Slide:
        from napari_her2.slide.reader import open_slide

        return open_slide(self.path, mpp=self.mpp, backend=self.backend)  # type: ignore[arg-type]  # checked there


def _score_one(
    wanted: _Opening,
    paired: _Opening | None,
    bundle: ModelBundle,
    out: Path,
    regions: Path | None,
    device: str,
    options: dict[str, Any],
) -> tuple[SlideResult, str]:
    from napari_her2.export.tables import result_folder, write_result
    from napari_her2.inference.scoring import score_steps

    with ExitStack() as stack:
        slide = stack.enter_context(wanted.open())
        ihc = stack.enter_context(paired.open()) if paired else None
        result_folder(slide.name, slide.fingerprint, out)
        readers = dict.fromkeys(opened.backend for opened in (slide, ihc) if opened is not None)
        steps = score_steps(slide, bundle, ihc, regions, device, **options)
        result = drive(steps, wanted.path.name)
    write_result(result, out)
    return result, ", ".join(readers)


def _rows(result: SlideResult, reader: str, out: Path) -> list[tuple[str, object]]:
    from napari_her2.inference.presentation import blind_spot, class_name, images_in_words

    rows: list[tuple[str, object]] = [("task", result.task), ("result", result.label)]
    spread = result.uncertainty
    for position, name in enumerate(result.classes):
        value = result.probabilities[name]
        bar = "#" * round(20 * value)
        sd = "" if spread is None else f" ± {spread.sd[position]:.3f}"
        rows.append((f"P({class_name(name)})", f"{value:.3f}{sd} {bar}"))
    rows.append(("margin", f"{result.margin:.3f}"))
    if result.head:
        rows.append(("answered by", HEAD_WORDS[result.head]))
    for head, score in result.head_scores.items():
        if head != result.head:
            rows.append((f"{head} alone", f"{class_name(score)} ({result.heads[head][score]:.3f})"))
    if spread is not None:
        rows.append(("±", f"standard deviation over {spread.draws} draws of {spread.bag_size} tiles"))
    for scored in result.slides:
        of = f" ({scored.stain})" if len(result.slides) > 1 else ""
        area = f"{scored.tissue_mm2:.2f} mm² of tissue"
        if scored.thumbnails:
            rows.append((f"seen{of}", f"{images_in_words(scored.thumbnails)}, {area}"))
            limit = blind_spot(scored.thumbnails[0].mpp) if scored.stain == "IHC" else ""
            if limit:
                rows.append(("limit", limit))
            continue
        size = f"{scored.grid.tile_um:g} µm at {scored.grid.mpp:g} µm/px"
        rows.append((f"tiles{of}", f"{len(scored.table):,} of {size}, {area}"))
    if result.rule:
        rows.append(("rule", result.rule))
    rows += [
        ("model", f"{result.model} (SHA-256 {result.model_sha256[:12]})"),
        ("training data", result.training_data),
        ("criteria", result.guideline),
        ("reader", reader),
        ("device", result.device),
        ("time", ", ".join(f"{name} {value:.1f} s" for name, value in result.seconds.items())),
    ]
    if result.regions:
        rows.append(("limited to", result.regions))
    rows += [("warning", text) for text in result.warnings]
    rows += [("written to", out / result.slide), ("notice", result.notice)]
    return rows
