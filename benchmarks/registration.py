"""Automatic alignment of two slides: error on expert landmarks and on moved phantoms, refusals, time, memory.

    python benchmarks/registration.py landmarks data/registration
    python benchmarks/registration.py phantoms data/phantoms --mm 5 --degrees 20
    python benchmarks/registration.py strangers data/phantoms --pairs 40

The landmarks are those of the mouse lung lesion of Borovec et al. (ANHIR, doi:10.1109/TMI.2020.2986331): they
are at 50 % scale, the pictures at 5 %. Phantom slides are `*_HE.svs` and `*_HER2.svs` of a folder, as
`napari-her2 phantom` writes them; those of one case lie on each other, so that one is moved.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import tifffile

from napari_her2 import open_slide
from napari_her2.registration.affine import Alignment
from napari_her2.registration.automatic import Registration, register_pictures, register_steps
from napari_her2.steps import finished

STAINS = ("He", "proSPC-4", "Ki67-7", "CD31-3", "Cc10-5")
LANDMARK_SCALE = 10
MOVED_MPP = 1.0
GLASS = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("landmarks", "phantoms", "strangers"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mm", type=float, default=5.0)
    parser.add_argument("--degrees", type=float, default=20.0)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    if given.what == "landmarks":
        landmarks(given.folder)
    elif given.what == "phantoms":
        phantoms(given.folder, given.pairs, given.mm, given.degrees)
    else:
        strangers(given.folder, given.pairs)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def landmarks(folder: Path) -> None:
    """Median landmark error of every pair, in per cent of the diagonal of the fixed picture."""
    pictures = {stain: _picture(folder / f"lung_lesion3_{stain}.jpg") for stain in STAINS}
    print("fixed      moving     unaligned  ours  best affine  map says  agreement  CPU s")
    for fixed, moving in itertools.permutations(STAINS, 2):
        began = time.process_time()
        found = register_pictures(pictures[fixed], pictures[moving], 1.0, 1.0)
        seconds = time.process_time() - began
        there, here = _points(folder, fixed), _points(folder, moving)
        percent = 100 / float(np.hypot(*pictures[fixed].shape[:2]))
        best = Alignment.from_points(here, there)
        errors = [
            percent * _median(alignment, here, there)
            for alignment in (Alignment.identity(), found.alignment, best)
        ]
        print(
            f"{fixed:10} {moving:10} {errors[0]:9.2f} {errors[1]:5.2f} {errors[2]:12.2f} "
            f"{percent * found.error_um:9.2f} {found.agreement:10.2f} {seconds:6.1f} {found.reason}"
        )


def phantoms(folder: Path, count: int, mm: float, degrees: float) -> None:
    """Error of H&E and IHC phantoms of one case, the IHC slide moved and turned."""
    print("case            CPU s  agreement  median µm  95 % µm  map says µm")
    for he_path in sorted(folder.glob("*_HE.svs"))[:count]:
        case = he_path.name.removesuffix("_HE.svs")
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / "moved.tif"
            truth = _move(folder / f"{case}_HER2.svs", path, mm, degrees)
            found, seconds = _register(he_path, path)
            with open_slide(he_path) as slide:
                height, width = np.asarray(slide.shape) * slide.known_mpp
        grid = np.stack(np.meshgrid(*(np.linspace(0, side, 9) for side in (height, width))), -1).reshape(
            -1, 2
        )
        off = np.hypot(*(found.alignment.apply(truth.apply(grid)) - grid).T)
        print(
            f"{case:15} {seconds:5.1f} {found.agreement:10.2f} {np.median(off):10.2f} "
            f"{np.percentile(off, 95):8.2f} {found.error_um:12.2f} {found.reason}"
        )


def strangers(folder: Path, count: int) -> None:
    """How many pairs of H&E and IHC slides of different cases are refused, and how well they agree."""
    slides = sorted(folder.glob("*_HE.svs"))
    rng = np.random.default_rng(0)
    agreements, accepted = [], 0
    for _ in range(count):
        he, ihc = (slides[number] for number in rng.choice(len(slides), 2, replace=False))
        found, _ = _register(he, ihc.with_name(ihc.name.replace("_HE", "_HER2")))
        agreements.append(found.agreement)
        accepted += not found.reason
    print(
        f"{count} pairs of different cases: {accepted} accepted, agreement median "
        f"{np.median(agreements):.2f}, at most {max(agreements):.2f}"
    )


def _register(fixed: Path, moving: Path) -> tuple[Registration, float]:
    began = time.process_time()
    with open_slide(fixed) as first, open_slide(moving) as second:
        found = finished(register_steps(first, second))
    return found, time.process_time() - began


def _move(source: Path, target: Path, mm: float, degrees: float) -> Alignment:
    """Write a slide at `MOVED_MPP`, turned about its middle and moved along y; return where its points go."""
    with open_slide(source) as slide:
        level = min(
            range(len(slide.level_shapes)),
            key=lambda i: abs(slide.level_downsamples[i][0] * slide.known_mpp[0] - MOVED_MPP),
        )
        mpp = slide.known_mpp[0] * slide.level_downsamples[level][0]
        first = (slide.level_downsamples[level][0] - 1) / 2 * slide.known_mpp[0]
        pixels = slide.read(level, 0, 0, *slide.level_shapes[level])
    turn = Alignment.identity().turned(degrees, (np.array(pixels.shape[:2]) - 1) / 2 * mpp + first)
    side = float(np.hypot(*pixels.shape[:2])) * mpp
    moved = turn.shifted((1000 * mm, (side - pixels.shape[1] * mpp) / 2))
    shape = round((side + 1000 * mm) / MOVED_MPP), round(side / MOVED_MPP)
    level_to_um = np.diag([mpp, mpp, 1.0])
    level_to_um[:2, 2] = first
    matrix = np.diag([1 / MOVED_MPP, 1 / MOVED_MPP, 1.0]) @ moved.matrix @ level_to_um
    canvas = cv2.warpAffine(
        pixels,
        matrix[[1, 0]][:, [1, 0, 2]],
        shape[::-1],
        flags=cv2.INTER_LINEAR,
        borderValue=(GLASS, GLASS, GLASS),
    )
    tifffile.imwrite(
        target,
        canvas,
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        resolution=(1e4 / MOVED_MPP, 1e4 / MOVED_MPP),
        resolutionunit="CENTIMETER",
    )
    return moved


def _picture(path: Path) -> np.ndarray:
    read = cv2.imread(str(path))
    if read is None:
        raise SystemExit(f"{path} cannot be read.")
    return np.ascontiguousarray(read[..., ::-1])


def _points(folder: Path, stain: str) -> np.ndarray:
    """Landmarks of one expert, (N, 2) (y, x), pixels of the picture from the centre of the first one."""
    with (folder / f"landmarks_PS_{stain}.csv").open(encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    return np.array([[float(row["Y"]), float(row["X"])] for row in rows]) / LANDMARK_SCALE - 0.5


def _median(alignment: Alignment, here: np.ndarray, there: np.ndarray) -> float:
    return float(np.median(np.hypot(*(alignment.apply(here) - there).T)))


if __name__ == "__main__":
    main()
