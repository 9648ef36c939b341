"""A result of a DICOM slide as DICOM: parametric maps over the slide, and a structured report of the answer.

Objects refer to the slide that they are of, by its UIDs and in its frame of reference, so that they are
written for slides that are DICOM themselves. What is measured is coded in a scheme of our own
(`SCHEME`): DICOM and SNOMED CT have no codes for the attention of a model.

Parametric Map (DICOM PS3.3 A.75) and Enhanced structured reports (A.35.2, template TID 1500) through
highdicom (Bridge et al., 2022, doi:10.1007/s10278-022-00683-y), an extra of this package.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.explain.maps import limits_of
from napari_her2.inference.withheld import without_answer
from napari_her2.slide.dicom import dicom_slide
from napari_her2.version import __version__
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide

SCHEME = "99NAPARIHER2"
REPORT_FILE = "report.dcm"
NO_VALUE = float(np.finfo(np.float32).min)
"""In a parametric map, where nothing was scored: its Float Pixel Padding Value."""
_MAKER = "napari-her2"
_FRAME_PX = 256
_LONGEST_LABEL = 16


def write_dicom(result: SlideResult, folder: Path) -> tuple[Path, ...]:
    """Write the maps and the answer of a result as DICOM objects of the study of its slide.

    Parameters
    ----------
    result : SlideResult
        Where its answer is withheld, neither it nor a map that would give it away is written; the report
        says why.
    folder : Path
        Made where it is missing.

    Returns
    -------
    tuple of Path
        A parametric map for each map of each slide, and `REPORT_FILE`.

    Raises
    ------
    JobFailed
        If highdicom is not installed, a slide is no DICOM slide or was moved, or the folder cannot be
        written to.
    """
    _need_highdicom()
    seen = without_answer(result)
    sources = [_source_of(scored) for scored in seen.slides]
    written: list[Path] = []
    for number, (scored, source) in enumerate(zip(seen.slides, sources, strict=True)):
        own = folder if not number else folder / scored.stain
        maps = [of for of in scored.shown_maps if of.holds_any and of.info.layer_name]
        for at, tile_map in enumerate(maps, start=1):
            name = re.sub(r"[^\w+-]+", "_", tile_map.name)
            written.append(_save(_parametric_map(tile_map, source, seen, at), own / f"{name}.dcm"))
    written.append(_save(_report(seen, sources), folder / REPORT_FILE))
    return tuple(written)


def _need_highdicom() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise JobFailed(
            "Writing DICOM needs highdicom, an extra: install it with  pip install 'napari-her2[dicom]'."
        ) from error


def _source_of(scored: ScoredSlide) -> Any:  # noqa: ANN401 - a pydicom Dataset
    """Header of the slide's own DICOM file, without its pixels."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        source = pydicom.dcmread(dicom_slide(scored.path)[0], stop_before_pixels=True)
    except InvalidDicomError as error:
        raise JobFailed(
            f"{scored.path.name} is no DICOM slide, and DICOM maps refer to one: write OME-TIFF, or convert "
            f"the slide to DICOM first."
        ) from error
    except OSError as error:
        raise JobFailed(
            f"{scored.path} cannot be read ({error.strerror or error}): put the slide back, or write "
            f"OME-TIFF, which does not need it."
        ) from error
    if "TotalPixelMatrixOriginSequence" not in source or "ImageOrientationSlide" not in source:
        raise JobFailed(
            f"{scored.path.name} does not state where it lies on the glass, so that nothing can be laid over "
            f"it: write OME-TIFF."
        )
    return source


