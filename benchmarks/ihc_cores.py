"""What models say of the seven real cores of HER2 IHC: every arm of a comparison, on tissue none has seen.

    python benchmarks/ihc_cores.py                                      # demo-low-resolution
    python benchmarks/ihc_cores.py run-compare/arms/*/*.safetensors     # the arms of `train compare`

The cores are of oesophageal adenocarcinoma, not of breast; their scores are those of the case, and their
µm/px is not stated (0.23 is given). Models that learnt from synthetic tissue are here to show that real
slides go all the way through, not how good they are. Data from NAPARI_HER2_TEST_DATA, or ../shared/data.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np

from napari_her2 import open_slide, score_slide
from napari_her2.models.registry import load_model

MPP = 0.23
CLASSES = {"0": "0", "1": "Low", "2": "Low", "3": "High"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="*", default=["demo-low-resolution"], help="names or files of bundles"
    )
    parser.add_argument("--mpp", type=float, default=MPP)
    options = parser.parse_args()
    folder = Path(os.environ.get("NAPARI_HER2_TEST_DATA", "../shared/data")) / "her2_ihc_cores"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is absent: set NAPARI_HER2_TEST_DATA.")
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        cores = [(folder / row["filename"], row["ihc_score"]) for row in csv.DictReader(file)]
    bundles = [load_model(name) for name in options.models]
    answers_of: dict[str, list[str]] = {bundle.card.name: [] for bundle in bundles}
    seconds: dict[str, list[float]] = {bundle.card.name: [] for bundle in bundles}
    tissue = []
    for path, _ in cores:
        with open_slide(path, mpp=options.mpp) as slide:
            tissue.append(slide.tissue().area_mm2((options.mpp, options.mpp)))
            for bundle in bundles:
                began = time.perf_counter()
                result = score_slide(slide, bundle, device="cpu")
                seconds[bundle.card.name].append(time.perf_counter() - began)
                answer = f"{result.score} {result.confidence:.2f}"
                answers_of[bundle.card.name].append(f"({answer})" if result.abstained else answer)
    head = " | ".join(
        f"{path.name[:6]}, {area:.2f} mm²" for (path, _), area in zip(cores, tissue, strict=True)
    )
    print("In brackets: indeterminate, too few tiles or too unsure.\n")
    print(f"| model | {head} | as the score | median s |\n|{'---|' * (len(cores) + 3)}")
    print(f"| IHC score of the case | {' | '.join(score for _, score in cores)} | | |")
    for name, answers in answers_of.items():
        right = sum(
            answer.strip("()").split()[0] == CLASSES[score]
            for answer, (_, score) in zip(answers, cores, strict=True)
        )
        print(
            f"| {name} | {' | '.join(answers)} | {right} of {len(cores)} | {np.median(seconds[name]):.1f} |"
        )


if __name__ == "__main__":
    main()
