"""A result as files: result.json, tiles.csv, maps.npz, regions.geojson, images, and the whole of it."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from napari_her2.explain.maps import tile_columns
from napari_her2.explain.quality import reasons_in_words
from napari_her2.export.asked import asked_values
from napari_her2.export.atomic import whole_folder
from napari_her2.export.case import case_values
from napari_her2.export.cells import cell_files
from napari_her2.export.csv_cells import write_table
from napari_her2.export.doubt import doubt_values, slide_doubt_values
from napari_her2.export.geojson import regions_geojson
from napari_her2.export.kept_result import write_kept
from napari_her2.export.result_files import (
    KEPT_NAME,
    MAPS_FILE,
    OF_A_METHOD,
    QUALITY_FILE,
    REGIONS_FILE,
    RESULT_FILE,
    TILES_FILE,
    image_file,
    is_of_result,
    result_folder,
    slide_folder,
)
from napari_her2.inference.withheld import without_answer
from napari_her2.methods.catalogue import METHODS
from napari_her2.slide.quality_limits import REASONS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap
    from napari_her2.export.cells import Writer
    from napari_her2.export.request import Request
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.slide.quality import Quality
    from napari_her2.slide.thumbnail import Thumbnail

_PLACE = ("row", "column", "x_px0", "y_px0", "width_px0", "height_px0", "x_um", "y_um", "side_um")


def write_result(result: SlideResult, out_dir: Path, request: Request | None = None) -> Path:
    """Write the files of a result.

    Parameters
    ----------
    result : SlideResult
        Where its answer is withheld, no file holds it or anything that would give it away; see
        `napari_her2.inference.withheld.without_answer`.
    out_dir : Path
        The files go to a folder in it that is named after the slide; those of an older result are replaced,
        and what others put beside them stays. Those of a paired slide go to a folder within, named after
        its stain.
    request : Request, optional
        What was asked; it is written into result.json, where `finished_result` finds it.

    Returns
    -------
    Path
        That folder.

    Raises
    ------
    JobFailed
        If it cannot be written, or a folder of that name holds something else.
    """
    result = without_answer(result)
    target = result_folder(result.slide, result.slide_sha256, result.slide_sha256_head, out_dir)
    with whole_folder(target, is_of_result) as folder:
        asked = {} if request is None else {"request": request.values()}
        _write_json(folder / RESULT_FILE, result_values(result) | asked | {"kept": KEPT_NAME})
        write_kept(result, folder / KEPT_NAME)
        _write_slide(folder, result)
        stains = [scored.stain for scored in result.slides]
        for number, other in enumerate(result.slides[1:], start=1):
            inside = folder / slide_folder(number, stains)
            inside.mkdir()
            _write_slide(inside, result.seen_from(other.slide_id))
    return target


def result_values(result: SlideResult) -> dict[str, Any]:
    """Return what goes into result.json; NaN becomes null there.

    Parameters
    ----------
    result : SlideResult

    Returns
    -------
    dict
    """
    result = without_answer(result)
    values = _common_values(result) | doubt_values(result)
    if twice := values.keys() & result.measures.keys():
        raise ValueError(f"{result.method} measures what every result has: {', '.join(sorted(twice))}")
    return values | dict(result.measures)


def _common_values(result: SlideResult) -> dict[str, Any]:
    """Return what results of every method have."""
    spread = result.uncertainty
    return {
        "slide": result.slide_path.name,
        "slide_sha256": result.slide_sha256,
        "slide_sha256_head": result.slide_sha256_head,
        "method": result.method,
        "model": result.model,
        "model_sha256": result.model_sha256,
        "training_data": result.training_data,
        "guideline": result.guideline,
        "task": result.task,
        "score": result.score,
        "label": result.label,
        "class_scores": {name: list(held) for name, held in result.class_scores.items()},
        "probabilities": {name: float(value) for name, value in result.probabilities.items()},
        "confidence": result.confidence,
        "margin": result.margin,
        "abstained": result.abstained,
        "reason": result.reason,
        "uncertainty": None
        if spread is None
        else {
            "mean": dict(zip(result.classes, spread.mean.astype(float).tolist(), strict=True)),
            "sd": dict(zip(result.classes, spread.sd.astype(float).tolist(), strict=True)),
            "draws": spread.draws,
            "bag_size": spread.bag_size,
        },
        "head": result.head or None,
        "heads": {head: dict(chances) for head, chances in result.heads.items()},
        "slides_agree": result.agree,
        "rule": result.rule or None,
        "tiles_by_confidence": dict(result.trust),
        "slides": [_slide_values(slide, result.method) for slide in result.slides],
        "tiles": len(result.table),
        "corrupt_tiles": len(result.corrupt),
        "regions": result.regions,
        "mpp": result.grid.mpp,
        "slide_mpp": list(result.grid.slide_mpp),
        "mpp_source": result.slides[0].mpp_source,
        "qupath_origin_px0_yx": list(result.slides[0].bounds_px0),
        "tile_px": result.grid.tile_px,
        "tissue_mm2": result.tissue_mm2,
        "device": result.device,
        "precision": result.precision or None,
        "seconds": dict(result.seconds),
        "warnings": list(result.warnings),
        "version": result.version,
        "notice": result.notice,
        "asked": None if result.asked is None else asked_values(result.asked),
        **case_values(result),
    }


def _slide_values(slide: ScoredSlide, method: str) -> dict[str, Any]:
    return {
        "slide": slide.path.name,
        "slide_sha256": slide.fingerprint,
        "slide_sha256_head": slide.sha256_head,
        "stain": slide.stain,
        "looks_like": slide.looks_like,
        "tiles": len(slide.table),
        "corrupt_tiles": len(slide.corrupt),
        "slide_mpp": list(slide.grid.slide_mpp),
        "mpp_source": slide.mpp_source,
        "tissue_mm2": slide.tissue_mm2,
        "left_out": left_out_values(slide.quality),
        "images": [_image_values(thumbnail) for thumbnail in slide.thumbnails],
        "files": [name for name, _ in _added_files(slide, method)],
        **slide_doubt_values(slide),
        **({"probabilities": dict(slide.alone)} if slide.alone else {}),
    }


def _image_values(thumbnail: Thumbnail) -> dict[str, Any]:
    return {
        "size_px": thumbnail.size_px,
        "mpp": thumbnail.mpp,
        "level": thumbnail.level,
        "origin_px0_yx": list(thumbnail.origin_px0),
        "pixel_px0_yx": list(thumbnail.pixel_px0),
        "damaged_px": 0 if thumbnail.damaged is None else int(thumbnail.damaged.sum()),
    }


def _added_files(slide: ScoredSlide, method: str) -> tuple[tuple[str, Writer], ...]:
    """Files beside those that every slide has: of its cells, and what its method adds."""
    cells = cell_files(slide)
    own = METHODS[method].files(slide) if method in METHODS else ()
    return (*cells, *(added for added in own if added[0] not in dict(cells)))


def left_out_values(quality: Quality | None) -> dict[str, Any] | None:
    """Return for JSON how much of the tissue is poor and why; None where nobody looked."""
    if quality is None:
        return None
    return {
        "share": quality.share,
        "reasons": {REASONS[name]: share for name, share in quality.shares.items()},
        "tiles": int(quality.poor.sum()),
        "of_tiles": int(quality.counted.sum()),
        "applied": quality.left_out,
        "not_judged": [REASONS[name] for name in quality.unjudged],
        "limits": quality.limits.values(),
    }


def _write_slide(folder: Path, result: SlideResult) -> None:
    _write_tiles(folder / TILES_FILE, result)
    _write_maps(folder / MAPS_FILE, result)
    _write_json(folder / REGIONS_FILE, regions_geojson(result))
    if result.slides[0].quality is not None:
        _write_quality(folder / QUALITY_FILE, result.slides[0].quality)
    for number, thumbnail in enumerate(result.thumbnails, start=1):
        _write_png(folder / image_file(number), thumbnail.rgb)
    for name, write in _added_files(result.slides[0], result.method):
        if name not in OF_A_METHOD:
            raise ValueError(f"a result has no file {name}, and would not replace it: name it in OF_A_METHOD")
        write(folder / name)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(without_nan(values), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_tiles(path: Path, result: SlideResult) -> None:
    """Write a row a tile, in the order of scoring; the columns carry their units."""
    grid, table = result.grid, result.table
    quality = _quality_column(result)
    columns = tile_columns(result.maps, table.index, lambda info: info.exported)
    values = [column.values.tolist() for column in columns]
    height, width = (f"{side:.3f}" for side in grid.tile_px0)

    def row_of(at: int) -> list[object]:
        row, col = table.index[at].tolist()
        y, x = table.origins_px0[at].tolist()
        y_um, x_um, _, _ = grid.bounds_um(row, col)
        where = [row, col, x, y, width, height, f"{x_um:.3f}", f"{y_um:.3f}", f"{grid.tile_um:.3f}"]
        where += quality[at : at + 1]
        return [*where, *(of.column.text(known[at]) for of, known in zip(columns, values, strict=True))]

    names = [*_PLACE, *(["quality"] if quality else []), *(column.name for column in columns)]
    write_table(path, names, map(row_of, range(len(table))))


def _quality_column(result: SlideResult) -> list[str]:
    """Quality of each scored tile, in words; empty where nobody looked."""
    quality, index = result.slides[0].quality, result.table.index
    if quality is None or quality.grid != result.grid:
        return []
    return [reasons_in_words(flags) or "good" for flags in quality.reasons[tuple(index.T)].tolist()]


def _write_quality(path: Path, quality: Quality) -> None:
    """Write a row a poor tile: its place, its first reason and all of them, and whether it was left out."""
    grid, titles, firsts = quality.grid, list(REASONS.values()), quality.first
    height, width = (f"{side:.3f}" for side in grid.tile_px0)
    index = np.argwhere(quality.poor)
    origins = grid.origins_px0(index).tolist()

    def row_of(at: int) -> list[object]:
        row, col = index[at].tolist()
        y_um, x_um, _, _ = grid.bounds_um(row, col)
        where = [
            row,
            col,
            *origins[at][::-1],
            width,
            height,
            f"{x_um:.3f}",
            f"{y_um:.3f}",
            f"{grid.tile_um:.3f}",
        ]
        flags = int(quality.reasons[row, col])
        return [
            *where,
            titles[firsts[row, col]],
            reasons_in_words(flags),
            "yes" if quality.left_out else "no",
        ]

    write_table(path, [*_PLACE, "reason", "reasons", "left_out"], map(row_of, range(len(index))))


def _write_maps(path: Path, result: SlideResult) -> None:
    """Write the maps as float32 (rows, columns), NaN where nothing was scored, with their place in µm.

    Smoother maps of overlapping tiles, where there are any, stand beside those of the tiles that were scored,
    as "smooth_" with the name of those, on a grid of their own that begins at the same corner.
    """
    arrays: dict[str, Any] = {
        _array_name(tile_map): tile_map.values
        for tile_map in result.maps
        if tile_map.grid == result.grid  # quality may have a grid of its own, whose tiles its table places
    }
    for tile_map in result.slides[0].smooth:
        arrays[f"smooth_{_array_name(tile_map)}"] = tile_map.values
        arrays["smooth_cell_um"] = np.float64(tile_map.grid.tile_um)
        arrays["smooth_cell_px0_yx"] = np.asarray(tile_map.grid.tile_px0)
    arrays["tile_um"] = np.float64(result.grid.tile_um)
    arrays["tile_px0_yx"] = np.asarray(result.grid.tile_px0)
    arrays["slide_mpp_yx"] = np.asarray(result.grid.slide_mpp)
    np.savez_compressed(path, **arrays)


def _array_name(tile_map: TileMap) -> str:
    return re.sub(r"[^\w+-]+", "_", tile_map.name)


def _write_png(path: Path, rgb: NDArray[np.uint8]) -> None:
    # OpenCV's own writing to files fails on paths beyond ASCII on some systems.
    path.write_bytes(cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
