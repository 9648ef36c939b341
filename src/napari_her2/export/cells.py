"""The cells of a slide as files: cells.csv for tables, cells.geojson as detections that QuPath opens.

Both are written a part at a time, so that millions of cells take the memory of a few thousand. QuPath reads
GeoJSON that is compressed as .zip, and none that ends in .gz.
"""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_her2.cells.rules import CLASSES
from napari_her2.cells.table import SECTORS, ray_directions
from napari_her2.explain.class_colours import score_colours
from napari_her2.export.csv_cells import quoted_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading
    from napari_her2.inference.scored_slide import ScoredSlide

CELLS_TABLE, CELLS_FILE, CELLS_ZIP = "cells.csv", "cells.geojson", "cells.geojson.zip"
ZIPPED_FROM = 500_000
"""Cells from which their GeoJSON is compressed: plain, it takes about 1 kB a cell."""
LEFT_OUT_CLASS = "Ignore*"
"""QuPath's own class for what is not counted; the others are "HER2 0" to "HER2 3+".

"1+" alone would be a grade of intensity to QuPath, which then shows an H-score of its own.
"""
_CELLS_AT_ONCE = 5_000
_LEAST_RADIUS_UM = 0.05
_LEFT_OUT_RGB = (150, 150, 150)
Writer: TypeAlias = "Callable[[Path], None]"

_COLUMNS = {
    "cell": "%d",
    "x_px0": "%.2f",
    "y_px0": "%.2f",
    "x_um": "%.2f",
    "y_um": "%.2f",
    "region": "%s",
    "class": "%s",
    "left_out": "%d",
    "completeness": "%.5f",
    "mass_over_gain_od_um": "%.4f",
    "mass_od_um": "%.4f",
    "gain": "%.6g",
    "area_um2": "%.2f",
    "cytoplasm_dab_od": "%.4f",
    "nucleus_haematoxylin_od": "%.4f",
}
_MEASUREMENTS = {
    "Cell": "%d",
    "Region": "%d",
    "Membrane: Completeness": "%.5f",
    "Membrane: Mass / gain OD·µm": "%.4f",
    "Membrane: Mass OD·µm": "%.4f",
    "Cell: Area µm^2": "%.2f",
    "Cytoplasm: DAB OD mean": "%.4f",
    "Nucleus: Hematoxylin OD": "%.4f",
}


def cell_files(slide: ScoredSlide) -> tuple[tuple[str, Writer], ...]:
    """Return the files of the cells of a slide, and what writes each; none where no cells were read.

    Parameters
    ----------
    slide : ScoredSlide

    Returns
    -------
    tuple of (str, callable)
        Name, and what writes a file of that path.
    """
    reading, mpp, bounds = slide.cells, slide.grid.slide_mpp, slide.bounds_px0
    if reading is None:
        return ()
    geojson = CELLS_FILE if len(reading.cells) < ZIPPED_FROM else CELLS_ZIP
    return (
        (CELLS_TABLE, lambda path: write_cells_csv(path, reading, mpp)),
        (geojson, lambda path: write_cells_geojson(path, reading, mpp, bounds)),
    )


def write_cells_csv(path: Path, reading: CellReading, slide_mpp: tuple[float, float]) -> None:
    """Write a row for every cell that was read.

    Parameters
    ----------
    path : Path
    reading : CellReading
    slide_mpp : tuple of float
        (y, x) µm per level-0 pixel.

    Notes
    -----
    ``region`` is the name of the tumour region, and empty for cells outside of all; ``left_out`` is 1 for
    lymphocytes and stromal cells, which count in no percentage. The gain stands in every row.
    """
    names = [quoted_cell(name) for name in reading.region_names] or [""]
    region = np.array([*names, ""], dtype=object)[reading.region]  # -1 is the last
    row = ",".join(_COLUMNS.values()) + "\n"
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(",".join(_COLUMNS) + "\n")
        for numbers in _parts(np.arange(len(reading.cells))):
            centre_px0, centre_um = _centres(reading, numbers, slide_mpp)
            columns: list[NDArray[Any]] = [
                numbers,
                *(centre_px0[:, 1], centre_px0[:, 0], centre_um[:, 1], centre_um[:, 0]),
                region[numbers],
                np.asarray(CLASSES, object)[reading.classes[numbers]],
                reading.left_out[numbers],
                reading.completeness[numbers],
                *_measured(reading, numbers)[1:3],
                np.full(len(numbers), reading.rules.gain),
                *_measured(reading, numbers)[3:],
            ]
            file.writelines(
                row % values for values in zip(*(column.tolist() for column in columns), strict=True)
            )


