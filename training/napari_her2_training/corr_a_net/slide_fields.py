"""Fields cut from registered slides: H&E and IHC of the same places, each with the score of its case.

The slides of a case are taken to be registered: what lies at one distance in µm from the upper left corner of
one lies there on the other. H&E is normalised by one Macenko fit a slide, as scoring does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed, SlideError
from napari_her2.slide.macenko import fit_slide, he_transform
from napari_her2.steps import Progress
from napari_her2_training.cohort.manifest import SPLITS, label_of
from napari_her2_training.cohort.outlines import tumour_share
from napari_her2_training.cohort.reading import naming_row, slide_to_learn
from napari_her2_training.cohort.tissue import check_scale, tissue_to_learn
from napari_her2_training.corr_a_net.fields import FieldList, averaged
from napari_her2_training.files import OWN_FILES, write_json
from napari_her2_training.findings import noted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.slide.reader import Slide
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.corr_a_net.config import FieldDataConfig
    from napari_her2_training.findings import Findings

STAGE = "Finding fields"
_STEPS = 8
"""Fields begin at multiples of an eighth of their side."""
_TIMED = 4
"""Fields that are read to time it."""


@dataclass(frozen=True, slots=True)
class Places:
    """Fields of a case: corners in µm, (y, x)."""

    case: Case
    corners_um: tuple[tuple[float, float], ...]


class SlideFields:
    """The fields of the slides of a split.

    Parameters
    ----------
    parts : mapping of str to sequence of (Case, corners in µm)
        See `plan_fields`, which makes them.
    config : FieldDataConfig
    """

    def __init__(self, parts: Mapping[str, Sequence[Places]], config: FieldDataConfig) -> None:
        self.parts = parts
        self.config = config
        self.field_px = config.field_px

    def listed(self, part: str) -> FieldList:
        """Say which fields a part holds."""
        each = [(number, places) for number, places in enumerate(self.parts[part]) for _ in places.corners_um]
        return FieldList(
            tuple(label_of(places.case, self.config.classes) for _, places in each),
            tuple(places.case.case_id for _, places in each),
            tuple(number for number, _ in each),
        )

    def cut(self, part: str, stain: Stain) -> Iterator[NDArray[np.uint8]]:
        """Read, normalise (H&E) and average the fields of a part, a slide at a time; white outside of it."""
        for places in self.parts[part]:
            case = places.case
            if not places.corners_um:
                continue
            with naming_row(case), slide_to_learn(case, stain) as slide:
                transform = None
                if stain == "he":
                    transform = he_transform(fit_slide(slide, mpp=self.config.mpp))
                images = read_fields(
                    slide, np.array(places.corners_um), tile_px=self.config.tile_px, mpp=self.config.mpp
                )
            yield averaged(images, self.field_px, transform)


def plan_fields(
    split: Split, config: FieldDataConfig, folder: Path, record: Path, findings: Findings | None = None
) -> Generator[Progress, None, SlideFields]:
    """Decide which fields the slides of a split give, or read what was decided before.

    Parameters
    ----------
    split : Split
    config : FieldDataConfig
    folder : Path
        Of the manifest, which the pattern of the regions is relative to.
    record : Path
        JSON file in which the fields are kept.
    findings : Findings, optional
        Nothing is kept; a few fields are read to time it.

    Raises
    ------
    JobFailed
        Naming the row, where a slide is of the other stain, too coarse, or gives no field.
    """
    cases = [(part, case) for part in SPLITS for case in getattr(split, part)]
    known: dict[str, list[list[float]]] = {}
    if findings is None and record.exists():
        known = OWN_FILES.json_object(record)
    else:
        timed = (0.0, 0.0)
        for number, (part, case) in enumerate(cases):
            yield Progress(STAGE, number, len(cases), "slides", case.case_id)
            with naming_row(case, findings):
                began = time.perf_counter()
                corners = find_fields(
                    case, part, config, folder, np.random.default_rng([config.seed, number])
                )
                known[str(case.row)] = corners.tolist()
                if findings is not None:
                    findings.looked.append(time.perf_counter() - began)
                    timed = timed if any(timed) else _seconds(case, corners, config)
        if findings is None:
            write_json(record, known)
        else:
            _add_facts(known, cases, timed, findings)
            yield from _look_at_calibration(split.calibration, config, findings)
    parts = {
        part: tuple(
            Places(case, tuple((y, x) for y, x in known.get(str(case.row), ())))
            for case in getattr(split, part)
        )
        for part in SPLITS
    }
    for part in ("train", "validation"):
        with noted(findings):
            if not any(places.corners_um for places in parts[part]):
                raise JobFailed(f"The {part} slides hold no field of {config.tile_px} px with enough tissue.")
    return SlideFields(parts, config)


def _look_at_calibration(
    cases: Sequence[Case], config: FieldDataConfig, findings: Findings
) -> Generator[Progress, None, None]:
    """Open slides of which no field is cut: the finished model scores them."""
    for number, case in enumerate(cases):
        yield Progress("Looking at the calibration slides", number, len(cases), "slides", case.case_id)
        with naming_row(case, findings), slide_to_learn(case, "he") as slide:
            _check_slide(slide, "he", config)


def _seconds(case: Case, corners: NDArray[np.float64], config: FieldDataConfig) -> tuple[float, float]:
    """Fit the stain of a slide and read some fields of it; return what the fit takes, and what a field."""
    some = corners[:_TIMED]
    if not len(some):
        return 0.0, 0.0
    with slide_to_learn(case, "he") as slide:
        began = time.perf_counter()
        fit_slide(slide, mpp=config.mpp)
        fitted = time.perf_counter()
        read_fields(slide, some, tile_px=config.tile_px, mpp=config.mpp)
        return fitted - began, (time.perf_counter() - fitted) / len(some)


def _add_facts(
    known: Mapping[str, list[list[float]]],
    cases: Sequence[tuple[str, Case]],
    timed: tuple[float, float],
    findings: Findings,
) -> None:
    """Tell which slides give no field, and what cutting all of them takes."""
    for _, case in cases:
        if known.get(str(case.row)) == []:
            findings.warn(
                f"{case.where}no tissue was found on {case.slide('he').name}, or too little: it is not used."
            )
    used = [corners for corners in known.values() if corners]
    if any(timed):
        findings.spend("cutting fields", timed[0] * len(used) + timed[1] * 2 * sum(map(len, used)))


def find_fields(
    case: Case, part: str, config: FieldDataConfig, folder: Path, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Find the fields of a case.

    Parameters
    ----------
    case : Case
    part : {"train", "validation", "test"}
        The IHC of "test" is not opened.
    config : FieldDataConfig
    folder : Path
        Of the manifest, which the pattern of the regions is relative to.
    rng : numpy Generator

    Returns
    -------
    (N, 2) float64
        Their corners in µm, (y, x), in raster order.

    Raises
    ------
    SlideError
        The slide is of the other stain, or too coarse.
    SlideChanged
        It is changed while it is read.
    """
    tumour: NDArray[np.floating]
    tissue: NDArray[np.floating]
    with slide_to_learn(case, "he") as slide:
        _check_slide(slide, "he", config)
        random = config.fields_per_slide > 0
        grid = slide.tile_grid(config.tile_px // _STEPS if random else config.tile_px, config.mpp)
        # The exact pitch of the grid of tiles, although a step may be no whole number of pixels.
        tissue = slide.tissue().fraction(grid)
        tumour = np.ones(tissue.shape)
        least = 0.0
        if config.regions:
            tumour = tumour_share(folder / config.regions.format(case_id=case.case_id), grid)
            least = config.least_tumour
        if random:
            tissue, tumour = _of_squares(tissue), _of_squares(tumour)
        index = np.argwhere((tissue >= config.min_tissue - 1e-6) & (tissue > 0) & (tumour >= least))
        if random:
            chosen = rng.permutation(len(index))[: config.fields_per_slide]
            index = index[np.sort(chosen)]
        corners = np.multiply(index, grid.tile_um, dtype=np.float64)
    if part == "test":
        return corners  # its IHC stays closed until something asks for it
    with slide_to_learn(case, "ihc") as other:
        _check_slide(other, "ihc", config)
        size_um = np.array(other.shape) * other.known_mpp
        inside = (corners + config.tile_px * config.mpp <= size_um + max(other.known_mpp)).all(axis=1)
    return corners[inside]


def _check_slide(slide: Slide, stain: Stain, config: FieldDataConfig) -> None:
    check_scale(slide, config.mpp)
    # IHC without a reaction is as blue as pale H&E: there colours prove nothing.
    if stain == "he":
        tissue_to_learn(slide, stain, check=config.check_stains)


def _of_squares(shares: NDArray[np.floating]) -> NDArray[np.float64]:
    """Means over all squares of `_STEPS` x `_STEPS`, by the corner that they begin at."""
    if min(shares.shape) < _STEPS:
        return np.zeros((0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(shares, (_STEPS, _STEPS))
    means: NDArray[np.float64] = windows.mean(axis=(2, 3))
    return means


def read_fields(
    slide: Slide, corners_um: NDArray[np.float64], *, tile_px: int, mpp: float
) -> NDArray[np.uint8]:
    """Read fields that begin anywhere.

    Parameters
    ----------
    slide : Slide
    corners_um : (N, 2) float
        (y, x), µm from the upper left corner of the slide.
    tile_px : int
        Side, pixels.
    mpp : float
        µm per pixel of the fields.

    Returns
    -------
    (N, tile_px, tile_px, 3) uint8
        As the tile stream makes them: fields that begin where a tile does are that tile.

    Raises
    ------
    SlideError
        If the slide is damaged there, or states no µm/px.
    """
    places = slide.tile_grid(tile_px, mpp).places_of_um(corners_um)
    fields = np.zeros((len(places), tile_px, tile_px, 3), np.uint8)
    for batch in slide.squares(places, tile_px=tile_px, mpp=mpp, batch_size=4):
        if len(batch.corrupt):
            raise SlideError(f"{slide.path.name} is damaged where a field lies: get the file again.")
        fields[batch.number] = batch.images
    return fields