def _parametric_map(tile_map: TileMap, source: Any, result: SlideResult, number: int) -> Any:  # noqa: ANN401
    """Make the parametric map of one map: one pixel a tile, in place over the slide."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    known = np.isfinite(tile_map.values)
    values = np.where(known, tile_map.values, NO_VALUE).astype(np.float32)
    low, high = limits_of(tile_map.values, tile_map.info.limits) if tile_map.info.is_map else (0.0, 1.0)
    meaning = (tile_map.unit or tile_map.name)[:64]
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=tile_map.name[:_LONGEST_LABEL],
        lut_explanation=meaning,
        unit=codes.UCUM.NoUnits,
        value_range=(float(tile_map.values[known].min()), float(tile_map.values[known].max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=_code(tile_map.name, meaning),
    )
    side_mm = tile_map.grid.tile_um / 1000
    origin = source.TotalPixelMatrixOriginSequence[0]
    # The first pixel of a slide stands by its centre, and so does the first tile.
    half_mm = (side_mm - float(tile_map.grid.slide_mpp[0]) / 1000) / 2
    rows = np.asarray(source.ImageOrientationSlide, np.float64).reshape(2, 3)
    shift = half_mm * rows.sum(axis=0)
    position = (
        float(origin.XOffsetInSlideCoordinateSystem) + shift[0],
        float(origin.YOffsetInSlideCoordinateSystem) + shift[1],
        shift[2],
    )
    made = hd.pm.ParametricMap(
        [source],
        values[None],
        hd.UID(),
        100 + number,
        hd.UID(),
        number,
        _MAKER,
        f"{result.model}"[:64],
        __version__,
        result.model_sha256[:16] or "none",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            hd.VOILUTTransformation(
                window_center=(low + high) / 2,
                window_width=max(high - low, 1e-6),
                voi_lut_function=hd.VOILUTFunctionValues.LINEAR_EXACT,
            )
        ],
        pixel_measures=hd.PixelMeasuresSequence((side_mm, side_mm), slice_thickness=0.001),
        plane_orientation=hd.PlaneOrientationSequence("SLIDE", source.ImageOrientationSlide),
        plane_positions=[hd.PlanePositionSequence("SLIDE", position, pixel_matrix_position=(1, 1))],
        content_label=re.sub(r"[^A-Z0-9_ ]+", "_", tile_map.kind.upper())[:_LONGEST_LABEL],
        content_description=tile_map.description[:64],
        tile_pixel_array=True,
        tile_size=(_FRAME_PX, _FRAME_PX),
    )
    made.FloatPixelPaddingValue = made.FloatPixelPaddingRangeLimit = NO_VALUE
    made.SeriesDescription = f"{tile_map.name}, {result.task}"[:64]
    return made


def _report(result: SlideResult, sources: Sequence[Any]) -> Any:  # noqa: ANN401 - a pydicom Dataset
    """Make the structured report: the answer with its doubt, or why it is withheld."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(), name=_MAKER, model_name=result.model[:64], manufacturer_name=_MAKER
        ),
    )
    findings = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=result.slide[:64]),
        finding_type=_code("prediction", "HER2 prediction of a model"),
        measurements=_measurements(result),
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(name=_code(name, name), value=_code(value, value))
            for name, value in _facts(result)
        ],
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=_code("slide scoring", "Scoring of whole slide images by a model"),
        imaging_measurements=[findings],
        title=codes.DCM.ImagingMeasurementReport,
    )
    report = hd.sr.EnhancedSR(
        evidence=list(sources),
        content=content[0],
        series_number=99,
        series_instance_uid=hd.UID(),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=_MAKER,
        is_complete=True,
        is_verified=False,
    )
    report.SeriesDescription = f"{result.task}: {result.notice}"[:64]
    return report


def _measurements(result: SlideResult) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    shares = [(f"probability of {name}", value) for name, value in result.probabilities.items()]
    shares += [("tissue", result.tissue_mm2)]
    units = [*[codes.UCUM.NoUnits] * (len(shares) - 1), codes.UCUM.SquareMillimeter]
    return [
        hd.sr.Measurement(name=_code(name, name), value=float(value), unit=unit)
        for (name, value), unit in zip(shares, units, strict=True)
    ]


def _facts(result: SlideResult) -> list[tuple[str, str]]:
    """List what the report says in words; of a withheld answer only that it is, and why."""
    found = [
        ("task", result.task),
        ("answer", result.label),
        ("familiarity", result.doubt.verdict),
        ("notice", result.notice),
    ]
    if result.reason:
        found.insert(2, ("reason", result.reason))
    return found


def _code(value: str, meaning: str) -> Any:  # noqa: ANN401 - a coded concept
    """Code of our own scheme: a value of at most 16 characters, and at most 64 that say it."""
    import hashlib

    import highdicom as hd

    short = re.sub(r"[^A-Za-z0-9+]+", "-", value).strip("-")
    if len(short) > _LONGEST_LABEL or not short:
        short = f"{short[:9]}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"
    return hd.sr.CodedConcept(short, SCHEME, meaning[:64] or short)


def _save(made: Any, target: Path) -> Path:  # noqa: ANN401 - a pydicom Dataset
    with whole_file(target) as path:
        made.save_as(path)
    return target
