"""A slide that scoring would refuse is not learnt from: other stain, too coarse, dark, damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from napari_her2 import open_slide
from napari_her2.errors import JobFailed, SlideError
from napari_her2.inference.embeddings import refuse_damage
from napari_her2.phantom import cohort_steps
from napari_her2_training.arm_config import StainedCasesConfig
from napari_her2_training.cohort.embedding import tiles_to_learn
from napari_her2_training.cohort.manifest import Case, read_manifest
from napari_her2_training.config_sections import DataConfig
from napari_her2_training.low_resolution.config import ImageConfig, PatchesConfig
from napari_her2_training.low_resolution.slide_images import ImageStore, Thumbnails, Tiles

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.slide.reader import Slide

IMAGE, PATCHES = ImageConfig(size_px=64), PatchesConfig(tile_px=64, mpp=1.0, per_slide=4)
ANY = StainedCasesConfig(check_stains=False)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("cohort")
    for _ in cohort_steps(folder, cases=1, seed=3, size_px=1024):
        pass
    return read_manifest(folder / "manifest.csv")[0]


def cuts(slide: Slide, case: Case, data: StainedCasesConfig) -> list[tuple[int, ...]]:
    """What each arm would take of a slide."""
    tiles = DataConfig(tile_px=96, mpp=1.0, check_stains=data.check_stains)
    return [
        Thumbnails(IMAGE, data)(slide, case).images.shape,
        Tiles(PATCHES, data, 0)(slide, case).images.shape,
        (int(tiles_to_learn(slide, tiles, data.column)[1].sum()),),
    ]


def test_each_arm_takes_the_slide_of_its_stain_and_the_other_only_when_told_to(case: Case) -> None:
    he, ihc = StainedCasesConfig(stain="he"), StainedCasesConfig()
    with open_slide(case.slide("ihc")) as slide:
        assert cuts(slide, case, ihc)[:2] == [(1, 64, 64, 3), (4, 64, 64, 3)]
    with open_slide(case.slide("he")) as slide:
        assert cuts(slide, case, he) == cuts(slide, case, ANY)
        for cut in (Thumbnails(IMAGE, ihc), Tiles(PATCHES, ihc, 0)):
            with pytest.raises(SlideError, match=r"is given as IHC but looks like H&E.*check_stains = false"):
                cut(slide, case)
        with pytest.raises(SlideError, match="is given as IHC but looks like H&E"):
            tiles_to_learn(slide, DataConfig(), "ihc")


def test_a_scan_too_coarse_for_what_is_learnt_is_refused(case: Case) -> None:
    with open_slide(case.slide("ihc"), mpp=10.0) as slide:
        with pytest.raises(SlideError, match=r"has 10 µm/px, too coarse to be seen at 1 µm/px"):
            Tiles(PATCHES, ANY, 0)(slide, case)
        with pytest.raises(SlideError, match="too coarse"):
            tiles_to_learn(slide, DataConfig(), "ihc")
        with pytest.raises(SlideError, match="too coarse"):
            Thumbnails(ImageConfig(size_px=2048), ANY)(slide, case)


def test_fluorescence_is_refused_and_bare_glass_is_told_with_its_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    glow = np.zeros((900, 900, 3), np.uint8)
    cv2.circle(glow, (450, 450), 300, (40, 200, 60), -1)
    cv2.imwrite(str(tmp_path / "dark.png"), glow)
    glass = np.clip(rng.normal(245, 1, (900, 900, 3)), 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "glass.png"), glass)
    cases = [
        Case(row, f"c{row}", None, tmp_path / name, "0") for row, name in ((2, "dark.png"), (3, "glass.png"))
    ]
    refused = pytest.raises(SlideError, match=r"looks like fluorescence.*check_stains = false")
    with open_slide(tmp_path / "dark.png", mpp=0.5) as slide, refused:
        Thumbnails(IMAGE, StainedCasesConfig())(slide, cases[0])
    for cut in (Thumbnails(IMAGE, ANY), Tiles(PATCHES, ANY, 0)):
        with open_slide(tmp_path / "glass.png", mpp=0.5) as slide:
            assert len(cut(slide, cases[1]).images) == 0
    store = ImageStore(tmp_path / "store", "ihc", lambda slide, case: Tiles(PATCHES, ANY, 0)(slide, case))
    with pytest.raises(JobFailed, match="Row 3 of the manifest"):
        list(store.prepare(cases[1:], "Reading"))


def test_a_slide_of_which_much_is_damaged_is_refused(case: Case) -> None:
    with open_slide(case.slide("ihc")) as slide:
        refuse_damage(slide, 0.05)
        with pytest.raises(SlideError, match=r"60% of the tissue of .* copy it again from its source"):
            refuse_damage(slide, 0.6)
