"""What was asked of a scoring, kept with its result: enough to ask the same again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from shapely.geometry import mapping, shape

from napari_her2.inference.precision import wanted_precision
from napari_her2.inference.region_kinds import Region
from napari_her2.inference.regions import as_regions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_her2.inference.further import FurtherSlide
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.terms import Terms
    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True)
class AskedSlide:
    """A slide as it was given.

    Parameters
    ----------
    path : Path
    fingerprint : str
        Of all its content.
    mpp : tuple of float
        (y, x) µm per level-0 pixel that it was scored with.
    backend : str
        What read it: "tiffslide 2.5.0".
    further : str
        Of further slides of a case, in one bag with those before them: the stain; else empty.
    regions : tuple of AskedRegion or None
        On it, where it is one of these.
    """

    path: Path
    fingerprint: str
    mpp: tuple[float, float]
    backend: str
    further: str = ""
    regions: tuple[AskedRegion, ...] | None = None


@dataclass(frozen=True, slots=True)
class AskedRegion:
    """A drawn region, as text.

    Parameters
    ----------
    name, kind : str
        As of `napari_her2.inference.region_kinds.Region`.
    geometry : str
        GeoJSON, (x, y) in level-0 pixels of the first slide; its numbers are exactly those that were drawn.
    """

    name: str
    kind: str
    geometry: str

    @classmethod
    def of(cls, region: Region) -> AskedRegion:
        """Write a region down."""
        return cls(region.name, region.kind, json.dumps(mapping(region.polygon)))

    def region(self) -> Region:
        """Return the region."""
        return Region(shape(json.loads(self.geometry)), self.name, self.kind)


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that an answer depends on.

    Parameters
    ----------
    slides : tuple of AskedSlide
        One, or the H&E and the IHC slide of a case, as they were given.
    model : str
        Name of the model.
    model_path : Path or None
        Its file.
    model_sha256 : str
    regions : tuple of AskedRegion or None
        None for the whole tissue.
    options : ScoringOptions
        With the gain of the calibration.
    device : str
        It ran on: "cpu", "cuda:0".
    precision : str
        That was wanted: "auto", "float32" or "bfloat16".
    torch : str
        Version of PyTorch.
    threads : int
        Of PyTorch, in which sums on the processor were parted.
    """

    slides: tuple[AskedSlide, ...]
    model: str
    model_path: Path | None
    model_sha256: str
    regions: tuple[AskedRegion, ...] | None
    options: ScoringOptions
    device: str
    precision: str
    torch: str
    threads: int

    def limited_to(self, regions: Regions | None) -> Asked:
        """Return the same for other regions."""
        return replace(self, regions=_written(regions))

    def with_options(self, **changes: Any) -> Asked:  # noqa: ANN401 - fields of ScoringOptions
        """Return the same with other options."""
        return replace(self, options=replace(self.options, **changes))


def asked_of(
    slides: Iterable[Slide], terms: Terms, regions: Regions | None, further: Iterable[FurtherSlide] = ()
) -> Asked:
    """Write down what is asked of a scoring.

    Parameters
    ----------
    slides : iterable of Slide
        One, or the H&E and the IHC slide of a case.
    terms : Terms
    regions : Regions or None
        On the first slide.
    further : iterable of FurtherSlide
        In one bag with those.
    """
    given = tuple(AskedSlide(each.path, each.fingerprint, each.known_mpp, each.backend) for each in slides)
    more = tuple(
        AskedSlide(
            of.slide.path,
            of.slide.fingerprint,
            of.slide.known_mpp,
            of.slide.backend,
            of.stain,
            _written(of.regions),
        )
        for of in further
    )
    return Asked(
        (*given, *more),
        terms.card.name,
        terms.bundle.path,
        terms.bundle.sha256,
        _written(regions),
        replace(terms.options, leave_out_poor=terms.options.leaves_out_poor(terms.card)),
        str(terms.device.torch_device),
        wanted_precision(),
        str(torch.__version__),
        torch.get_num_threads(),
    )


def _written(regions: Regions | None) -> tuple[AskedRegion, ...] | None:
    return None if regions is None else tuple(map(AskedRegion.of, as_regions(regions)))
