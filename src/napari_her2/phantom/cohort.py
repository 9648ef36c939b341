"""Makes a cohort: balanced scores in random order, a manifest, resumable case by case."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from napari_her2.phantom.case import PLAIN, SCORES, Score
from napari_her2.phantom.counter import generator, key
from napari_her2.phantom.pair import PhantomPair, make_pair, pair_paths
from napari_her2.phantom.true_cells import tissue_of_truth, write_cells
from napari_her2.phantom.truth import TRUTH_VERSION
from napari_her2.whole_files import replaced_file

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_COLUMNS = ("case_id", "he", "ihc", "score")
_SPLIT = "split"


@dataclass(frozen=True, slots=True)
class PlannedCase:
    """A case to be made: its name, score and seed, and whether it is kept for the test."""

    case_id: str
    score: Score
    seed: int
    test: bool = False


def cohort_plan(cases: int, seed: int, test: int = 0) -> tuple[PlannedCase, ...]:
    """Plan a cohort, scores balanced and shuffled by the seed; test cases follow and change no other."""
    digits = max(3, len(str(cases + test)))

    def plan(first: int, count: int, own_seed: int, *, kept: bool) -> list[PlannedCase]:
        order = generator(own_seed, "cohort").permutation(count)
        return [
            PlannedCase(
                f"case_{first + k + 1:0{digits}d}",
                SCORES[int(order[k]) % len(SCORES)],
                key(own_seed, f"case-{k}") % 2**31,
                kept,
            )
            for k in range(count)
        ]

    learnt = plan(0, cases, seed, kept=False)
    return (*learnt, *plan(cases, test, key(seed, "test") % 2**31, kept=True))


def cohort_steps(
    out_dir: Path | str,
    *,
    cases: int,
    seed: int,
    test: int = 0,
    size_px: int | tuple[int, int] = 4096,
    mpp: float | Sequence[float] = 0.5,
    cells: bool = False,
    membranes: str = "plain",
) -> Generator[tuple[int, int], None, Path]:
    """Write a cohort; a case that is already there, made with the same settings, is kept.

    Parameters
    ----------
    out_dir : Path or str
        Folder to write to.
    cases : int
        Number of cases.
    seed : int
        Seed of the cohort; every case gets a seed of its own from it.
    test : int
        Number of further cases that the manifest keeps for the test: no training learns from them.
    size_px
        As in `make_pair`.
    mpp : float or sequence of float
        µm/px as in `make_pair`; several are taken in turn, as if the cases came from several scanners.

    cells : bool
        Whether the truth of every single cell is written too, as `<case>_cells.npz`.

    membranes : str
        As in `make_pair`.

    Yields
    ------
    (done, total)
        Before the first case and after each.

    Returns
    -------
    Path
        manifest.csv with the columns case_id, he, ihc, score, and split where cases are kept for the test;
        paths relative to its folder.
    """
    folder = Path(out_dir)
    plan = cohort_plan(cases, seed, test)
    scanners = (mpp,) if isinstance(mpp, int | float) else tuple(mpp)
    yield 0, len(plan)
    for done, case in enumerate(plan, start=1):
        case_mpp = scanners[(done - 1) % len(scanners)]
        wanted: dict[str, object] = {
            "version": TRUTH_VERSION,
            "score": case.score,
            "seed": case.seed,
            "size_px": _size(size_px),
            "mpp": case_mpp,
            "membranes": membranes,
        }
        paths, held = pair_paths(folder, case.case_id), folder / f"{case.case_id}_cells.npz"
        if not _finished(paths, wanted):
            held.unlink(missing_ok=True)
            make_pair(
                folder,
                case.case_id,
                score=case.score,
                seed=case.seed,
                size_px=size_px,
                mpp=case_mpp,
                membranes=membranes,
            )
        if cells and not held.is_file():
            write_cells(held, tissue_of_truth(paths.truth_json))
        yield done, len(plan)
    return _write_manifest(folder, plan)


def _size(size_px: int | tuple[int, int]) -> list[int]:
    return [size_px, size_px] if isinstance(size_px, int) else list(size_px)


def _finished(pair: PhantomPair, wanted: dict[str, object]) -> bool:
    if not pair.complete:
        return False
    try:
        truth = cast("dict[str, object]", json.loads(pair.truth_json.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False
    # Truth of before there was a choice says nothing of it.
    held = {"membranes": PLAIN.name, **truth}
    return all(held.get(name) == value for name, value in wanted.items())


def _write_manifest(folder: Path, plan: tuple[PlannedCase, ...]) -> Path:
    path = folder / "manifest.csv"
    tested = any(case.test for case in plan)
    with replaced_file(path) as whole, whole.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*_COLUMNS, _SPLIT) if tested else _COLUMNS)
        for case in plan:
            pair = pair_paths(folder, case.case_id)
            row = (case.case_id, pair.he.name, pair.ihc.name, case.score)
            writer.writerow((*row, "test" if case.test else "") if tested else row)
    return path
