"""Whether familiar slides stay familiar inside regions, and strange ones strange: verdicts of random regions.

Regions are discs around random tiles of unseen synthetic slides that hold 25 to 60 % of their tissue. Each is
judged as if it were a slide ("by itself"), and as it is judged now ("slide and tiles"): the slide as a whole,
and each tile in the region by itself. The same for the slides with inverted colours, red and blue exchanged,
blurred by 2 µm, and of the other stain, which have to be called unlike.

    python benchmarks/doubt_regions.py --cohort FOLDER [--cases 6] [--regions 20] [--models demo-wsmcl]
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from doubt_slides import HE, IHC, strange_slides
from napari_her2 import open_slide, score_steps
from napari_her2.errors import Her2Error
from napari_her2.inference.familiarity import Seen, describes_pixels, placed_pixels
from napari_her2.inference.familiarity_verdict import judged_placed
from napari_her2.inference.selection import limited
from napari_her2.methods.scoring import again
from napari_her2.models.card import PAIR
from napari_her2.models.familiarity import FEATURES, LEAST_FAMILIARITY
from napari_her2.models.registry import load_model
from napari_her2.steps import finished
from unseen import UNSEEN_SEED, unseen_cases

if TYPE_CHECKING:
    from napari_her2.inference.kept_scoring import KeptTiles
    from napari_her2.inference.regions import Region
    from napari_her2.models.bundle import ModelBundle

STRANGE = ("inverted", "exchanged", "blurred", "other stain")


def disc(kept: KeptTiles, rng: np.random.Generator) -> list[Region | shapely.Geometry]:
    """Draw a disc around a random tile of tissue that holds 25 to 60 % of the tiles."""
    grid, index = kept.whole.grid, np.argwhere(kept.whole.keep)
    middles = (index + 0.5) * np.array(grid.tile_px0)
    middle = middles[rng.integers(len(middles))]
    far = np.sort(np.hypot(*(middles - middle).T))
    reach = far[int(np.ceil(rng.uniform(0.25, 0.6) * len(far))) - 1] + 1
    return [shapely.Point(middle[1], middle[0]).buffer(float(reach), 64)]


def by_itself(kept: KeptTiles, regions: list[Region | shapely.Geometry]) -> str:
    """Judge a region as a slide of so many tiles is judged."""
    bundle, chosen = kept.terms.bundle, limited(kept.whole, regions)
    read = kept.read[0].limited_to(chosen)
    placed = {kind: of for kind, of in read.placed.items() if kind == FEATURES}
    slide = kept.slides[0]()
    if slide is not None and describes_pixels(bundle, chosen.stain):
        features = read.embeddings.features
        seen = Seen(slide, chosen.stain, features, chosen.tissue, chosen.grid, chosen.keep)
        placed |= placed_pixels(bundle, seen)
    return judged_placed(bundle.familiarity, chosen.stain, placed, LEAST_FAMILIARITY).verdict


def verdicts(
    model: ModelBundle, path: Path, stain: str, mpp: float | None, regions: int, seed: int
) -> dict[str, Counter[str]]:
    """Judge the whole slide, and regions of it both ways."""
    found: dict[str, Counter[str]] = {name: Counter() for name in ("whole", "by itself", "slide and tiles")}
    rng, kept = np.random.default_rng(seed), []
    with open_slide(path, mpp=mpp) as slide:
        steps = score_steps(slide, model, kept=kept, device="cpu", stain=stain, override_fit=True)
        found["whole"][finished(steps).slides[0].familiarity.verdict] += 1
        for _ in range(regions):
            drawn = disc(kept[0], rng)
            found["by itself"][by_itself(kept[0], drawn)] += 1
            found["slide and tiles"][again(kept[0], drawn).slides[0].familiarity.verdict] += 1
    return found


def main() -> None:
    """Print the verdicts by model and kind of slide."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--strange", type=int, default=2, help="cases that are made strange")
    parser.add_argument("--regions", type=int, default=20)
    parser.add_argument("--side", type=int, default=3072)
    parser.add_argument(
        "--models", nargs="+", default=["demo-attention-mil", "demo-wsmcl", "demo-corr-a-net"]
    )
    options = parser.parse_args()
    cases = unseen_cases(options.cohort, options.cases, UNSEEN_SEED, options.side)
    print(
        "| model | slides | judged | familiar | in part | unlike | not known |\n|---|---|---|---|---|---|---|"
    )
    for name in options.models:
        model = load_model(name)
        stain = HE if model.card.stain == PAIR else model.card.stain
        slides = [("unseen", case.ihc if stain == IHC else case.he, None) for case in cases]
        for item in strange_slides(cases[: options.strange], options.cohort / "strange"):
            word = next((word for word in STRANGE if word in item.name), "")
            if word and item.stain == stain:
                slides.append((word, item.path, item.mpp))
        totals: dict[str, dict[str, Counter[str]]] = {}
        for number, (word, path, mpp) in enumerate(slides):
            try:
                found = verdicts(model, path, stain, mpp, options.regions, number)
            except Her2Error as problem:
                print(f"  {path.name}: {problem}", flush=True)
                continue
            for judged, counts in found.items():
                totals.setdefault(word, {}).setdefault(judged, Counter()).update(counts)
        for word, by in totals.items():
            for judged, counts in by.items():
                row = " | ".join(str(counts[each]) for each in ("familiar", "in part", "unlike", "not known"))
                print(f"| {name} | {word} | {judged} | {row} |", flush=True)


if __name__ == "__main__":
    main()
