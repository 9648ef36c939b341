"""A slide from its path to the features of its tiles: the one way, on this machine and on a worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - jobs travel
from typing import TYPE_CHECKING

from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.errors import JobFailed, SlideError
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_her2.cohort.sources import ScaledEncoder
    from napari_her2.export.request import Request
    from napari_her2.inference.embeddings import Embeddings
    from napari_her2.models.card import EncoderSpec
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import Preset
    from napari_her2.steps import Progress


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """Embed the tissue tiles of a slide, and write their features as HDF5.

    Parameters
    ----------
    path : Path
    out : Path
        Folder for the file.
    tile_mpp : float
        µm/px of the tiles.
    mpp : float or None
        µm per level-0 pixel, where the file does not say it or says it wrongly.
    tissue : str
        Preset of the tissue mask.
    min_tissue : float
        Share of a tile that must be tissue.
    batch_size : int or None
    cache : bool
    device, backend : str
        As of `choose_device` and `open_slide`.
    skip_finished : bool
        Leave it alone where this very request was answered before.
    """

    path: Path
    out: Path
    tile_mpp: float
    mpp: float | None = None
    tissue: Preset = "auto"
    min_tissue: float = 0.5
    batch_size: int | None = None
    cache: bool = True
    device: str = "auto"
    backend: str = "auto"
    skip_finished: bool = False

    def __post_init__(self) -> None:
        if self.tissue not in ("auto", "resection", "biopsy"):
            raise JobFailed(f"There is no tissue preset {self.tissue!r}: use auto, resection or biopsy.")

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return (self.path,)

    def unless_finished(self) -> EmbedJob:
        """Return the same job that leaves a finished slide alone."""
        return replace(self, skip_finished=True)

    def steps(self, tool: ScaledEncoder) -> Generator[Progress, None, SlideOutcome]:
        """Embed and write.

        Parameters
        ----------
        tool : ScaledEncoder

        Yields
        ------
        Progress

        Returns
        -------
        SlideOutcome

        Raises
        ------
        SlideError, ModelError, JobFailed
        """
        from napari_her2.export.features import FeatureSource, holds_features, write_features
        from napari_her2.inference.device import choose_device
        from napari_her2.inference.embed import embed_steps
        from napari_her2.inference.embeddings import refuse_ruins
        from napari_her2.inference.fit import check_grid
        from napari_her2.inference.unchanged import identified
        from napari_her2.slide.reader import open_slide

        encoder = tool.encoder
        device = choose_device(self.device)
        with open_slide(self.path, mpp=self.mpp, backend=self.backend) as slide:  # type: ignore[arg-type]
            target = self.out / f"{slide.name}.h5"
            yield from identified(slide)
            request = self._request(slide, tool.fingerprint, encoder.spec.tile_px)
            if self.skip_finished and holds_features(target, request):
                return _skipped(self.path, target)
            grid = slide.tile_grid(encoder.spec.tile_px, self.tile_mpp)
            check_grid(grid, slide)
            keep = slide.tissue(self.tissue).keep(grid, self.min_tissue)
            if not keep.any():
                raise SlideError(f"No tissue was found on {slide.name}: try another tissue preset.")
            embeddings = yield from embed_steps(
                slide, encoder, grid, keep, device, cache=self.cache, batch_size=self.batch_size
            )
            refuse_ruins(slide, embeddings)
            source = FeatureSource(
                slide.name,
                slide.fingerprint,
                slide.identity.head,
                encoder.spec.contract or encoder.spec.name,
                tool.fingerprint,
                request.version,
                slide.objective,
                _stated(encoder.spec),
            )
            write_features(target, embeddings, grid, source, request)
            facts = [
                ("reader", slide.backend),
                ("device", device.line(embeddings.precision, embeddings.graph)),
            ]
            facts += _embedded(embeddings, target)
            facts += [("warning", text) for text in slide.warnings]
        return SlideOutcome(self.path, "done", self.path.name, target, tuple(facts))

    def _request(self, slide: Slide, encoder: str, tile_px: int) -> Request:
        from napari_her2.export.request import Request
        from napari_her2.inference.precision import AUTO, wanted_precision

        options: dict[str, str | float | bool | None] = {
            "backend": self.backend,
            "mpp": self.mpp,
            "tile_mpp": self.tile_mpp,
            "tile_px": tile_px,
            "tissue": self.tissue,
            "min_tissue": self.min_tissue,
        }
        if (wanted := wanted_precision()) != AUTO:  # of which older results say nothing
            options["precision"] = wanted
        return Request((slide.fingerprint,), encoder, options, __version__)


def _stated(spec: EncoderSpec) -> str:
    """Return an encoder as JSON where its weights are known by their digest, else nothing."""
    import json

    values = {name: dict(value) if name == "arguments" else value for name, value in spec.to_values().items()}
    return json.dumps(values, sort_keys=True) if spec.weights.startswith("sha256:") else ""


def _skipped(path: Path, target: Path) -> SlideOutcome:
    facts = (
        ("finished", "by an earlier run, with the same slide, encoder and options"),
        ("written to", str(target)),
    )
    return SlideOutcome(path, "skipped", path.name, target, facts)


def _embedded(embeddings: Embeddings, target: Path) -> list[tuple[str, str]]:
    count, dim = embeddings.features.shape
    rows = [
        ("features", f"{count:,} tiles x {dim:,}, {embeddings.cached:,} from the cache"),
        ("precision", embeddings.note or embeddings.precision),
        ("written to", str(target)),
    ]
    lost = len(embeddings.corrupt)
    if lost:
        rows.append(("warning", f"{lost:,} tiles were left out: the file is damaged there"))
    if embeddings.problem:
        rows.append(("warning", embeddings.problem))
    return rows
