"""Slides that a model of synthetic tissue should doubt: real ones, and synthetic ones made strange."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2 import open_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from unseen import Case

HE, IHC = "H&E", "IHC"
BLUR_UM = 2.0
MPP = (0.25, 0.5)
"""Given for pictures that state none: what 40x and 20x scans have."""
CORE_MPP = (0.23,)
REAL: dict[str, tuple[tuple[str, tuple[float, ...]], ...]] = {
    HE: (
        ("slides/*.svs", ()),
        ("slides/*he.ome.tif", ()),
        ("slides/*.dcm", ()),
        ("slides/dicom-*", ()),
        ("stain/*he*.png", MPP),
        ("stain/tiatoolbox_target.png", MPP),
        ("cells/breast_he*10.tif", MPP),
        ("registration/*_He.jpg", (0.5, 1.0)),
        ("tissue/thumbnail_*.png", (0.5,)),
    ),
    IHC: (
        ("her2_ihc_cores/*.jpg", CORE_MPP),
        ("slides/*ki67*.ome.tif", ()),
        ("stain/hdab*.png", MPP),
        ("registration/*-[0-9].jpg", (0.5, 1.0)),
    ),
}
"""Files of the test data by stain, and the µm/px given for each; none where the file states its own."""


@dataclass(frozen=True, slots=True)
class Item:
    """A slide to score: what it is called, its file, its stain and the µm/px it is given."""

    name: str
    path: Path
    stain: str
    mpp: float | None = None


def real_slides() -> list[Item]:
    """List the real slides of the test data, NAPARI_HER2_TEST_DATA or ../shared/data."""
    folder = Path(os.environ.get("NAPARI_HER2_TEST_DATA", "../shared/data"))
    found = []
    for stain, patterns in REAL.items():
        for pattern, given in patterns:
            for path in sorted(folder.glob(pattern)):
                if path.name.startswith("os2_") and stain == HE:
                    continue
                scales = given or ((None,) if _stated(path) else MPP)
                found += [Item(_called(path, mpp), path, stain, mpp) for mpp in scales]
    return found


def _stated(path: Path) -> bool:
    with open_slide(path) as slide:
        return slide.mpp is not None


def _called(path: Path, mpp: float | None) -> str:
    return path.name[:40] if mpp is None else f"{path.name[:40]} at {mpp:g} µm/px"


def _gain(rgb: NDArray[np.uint8], _: float) -> NDArray[np.uint8]:
    return np.clip(rgb * np.array([0.92, 1.0, 0.85]), 0, 255).astype(np.uint8)


def _blurred(rgb: NDArray[np.uint8], mpp: float) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), BLUR_UM / mpp), np.uint8)


CHANGES: dict[str, Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]] = {
    "blurred by 2 µm": _blurred,
    "inverted": lambda rgb, _: 255 - rgb,
    "red and blue exchanged": lambda rgb, _: rgb[..., ::-1],
    "another white balance": _gain,
}
TIMES = (0.5, 1 / 1.5, 1.5, 2.0)
MUST = ("times", "blurred", "inverted", "other stain")
"""Words of the names of those that have to be called unlike; the others are printed."""


def strange_slides(cases: list[Case], folder: Path) -> Iterator[Item]:
    """Make strange slides of synthetic cases, each in both stains, as pictures in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        for stain, path, other in ((HE, case.he, case.ihc), (IHC, case.ihc, case.he)):
            with open_slide(path) as slide:
                mpp = slide.known_mpp[0]
                for times in TIMES:
                    yield Item(f"{path.stem}, µm/px {times:.2g} times", path, stain, mpp * times)
                yield Item(f"{path.stem}, the other stain", other, stain)
                for name, change in CHANGES.items():
                    made = folder / f"{path.stem} {name}.png".replace(" ", "_").replace("µ", "u")
                    if not made.exists():
                        rgb = change(slide.read(0, 0, 0, *slide.shape), mpp)
                        cv2.imwrite(str(made), rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
                    yield Item(f"{path.stem}, {name}", made, stain, mpp)
