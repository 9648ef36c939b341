"""Prints what HER2 IHC by rules gives against known truth, and what it costs. No figure here is an accuracy.

    python benchmarks/ihc_rules.py --rings                     # drawn rings and cytoplasm
    python benchmarks/ihc_rules.py --cases 80 [--mpp 0.25]     # phantom cases, the tumour given
    python benchmarks/ihc_rules.py --cases 16 --membranes plain
    python benchmarks/ihc_rules.py --cores                     # the seven real cores, changed in eight ways
    python benchmarks/ihc_rules.py --speed 4096                # CPU seconds a mm² of tissue, by step
    python benchmarks/ihc_rules.py --large 40000               # time and peak memory of a whole slide

Without a flag: rings, 8 cases, cores as they are, and a slide of 2048 px. Phantoms take one gain, from an
evenly 3+ case of their own kind that is none of the cases. "True by the rules" are the classes that the drawn
membranes have by the same thresholds, with the gain of the control's drawn membranes; "stained" are the
percentages that the case was made from. A cell without staining beside stained ones shares their walls, so
both differ.
The simple readings beside it, on the same cells: an H-score of the mean DAB on contours (0.2, 0.4, 0.6 OD)
and the share of brown area. QuPath publishes no speed for this that we know of, so none stands beside ours.

Real cores from NAPARI_HER2_TEST_DATA, or ../shared/data: oesophagus, not breast, with the score of the case.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import platformdirs
from scipy.stats import beta, spearmanr

from ihc_truth import (
    CaseRead,
    control_seed,
    made,
    percent,
    read_case,
    read_rings,
    read_whole,
    stained_cytoplasm,
)
from napari_her2 import open_slide
from napari_her2.cells.areas import TissueArea
from napari_her2.cells.baselines import dab_area, ring_dab, ring_h_score
from napari_her2.cells.bystanders import bystanders
from napari_her2.cells.measuring import MPP
from napari_her2.cells.reading import CellReading
from napari_her2.cells.rules import CLASSES, Rules
from napari_her2.cells.stains import LEAST_OD, fit_stains
from napari_her2.cells.summary import summarised
from napari_her2.cells.windows import PixelGrid, measure_piece, read_windows, windows_of
from napari_her2.phantom import SCORES
from napari_her2.phantom.counter import key
from napari_her2.slide.area import read_area

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.table import Cells

CORE_MPP = 0.23
CORE_GAIN = 0.6
"""Of the only 3+ core, whose median mass of complete cells is about 0.42 OD·µm: 0.42 / 0.70."""
COHORT_SEED = 1515


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rings", action="store_true")
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--mpp", type=float, nargs="+", default=[0.5], help="µm/px of the cases, in turn")
    parser.add_argument("--case-px", type=int, default=2048, help="their side at 0.5 µm/px")
    parser.add_argument("--membranes", choices=("graded", "plain"), default="graded")
    parser.add_argument("--cores", action="store_true", help="with all changes")
    parser.add_argument("--speed", type=int, default=0, metavar="PX")
    parser.add_argument("--large", type=int, default=0, metavar="PX")
    parser.add_argument("--folder", type=Path, default=None, help="where phantoms are kept")
    options = parser.parse_args()
    chosen = any((options.rings, options.cases, options.cores, options.speed, options.large))
    folder = options.folder or platformdirs.user_cache_path("napari-her2") / "benchmarks" / "ihc-rules"
    if options.rings or not chosen:
        print_rings()
    if options.cases or not chosen:
        print_cases(folder, options.cases or 8, options.mpp, options.case_px, options.membranes)
    if options.cores or not chosen:
        print_cores(changed=options.cores)
    if options.speed or not chosen:
        print_speed(folder, options.speed or 2048)


def print_rings() -> None:
    """Completeness and mass of rings, and cytoplasm without a membrane."""
    print("\nRings of known membranes (targets: completeness within 0.05, mass within 10 %)\n")
    print("| OD | width µm | found | completeness off by, median | worst | mass, share of what was drawn |")
    print("|---|---|---|---|---|---|")
    for width in (0.64, 1.0, 2.14):
        for od in (0.25, 0.5, 1.0):
            rings = [read_rings(share, od, width) for share in (0.25, 0.5, 0.75, 1.0)]
            off = np.concatenate([ring.measured_share - ring.share for ring in rings])
            mass = np.median(np.concatenate([ring.measured_mass / ring.mass for ring in rings]))
            worst = off[np.abs(off).argmax()]
            print(
                f"| {od} | {width} | {len(off)} of 324 | {np.median(off):+.3f} | {worst:+.3f} | {mass:.2f} |"
            )
    print("\nCytoplasm alone, called stained (target: at most 2 %)\n\n| OD | in a sheet | single, on glass |")
    print("|---|---|---|")
    for od in (0.1, 0.2, 0.3, 0.5):
        sheet, single = (stained_cytoplasm(od, single=single) for single in (False, True))
        print(f"| {od} | {sheet:.1f} % | {single:.1f} % |")


def print_cases(folder: Path, count: int, scanners: list[float], side_px: int, membranes: str) -> None:
    """Scores and percentages of phantom cases, and what simple readings make of the same cells."""
    seeds = [key(COHORT_SEED, f"case-{number}") % 2**31 for number in range(count)]
    scanner = [scanners[(number // len(SCORES)) % len(scanners)] for number in range(count)]
    gains = {mpp: _control(folder, mpp, side_px, membranes) for mpp in sorted(set(scanner))}
    for mpp, (gain, true_gain) in gains.items():
        print(
            f"\nGain at {mpp} µm/px from the 3+ control: {gain:.3f}, of its drawn membranes {true_gain:.3f}"
        )
    print(f"\n{count} phantom cases, {membranes} membranes\n")
    print(
        "| case | score | found | " + " | ".join(f"{name} %" for name in CLASSES) + " | true by the rules |"
    )
    print("|" + "---|" * 8)
    rows = []
    for number, (seed, mpp) in enumerate(zip(seeds, scanner, strict=True)):
        score = SCORES[number % len(SCORES)]
        case = _case(folder, f"{membranes}-{mpp:g}-{side_px}-{number}", score, seed, mpp, side_px, membranes)
        rows.append(_judged(case, *gains[mpp]))
        found, true = rows[-1]["measured"], rows[-1]["true"]
        shown = " | ".join(f"{value:.0f}" for value in found)
        known = " ".join(f"{value:.0f}" for value in true)
        print(f"| {number} at {mpp:g} | {score} | {rows[-1]['score']} | {shown} | {known} |", flush=True)
    _print_targets(rows)


def _case(
    folder: Path, name: str, score: str, seed: int, mpp: float, side_px: int, membranes: str
) -> CaseRead:
    size_px = round(side_px * MPP / mpp)
    return read_case(made(folder, name, score, seed, size_px=size_px, mpp=mpp, membranes=membranes), score)


def _control(folder: Path, mpp: float, side_px: int, membranes: str) -> tuple[float, float]:
    name = f"control-{membranes}-{mpp:g}-{side_px}"
    return _case(folder, name, "3+", control_seed(), mpp, side_px, membranes).gains()


def _reading(cells: Cells, gain: float) -> CellReading:
    rules = Rules(gain=gain)
    left_out = bystanders(cells, rules)
    return CellReading(cells, np.zeros(len(cells), np.int16), ("tumour",), left_out, rules)


def _judged(case: CaseRead, gain: float, true_gain: float) -> dict[str, object]:
    summary = summarised(_reading(case.cells, gain))
    true = percent(case.true_classes(true_gain))
    return {
        "label": case.score,
        "score": summary.score or "none",
        "alternatives": summary.alternatives,
        "measured": np.array([summary.percentages[name] for name in CLASSES]),
        "true": true,
        "stained": percent(case.truth.state),
        "true mean": float(np.mean(case.truth.completeness(0.1) * case.truth.mass())),
        "H-score": summary.h_score,
        "C x K, 90th percentile": summary.ck90,
        "H-score of contours": ring_h_score(case.ring_dab),
        "brown area": case.brown_percent,
        "left out": summary.left_out_percent,
        "cells": (summary.cells, len(case.truth)),
    }


def _print_targets(rows: list[dict[str, object]]) -> None:
    count, right = len(rows), sum(row["score"] == row["label"] for row in rows)
    within = sum(row["label"] in (row["score"], *row["alternatives"]) for row in rows)
    low = beta.ppf(0.025, right, count - right + 1) if right else 0.0
    high = beta.ppf(0.975, right + 1, count - right) if right < count else 1.0
    print(
        f"\nExact score: {right} of {count}, {100 * right / count:.0f} % (95 % interval {100 * low:.0f} to "
    )
    print(f"{100 * high:.0f} %; target 95 %); among the scores shown where borderline: {within} of {count}")
    print("\n| median deviation, points (target 3) | " + " | ".join(CLASSES) + " |\n" + "|---" * 5 + "|")
    for name, words in (("true", "from true by the rules"), ("stained", "from what was stained")):
        off = np.array([np.abs(row["measured"] - row[name]) for row in rows])
        print(f"| {words} | " + " | ".join(f"{value:.1f}" for value in np.median(off, axis=0)) + " |")
    found = np.array([row["cells"] for row in rows], float)
    print(f"\nCells counted for each true one, median: {np.median(found[:, 0] / found[:, 1]):.2f}; ", end="")
    print(f"left out as lymphocytes and stroma, median {np.median([row['left out'] for row in rows]):.1f} %")
    truth = [CLASSES.index(str(row["label"])) for row in rows]
    print(
        "\n| Spearman's rank correlation with | the score of the case | mean true C x mass |\n|---|---|---|"
    )
    for name in ("C x K, 90th percentile", "H-score", "H-score of contours", "brown area"):
        values = [row[name] for row in rows]
        pair = (spearmanr(values, other).statistic for other in (truth, [row["true mean"] for row in rows]))
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in pair) + " |")


def print_cores(*, changed: bool) -> None:
    """Scores of the seven real cores, without and with changes of light, focus and scale."""
    folder = Path(os.environ.get("NAPARI_HER2_TEST_DATA", "../shared/data")) / "her2_ihc_cores"
    if not folder.is_dir():
        print(f"\nThe real cores are left out: {folder} is absent, set NAPARI_HER2_TEST_DATA.")
        return
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        cores = [(folder / row["filename"], row["ihc_score"]) for row in csv.DictReader(file)]
    print(
        f"\nReal cores of oesophagus, all cells, gain {CORE_GAIN} of the only 3+ core; labels are the case's"
    )
    print(
        "\n| core | case | "
        + " | ".join(CHANGES if changed else ["as it is"])
        + " | 0 1+ 2+ 3+ % | cells | H-score | H-score of contours | brown area | processor, tissue |"
    )
    print("|" + "---|" * (8 + (len(CHANGES) if changed else 1)))
    for path, score in cores:
        full = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        found = {}
        for name, change in CHANGES.items():
            if changed or name == "as it is":
                image, mpp = change(full, CORE_MPP)
                found[name] = _core(image, mpp)
        summary, contours, brown, seconds, tissue = found["as it is"]
        shares = " ".join(f"{summary.percentages[name]:.1f}" for name in CLASSES)
        scores = " | ".join(each[0].score or "none" for each in found.values())
        spent = f"{seconds:.1f} s, {tissue:.2f} mm²"
        print(
            f"| {path.name[:6]} | {score} | {scores} | {shares} | {summary.cells} | {summary.h_score:.0f} "
            f"| {contours:.0f} | {brown:.1f} % | {spent} |",
            flush=True,
        )


def _core(image: NDArray[np.uint8], mpp: float) -> tuple[object, float, float, float, float]:
    size = [round(side * mpp / MPP) for side in image.shape[:2]]
    rgb = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    begun = time.process_time()
    stains = fit_stains([rgb])
    cells = read_whole(rgb, stains)
    seconds = time.process_time() - begun
    summary = summarised(_reading(cells, CORE_GAIN))
    _, dab = stains.unmixed(rgb)
    tissue = -np.log10((rgb + 1.0) / (stains.white + 1)).sum(axis=2) > LEAST_OD / 2
    contours = ring_h_score(ring_dab(dab, cells, (0.0, 0.0), MPP))
    return summary, contours, dab_area(dab, tissue), seconds, float(tissue.sum()) * MPP**2 / 1e6


def print_speed(folder: Path, side_px: int) -> None:
    """Processor seconds a mm² of tissue of a phantom slide, by step, reading included."""
    pair = made(
        folder,
        f"speed-{side_px}",
        "2+",
        key(COHORT_SEED, "speed") % 2**31,
        size_px=side_px,
        membranes="graded",
    )
    with open_slide(pair.ihc) as slide:
        tissue = slide.tissue()
        mm2 = tissue.area_mm2(slide.known_mpp)
        grid, clock = PixelGrid.of(slide), dict[str, float]()
        windows = windows_of([tuple(place) for place in grid.pieces_in(TissueArea(tissue)).tolist()])
        sample = read_area(slide, origin_um=(0.0, 0.0), size_px=min(side_px, 4096), mpp=MPP).rgb
        stains = fit_stains([sample])
        begun, cells = time.process_time(), 0
        for window in read_windows(slide, grid, windows, threads=1):
            for place in window.pieces.tolist():
                cells += len(measure_piece(window, (place[0], place[1]), stains, grid, clock).cells)
        seconds = time.process_time() - begun
    clock["reading, focus and the rest"] = seconds - sum(clock.values())
    print(
        f"\nA phantom slide of {side_px} px: {mm2:.2f} mm² of tissue, {cells} cells, {seconds:.1f} s of the "
        f"processor, {seconds / mm2:.2f} s/mm² (target 2)"
    )
    print("\n| step | s/mm² | share |\n|---|---|---|")
    for name, spent in sorted(clock.items(), key=lambda item: -item[1]):
        print(f"| {name} | {spent / mm2:.3f} | {100 * spent / seconds:.0f} % |")


def _light(factor: float, cast: tuple[float, float, float] = (1, 1, 1)):  # noqa: ANN202 - a change
    table = np.clip(np.arange(256)[:, None] * factor * np.array(cast) + 0.5, 0, 255).astype(np.uint8)
    return lambda image, mpp: (cv2.LUT(image, table[:, None]), mpp)


def _blurred(sigma_um: float):  # noqa: ANN202 - a change
    return lambda image, mpp: (cv2.GaussianBlur(image, (0, 0), sigma_um / mpp), mpp)


CHANGES = {
    "as it is": lambda image, mpp: (image, mpp),
    "darker 10 %": _light(0.9),
    "brighter 10 %": _light(1.1),
    "warm cast": _light(1.0, (1.0, 0.97, 0.9)),
    "blur 0.3 µm": _blurred(0.3),
    "blur 0.5 µm": _blurred(0.5),
    "blur 1 µm": _blurred(1.0),
    "µm/px -20 %": lambda image, mpp: (image, 0.8 * mpp),
    "µm/px +20 %": lambda image, mpp: (image, 1.2 * mpp),
}


if __name__ == "__main__":
    main()
