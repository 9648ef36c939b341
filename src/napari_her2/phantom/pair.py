"""Makes one case: two registered slides, its truth and its regions."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.phantom.case import LEVELS, SCORES, Case, MembraneLevels, Score, draw_case
from napari_her2.phantom.cells import take_census
from napari_her2.phantom.layout import make_layout
from napari_her2.phantom.render import BLOCK_PX, Scene, make_scene, render_block
from napari_her2.phantom.svs import EncodedBlock, SlideSpool, encode_block
from napari_her2.phantom.truth import score_by_criteria, tumour_polygons, write_regions, write_truth

if TYPE_CHECKING:
    from collections.abc import Iterator

_FEWEST_CELLS = 30


@dataclass(frozen=True, slots=True)
class PhantomPair:
    """Files of a case: H&E slide, IHC slide, truth, and tumour regions (GeoJSON, level-0 px)."""

    he: Path
    ihc: Path
    truth_json: Path
    regions: Path

    @property
    def complete(self) -> bool:
        """Whether all four files exist; each appears under its name only when finished."""
        return all(path.is_file() for path in (self.he, self.ihc, self.truth_json, self.regions))


def pair_paths(out_dir: Path | str, case_id: str) -> PhantomPair:
    """Where the files of a case lie."""
    folder = Path(out_dir)
    return PhantomPair(
        he=folder / f"{case_id}_HE.svs",
        ihc=folder / f"{case_id}_HER2.svs",
        truth_json=folder / f"{case_id}_truth.json",
        regions=folder / f"{case_id}_tumour.geojson",
    )


def checked_shape(size_px: int | tuple[int, int], mpp: float, score: str) -> tuple[int, int]:
    """Height and width in px of a phantom, or JobFailed when it cannot be made."""
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if score not in SCORES:
        raise JobFailed(f"A phantom's score is one of {', '.join(SCORES)}, not {score!r}.")
    if not 0.2 <= mpp <= 1.0:
        raise JobFailed(f"A phantom is rendered at 0.25 to 1 µm/px, not {mpp:g}; choose a value in between.")
    if min(height, width) < 512:
        raise JobFailed(
            f"A phantom is at least 512 px wide and high, not {height} x {width}; make it larger."
        )
    return int(height), int(width)


def checked_levels(name: str) -> MembraneLevels:
    """Levels of membrane staining by their name, or JobFailed."""
    if name not in LEVELS:
        raise JobFailed(
            f"Membranes of a phantom are {' or '.join(LEVELS)}, not {name!r}: choose one of them."
        )
    return LEVELS[name]


def make_pair(
    out_dir: Path | str,
    case_id: str,
    *,
    score: Score,
    seed: int,
    size_px: int | tuple[int, int] = 4096,
    mpp: float = 0.5,
    membranes: str = "plain",
) -> PhantomPair:
    """Write the H&E and the HER2 IHC slide of a synthetic case, and the truth about it.

    Parameters
    ----------
    out_dir : Path or str
        Folder to write to; made when absent.
    case_id : str
        Begins the names of the files.
    score : "0", "1+", "2+" or "3+"
        IHC score by ASCO/CAP.
    seed : int
        The same seed gives the same tissue, also at another µm/px with the size to match.
    size_px : int or (height, width)
        Size of level 0.
    mpp : float
        µm/px, 0.25 to 1.
    membranes : "plain" or "graded"
        How far apart faint, moderate and intense membranes are: told apart by eye at once, or as close as
        the criteria of single cells expect them.

    Raises
    ------
    JobFailed
        When the arguments cannot be met or the files cannot be written.
    """
    shape = checked_shape(size_px, mpp, score)
    paths = pair_paths(out_dir, case_id)
    size_um = (shape[0] * mpp, shape[1] * mpp)
    scene = _prepare(draw_case(seed, score, checked_levels(membranes)), size_um, mpp)
    polygons = tumour_polygons(scene.layout, shape, mpp)
    area = sum(polygon.area for polygon in polygons) * mpp**2 / 1e6
    try:
        paths.he.parent.mkdir(parents=True, exist_ok=True)
        # Truth goes first and comes last: with it in place, the case is whole.
        paths.truth_json.unlink(missing_ok=True)
        _write_slides(scene, shape, paths, case_id)
        write_regions(paths.regions, polygons)
        write_truth(paths.truth_json, case_id, scene.case, scene.census, area, shape, mpp)
    except OSError as error:
        raise JobFailed(
            f"The phantom {case_id} could not be written to {paths.he.parent} ({error.strerror or error}); "
            "choose a folder with room that may be written to."
        ) from error
    return paths


def _prepare(case: Case, size_um: tuple[float, float], mpp: float) -> Scene:
    layout = make_layout(case.seed, size_um)
    census = take_census(case, layout, size_um)
    # Percentages of a handful of cells cannot follow the rule of a score.
    if census.cells < _FEWEST_CELLS or score_by_criteria(census.mix) != case.score:
        raise JobFailed(
            f"A phantom of {size_um[0]:g} x {size_um[1]:g} µm has room for only {census.cells} tumour cells; "
            "make it larger, or choose another seed."
        )
    return make_scene(case, layout, census, mpp)


def _write_slides(scene: Scene, shape: tuple[int, int], paths: PhantomPair, case_id: str) -> None:
    spools: list[SlideSpool] = []
    try:
        for path, stain in ((paths.he, "H&E"), (paths.ihc, "HER2 IHC")):
            spools.append(SlideSpool(path, shape, scene.mpp, f"{case_id}\n{stain}\nresearch use only"))
        for blocks in _rendered(scene, shape):
            for spool, block in zip(spools, blocks, strict=True):
                spool.add(block)
        for spool in spools:
            spool.finish()
    finally:
        for spool in spools:
            spool.discard()


def _rendered(scene: Scene, shape: tuple[int, int]) -> Iterator[tuple[EncodedBlock, EncodedBlock]]:
    """Blocks of both slides, rendered and encoded in threads, never more than two a thread ahead."""
    # A block at work takes about 150 MB, and four times that where it is rendered finer and averaged.
    threads = max(1, min(os.cpu_count() or 1, 8 if scene.mpp <= 0.5 else 2))

    def work(row: int, column: int) -> tuple[EncodedBlock, EncodedBlock]:
        height = min(BLOCK_PX, shape[0] - row * BLOCK_PX)
        width = min(BLOCK_PX, shape[1] - column * BLOCK_PX)
        he, ihc = render_block(scene, row, column, (height, width))
        return encode_block(he, row, column), encode_block(ihc, row, column)

    waiting: deque[Future[tuple[EncodedBlock, EncodedBlock]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for row in range(-(-shape[0] // BLOCK_PX)):
                for column in range(-(-shape[1] // BLOCK_PX)):
                    waiting.append(pool.submit(work, row, column))
                    if len(waiting) >= 2 * threads:
                        yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
