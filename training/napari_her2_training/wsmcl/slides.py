"""Both slides of the cases as bags of features: embedded here, or read from files that others wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2_training.cohort.embedding import embed_cases, read_cases
from napari_her2_training.cohort.features import from_files
from napari_her2_training.cohort.manifest import STAINS
from napari_her2_training.encoder.make import frozen_encoder
from napari_her2_training.wsmcl.pairs import PairedSlides

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_her2.inference.device import Device
    from napari_her2.inference.result import Progress
    from napari_her2.models.encoders import PatchEncoder
    from napari_her2_training.cohort.bags import SlideBag
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.wsmcl.config import WSMCLConfig


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """The slides of all cases, and what embedded them.

    Parameters
    ----------
    bags : mapping of (stain, row) to SlideBag
    encoder : PatchEncoder or None
        None unless it embedded all of them.
    """

    bags: Mapping[tuple[Stain, int], SlideBag]
    encoder: PatchEncoder | None

    def of(self, cases: Sequence[Case]) -> PairedSlides:
        """Return the slides of some of the cases."""
        return PairedSlides(
            [self.bags.get(("he", case.row)) for case in cases],
            [self.bags.get(("ihc", case.row)) for case in cases],
        )

    def width(self, stain: Stain) -> int:
        """Length of the features of a stain."""
        return next(int(bag.features.shape[1]) for (own, _), bag in self.bags.items() if own == stain)


def read_cohort(
    cases: Sequence[Case], config: WSMCLConfig, device: Device
) -> Generator[Progress, None, Cohort]:
    """Embed the slides of cases, or read their features.

    Parameters
    ----------
    cases : sequence of Case
    config : WSMCLConfig
    device : Device

    Yields
    ------
    Progress

    Returns
    -------
    Cohort
    """
    read: dict[Stain, bool] = {stain: from_files(cases, stain) for stain in STAINS}
    encoder = None
    if not all(read.values()):
        encoder = frozen_encoder(config.encoder, config.data.tile_px, config.compute.seed)
    bags: dict[tuple[Stain, int], SlideBag] = {}
    for stain, word in STAINS.items():
        having = [case for case in cases if getattr(case, stain) is not None]
        if read[stain] or encoder is None:
            stage = f"Reading the features of the {word} slides"
            found = yield from read_cases(having, config.data, stage=stage, stain=stain)
        else:
            stage = f"Embedding the {word} slides"
            found = yield from embed_cases(having, encoder, config.data, device, stage=stage, stain=stain)
        bags |= {(stain, case.row): bag for case, bag in zip(having, found, strict=True)}
    return Cohort(bags, None if any(read.values()) else encoder)