def write_cells_geojson(
    path: Path,
    reading: CellReading,
    slide_mpp: tuple[float, float],
    bounds_px0: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Write the cells in the tumour regions as detections: outline, class, colour and measurements.

    Parameters
    ----------
    path : Path
        Compressed where it ends in .zip.
    reading : CellReading
    slide_mpp : tuple of float
        (y, x) µm per level-0 pixel.
    bounds_px0 : tuple of float
        (y, x) of the pixel that QuPath counts from.
    """
    features = [_feature(name, rgb) for name, rgb in _classes()]
    kind = np.where(reading.left_out, len(CLASSES), reading.classes)
    pitch, corner = np.array([slide_mpp[1], slide_mpp[0]]), np.array(bounds_px0[::-1])
    with _text_file(path) as file:
        file.write('{"type":"FeatureCollection","features":[\n')
        separator = ""
        for numbers in _parts(np.flatnonzero(reading.region >= 0)):
            rings = _outlines_um(reading, numbers)[..., ::-1] / pitch - corner  # (n, 32, 2), (x, y)
            rings = np.concatenate([rings, rings[:, :1]], axis=1).reshape(len(numbers), -1)
            measured: list[NDArray[Any]] = [
                numbers,
                reading.region[numbers] + 1,
                *_measured(reading, numbers),
            ]
            rows = zip(rings.tolist(), *(column.tolist() for column in measured), strict=True)
            made = (
                features[of] % (*ring, *values)
                for of, (ring, *values) in zip(kind[numbers].tolist(), rows, strict=True)
            )
            file.write(separator + ",\n".join(made))
            separator = ",\n"
        file.write("\n]}\n")


def _classes() -> list[tuple[str, tuple[int, ...]]]:
    """Name in QuPath and colour of each class, those that are left out last."""
    colours = np.round(255 * score_colours(len(CLASSES))[:, :3]).astype(int).tolist()
    named = [(f"HER2 {name}", tuple(rgb)) for name, rgb in zip(CLASSES, colours, strict=True)]
    return [*named, (LEFT_OUT_CLASS, _LEFT_OUT_RGB)]


def _feature(name: str, rgb: tuple[int, ...]) -> str:
    """Return the text of a feature, with places for the ring and the measurements."""
    ring = ",".join(["[%.2f,%.2f]"] * (SECTORS + 1))
    measured = ",".join(
        f"{json.dumps(key, ensure_ascii=False)}:{form}" for key, form in _MEASUREMENTS.items()
    )
    kind = json.dumps({"name": name, "color": list(rgb)}, separators=(",", ":")).replace("%", "%%")
    return (
        f'{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":[[{ring}]]}},'
        f'"properties":{{"objectType":"detection","classification":{kind},"measurements":{{{measured}}}}}}}'
    )


def _measured(reading: CellReading, numbers: NDArray[np.int64]) -> list[NDArray[np.floating]]:
    """Completeness, mass over gain, mass, area, DAB of the cytoplasm, haematoxylin: all finite."""
    cells = reading.cells
    columns = (
        reading.completeness[numbers],
        reading.raw_mass[numbers] / np.float32(reading.rules.gain),
        reading.raw_mass[numbers],
        cells.area_um2[numbers],
        cells.cytoplasm_dab[numbers],
        cells.nucleus_h[numbers],
    )
    return [np.nan_to_num(column) for column in columns]  # JSON has no NaN


def _centres(
    reading: CellReading, numbers: NDArray[np.int64], slide_mpp: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres in level-0 pixels and in µm, (n, 2), (y, x)."""
    centre_um = reading.cells.centre_um[numbers].astype(np.float64)
    return centre_um / np.asarray(slide_mpp), centre_um


def _outlines_um(reading: CellReading, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Borders, (n, 32, 2), (y, x), µm; a ray of no length would make a polygon that touches itself."""
    reach = np.maximum(np.nan_to_num(reading.cells.border_um[numbers].astype(np.float64)), _LEAST_RADIUS_UM)
    centre = reading.cells.centre_um[numbers].astype(np.float64)
    return np.asarray(centre[:, None] + reach[..., None] * ray_directions(), np.float64)


def _parts(numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(numbers), _CELLS_AT_ONCE):
        yield numbers[first : first + _CELLS_AT_ONCE]


@contextmanager
def _text_file(path: Path) -> Iterator[IO[str]]:
    if path.suffix != ".zip":
        with path.open("w", newline="", encoding="utf-8") as file:
            yield file
        return
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive,
        archive.open(path.stem, "w", force_zip64=True) as member,
        io.TextIOWrapper(member, encoding="utf-8", newline="") as file,
    ):
        yield file
