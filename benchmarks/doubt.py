"""Whether the bundled models know what they have never seen, and hold what their sets of scores promise.

    python benchmarks/doubt.py                              all bundled models, all tables
    python benchmarks/doubt.py --models demo-wsmcl --only real --log doubt.jsonl

Three tables a model. Unseen synthetic cases, of a seed that no training used: the share called unlike and in
part, and, of each promise (80, 90, 95 %), how often the set holds the truth, with the interval of Clopper and
Pearson, and its mean size, of all cases and by class. Real slides, fields and cores of the test data
(NAPARI_HER2_TEST_DATA): verdict, familiarity, and what is shown. Synthetic cases made strange: a wrong µm/px,
the other stain, blur, inverted colours, and others that are printed only.

Slides are scored whatever their stain, and a scale that was given, seem to be (override_fit), so that nothing
but familiarity keeps an answer back; "refused" means that there is no tissue, or too little, in tiles of the
model, or that the file states a scale far too coarse for it. With --log, what was scored is written down and
not scored again.

Ends with an error where more than 5 % of the unseen cases are called unlike, a set holds the truth less often
than it promises (beyond chance), a real slide is answered, or a strange one is not called unlike.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from doubt_slides import IHC, MUST, Item, real_slides, strange_slides
from napari_her2 import open_slide, score_slide
from napari_her2.errors import Her2Error
from napari_her2.methods.catalogue import method_of
from napari_her2.models.card import PAIR, SLIDE
from napari_her2.models.class_scores import in_order
from napari_her2.models.registry import load_model
from napari_her2_training.config_sections import MeasureConfig
from napari_her2_training.doubt_model import mapping_of
from napari_her2_training.measures.coverage import judge_sets, measure_coverage
from unseen import UNSEEN_SEED, Case, unseen_cases

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.bundle import ModelBundle

MODELS = ("demo-attention-mil", "demo-wsmcl", "demo-corr-a-net", "demo-low-resolution")
PROMISES = (0.8, 0.9, 0.95)
MOST_UNLIKE = 0.05
LARGE_PX, LARGE_CASES, LARGE_SEED = 6144, 40, 5006
FEWEST_TILES = 3
"""Whole tiles of the model along the side of a case that counts: one field is no slide."""
STRANGE_CASES = 2


@dataclass(frozen=True, slots=True)
class Log:
    """What was scored already, by model and name, in a file of one JSON object a line."""

    file: Path | None
    known: dict[tuple[str, str], dict[str, Any]]

    @classmethod
    def of(cls, file: Path | None) -> Log:
        """Read what a file holds, where there is one."""
        known = {}
        if file is not None and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                known[row["model"], row["name"]] = row
        return cls(file, known)

    def row(
        self,
        model: ModelBundle,
        name: str,
        slide: Path,
        ihc: Path | None = None,
        mpp: float | None = None,
        stain: str | None = None,
    ) -> dict[str, Any]:
        """Return what scoring gives, as plain values."""
        key = model.sha256, name
        if key not in self.known:
            row = {"model": key[0], "name": name, **scored(model, slide, ihc, mpp=mpp, stain=stain)}
            self.known[key] = row
            if self.file is not None:
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            print(f"  {model.card.name}, {name}: {row['verdict']}", flush=True)
        return self.known[key]


def scored(
    model: ModelBundle, slide: Path, ihc: Path | None, *, mpp: float | None = None, stain: str | None = None
) -> dict[str, Any]:
    # What states its own scale is refused where that is too coarse: to enlarge it a hundredfold takes hours.
    wishes = {} if stain is None else {"stain": stain, "override_fit": mpp is not None}
    try:
        with open_slide(slide, mpp=mpp) as opened:
            result = score_slide(opened, model, ihc, **wishes)
    except Her2Error as error:
        return {
            "verdict": "refused",
            "value": None,
            "label": str(error)[:90],
            "withheld": True,
            "answered": False,
            "heads": {},
        }
    return {
        "verdict": result.doubt.verdict,
        "value": result.doubt.familiarity,
        "withheld": result.doubt.withheld,
        "answered": not result.abstained,
        "label": result.label,
        "spaces": _spaces(result),
        "heads": {
            name: [chances[own] for own in result.classes]
            for name, chances in (result.heads or {SLIDE: result.probabilities}).items()
        },
    }


def _spaces(result: SlideResult) -> str:
    """Familiarity by each kind of space of the first slide, in words."""
    return ", ".join(
        f"{kind} {value:.0e}" for kind, value in (result.slides[0].familiarity.by_space or {}).items()
    )


def cases_of(model: ModelBundle, options: argparse.Namespace) -> list[Case]:
    """List the unseen cases whose slides are wide enough, and larger ones where some are not."""
    cases = unseen_cases(options.cohort, options.cases, UNSEEN_SEED, 3072)
    enough = [case for case in cases if _wide(case, model)]
    if len(enough) == len(cases):
        return cases
    large = unseen_cases(options.large, LARGE_CASES, LARGE_SEED, LARGE_PX, mpp=(0.25,))
    return [*enough, *large]


def _wide(case: Case, model: ModelBundle) -> bool:
    if method_of(model.card).takes == "image":
        return True
    with open_slide(case.he) as slide:
        grid = slide.tile_grid(model.card.tile_px, model.card.mpp)
    return min(grid.shape) >= FEWEST_TILES


def unseen_table(model: ModelBundle, log: Log, options: argparse.Namespace) -> list[str]:
    card, broken = model.card, []
    mapping, rows = mapping_of(card), []
    for case in cases_of(model, options):
        first, second = (
            (case.he, case.ihc) if card.stain == PAIR else (case.ihc if card.stain == IHC else case.he, None)
        )
        name = f"unseen {first.parent.name} {case.case_id}"
        rows.append((log.row(model, name, first, second), mapping.names.index(mapping.of_score[case.truth])))
    answered = [(row, label) for row, label in rows if row["verdict"] != "refused"]
    shares = {
        kind: sum(row["verdict"] == kind for row, _ in rows) for kind in ("unlike", "in part", "refused")
    }
    words = ", ".join(f"{kind} {count} ({count / len(rows):.1%})" for kind, count in shares.items())
    print(f"\n### {card.name}: {len(rows)} unseen cases\n\n{words}\n")
    if shares["unlike"] > MOST_UNLIKE * len(rows):
        broken.append(f"{card.name}: {shares['unlike']} of {len(rows)} unseen cases are called unlike")
    print("| head | promise | class | cases | coverage | 95 % interval | mean size | single | all classes |")
    print("|---|---|---|---|---|---|---|---|---|")
    labels = np.array([label for _, label in answered])
    for head in model.answer_sets.heads if model.answer_sets else ():
        chances = np.array([row["heads"][head] for row, _ in answered])
        for promise in PROMISES:
            broken += _coverage(model, head, promise, chances, labels)
    return broken


def _coverage(
    model: ModelBundle, head: str, promise: float, chances: np.ndarray, labels: np.ndarray
) -> list[str]:
    card = model.card
    ordered = in_order(card.classes, card.class_scores)
    judged = judge_sets(model.answer_sets.heads[head], chances, promise, ordered=ordered)
    if judged is None:
        print(f"| {head} | {promise:.0%} | too few calibration cases |")
        return []
    broken, right = [], chances.argmax(axis=1) == labels
    for name, part in (
        ("all", np.ones(len(labels), bool)),
        *((of, labels == number) for number, of in enumerate(card.classes)),
    ):
        if not part.any():
            continue
        found = measure_coverage(
            judged.inside[part],
            labels[part],
            [str(n) for n in np.flatnonzero(part)],
            MeasureConfig(resamples=0),
        )
        print(
            f"| {head} | {promise:.0%} | {name} | {found.slides} | {found.coverage:.1%} | {found.low:.1%} to "
            f"{found.high:.1%} | {found.size:.2f} | {found.single:.0%} | {found.every:.0%} |"
        )
        if name == "all" and found.high < promise:
            broken.append(f"{card.name}, {head}: {found.coverage:.1%} where {promise:.0%} are promised")
        # The most probable class is always in the set: a model that is right more often cannot hold less.
        if name == "all" and found.low > promise and found.held > right.sum() and found.size > 1.5:
            broken.append(f"{card.name}, {head}: sets far larger than {promise:.0%} need")
    return broken


def items_table(
    title: str, model: ModelBundle, log: Log, items: list[Item], must: tuple[str, ...]
) -> list[str]:
    card, broken = model.card, []
    print(f"\n### {card.name}: {title}\n\n| slide | stain | verdict | familiarity | by space | shown |")
    print("|---|---|---|---|---|---|")
    worst = 0.0
    for item in items:
        if card.stain not in (item.stain, PAIR):
            continue
        row = log.row(model, f"{title} {item.name}", item.path, mpp=item.mpp, stain=item.stain)
        value = "" if row["value"] is None else f"{row['value']:.1e}"
        spaces = row.get("spaces", "")
        print(f"| {item.name} | {item.stain} | {row['verdict']} | {value} | {spaces} | {row['label']} |")
        counts = not must or any(word in item.name for word in must)
        # Of a tile or two no answer is given in any case, and nothing is known of how it looks.
        if counts and (not row["withheld"] if must else row["answered"]):
            broken.append(f"{card.name}: {item.name} ({item.stain}) is called {row['verdict']}")
        if counts and row["value"] is not None:
            worst = max(worst, row["value"])
    print(f"\nHighest familiarity among those that have to be unlike: {worst:.1e}")
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(MODELS), help="names or files of bundles")
    parser.add_argument("--only", choices=("unseen", "real", "strange"), nargs="*", default=None)
    parser.add_argument("--cases", type=int, default=80, help="unseen cases")
    parser.add_argument("--cohort", type=Path, help="folder of the unseen cases; by default the user's cache")
    parser.add_argument("--large", type=Path, help="the same of large slides, for models of large fields")
    parser.add_argument("--log", type=Path, help="file that keeps what was scored")
    options = parser.parse_args()
    wanted, log, broken = options.only or ("unseen", "real", "strange"), Log.of(options.log), []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            model = load_model(name)
            if "unseen" in wanted:
                broken += unseen_table(model, log, options)
            if "real" in wanted:
                broken += items_table("real slides", model, log, real_slides(), ())
            if "strange" in wanted:
                cases = unseen_cases(options.cohort, options.cases, UNSEEN_SEED, 3072)[:STRANGE_CASES]
                strange = list(strange_slides(cases, Path(folder)))
                broken += items_table("strange synthetic slides", model, log, strange, MUST)
    if broken:
        raise SystemExit("\nBroken promises:\n" + "\n".join(broken))
    print("\nAll promises are kept.")


if __name__ == "__main__":
    main()
