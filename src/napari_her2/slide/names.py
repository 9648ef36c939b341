"""What a slide is called: in the folder of its result, in tables, as a layer and in every export.

The ending of a file is no part of the name. What follows the last dot is an ending only where it is one of
a kind of slide: the files and folders of DICOM are named after identifiers like 1.2.840.113, whose last
number tells one slide from the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = frozenset(
    {
        *(".svs", ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".ndpi", ".ndpis", ".scn", ".bif", ".qptiff"),
        *(".svslide", ".mrxs", ".vms", ".vmu", ".vsi", ".czi", ".zvi", ".dcm", ".dicom", ".ima"),
        *(".jpg", ".jpeg", ".jpe", ".jp2", ".j2k", ".png", ".bmp", ".gif", ".webp", ".ppm"),
    }
)
"""Endings of slides and pictures, in lower case."""


def slide_name(path: Path) -> str:
    """Name a slide after its file or folder.

    Parameters
    ----------
    path : Path
        Of a file, which loses its ending, or of a folder, which is named in full.

    Returns
    -------
    str

    Examples
    --------
    >>> from pathlib import Path
    >>> slide_name(Path("case-7.svs")), slide_name(Path("case-7.ome.tif")), slide_name(Path("1.2.840.5"))
    ('case-7', 'case-7.ome', '1.2.840.5')
    """
    known = path.suffix.lower() in SUFFIXES and not path.is_dir()
    # "...svs" without its ending would be the folder above.
    return path.stem if known and path.stem.strip(".") else path.name
