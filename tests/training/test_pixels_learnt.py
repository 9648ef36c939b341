"""What training cuts from a slide is, bit for bit, what scoring gives a model for the same place."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import napari_her2_training
from napari_her2 import open_slide
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.phantom import cohort_steps
from napari_her2.slide.macenko import fit_slide, he_transform
from napari_her2.slide.thumbnail import read_thumbnails
from napari_her2_training.arm_config import StainedCasesConfig
from napari_her2_training.attention_mil.config import AttentionConfig
from napari_her2_training.attention_mil.patches import gather_patches
from napari_her2_training.cohort.manifest import Case, read_manifest
from napari_her2_training.config import read_config
from napari_her2_training.corr_a_net.config import FieldDataConfig
from napari_her2_training.corr_a_net.slide_fields import Places, SlideFields, find_fields, read_fields
from napari_her2_training.low_resolution.config import ImageConfig, PatchesConfig
from napari_her2_training.low_resolution.slide_images import Thumbnails, Tiles

if TYPE_CHECKING:
    from pathlib import Path

ANY = StainedCasesConfig(check_stains=False)
TILE_PX, MPP = 96, 0.5


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case at 0.2503 µm/px, of which no µm/px asked for is a whole multiple."""
    folder = tmp_path_factory.mktemp("cohort")
    for _ in cohort_steps(folder, cases=1, seed=3, size_px=1536, mpp=0.2503):
        pass
    return folder


@pytest.fixture(scope="module")
def case(cohort: Path) -> Case:
    return read_manifest(cohort / "manifest.csv")[0]


def scored(path: Path, tile_px: int, mpp: float) -> dict[bytes, tuple[int, int]]:
    """The pixels of all tiles that scoring reads, and where each lies."""
    with open_slide(path) as slide:
        return {
            image.tobytes(): (row, col)
            for batch in slide.tiles(tile_px=tile_px, mpp=mpp, tissue_only=False)
            for image, (row, col) in zip(batch.images, batch.index.tolist(), strict=True)
        }


def drained(steps):
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def test_patches_of_attention_mil_are_tiles_of_scoring(cohort: Path, case: Case) -> None:
    plain = read_config(files(napari_her2_training) / "configs" / "attention_mil.toml", AttentionConfig)
    config = replace(plain, data=replace(plain.data, tile_px=TILE_PX, mpp=MPP, check_stains=False))
    patches = drained(gather_patches([case], config, cohort, per_slide=8, seed=0, stage="cut"))
    tiles = scored(case.slide("he"), TILE_PX, MPP)
    assert len(patches.images)
    assert all(image.tobytes() in tiles for image in patches.images)


def test_patches_of_the_patch_classifier_are_tiles_of_scoring(case: Case) -> None:
    tiles = scored(case.slide("ihc"), TILE_PX, MPP)
    with open_slide(case.slide("ihc")) as slide:
        config = PatchesConfig(tile_px=TILE_PX, mpp=MPP, per_slide=6)
        images = Tiles(config, ANY, 0)(slide, case).images
    assert len(images) == 6
    assert all(image.tobytes() in tiles for image in images)


@pytest.mark.parametrize("size_px", [64, 300])
def test_images_of_low_resolution_are_those_of_scoring(case: Case, size_px: int) -> None:
    with open_slide(case.slide("ihc")) as slide:
        cut = Thumbnails(ImageConfig(size_px=size_px), ANY)(slide, case)
        image = ImageConfig(size_px=size_px)
        (seen,) = read_thumbnails(
            slide, slide.tissue(), size_px=size_px, mode=image.mode, mpp=image.mpp, whiten=image.whiten
        )
    assert np.array_equal(cut.images[0], seen.rgb)


def test_fields_of_slides_are_tiles_of_scoring(cohort: Path, case: Case) -> None:
    config = FieldDataConfig(tile_px=128, mpp=0.46, fields_per_slide=0, check_stains=False)
    corners = find_fields(case, "train", config, cohort, np.random.default_rng(0))
    assert len(corners) > 4
    for stain in ("he", "ihc"):
        tiles = scored(case.slide(stain), 128, 0.46)
        with open_slide(case.slide(stain)) as slide:
            fields = read_fields(slide, corners, tile_px=128, mpp=0.46)
        places = [tiles[field.tobytes()] for field in fields]
        np.testing.assert_allclose(np.array(places) * 128 * 0.46, corners)


def test_fields_are_normalised_and_averaged_as_in_scoring(case: Case) -> None:
    """Kept as bytes: what scoring hands to the network, rounded to a grey level."""
    config = FieldDataConfig(tile_px=128, mpp=0.46, field_px=32, fields_per_slide=0, check_stains=False)
    corners = ((0.0, 0.0), (128 * 0.46, 128 * 0.46))
    (cut,) = SlideFields({"train": [Places(case, corners)]}, config).cut("train", "he")
    with open_slide(case.slide("he")) as slide:
        transform = he_transform(fit_slide(slide, mpp=0.46))
        tiles = np.concatenate([b.images for b in slide.tiles(tile_px=128, mpp=0.46, tissue_only=False)])
        columns = slide.tile_grid(128, 0.46).shape[1]
    prepare = TilePreparation(tile_px=128, out_px=32, matrix=transform.matrix, offset=transform.offset)
    given = prepare(torch.from_numpy(tiles[[0, columns + 1]]))
    assert np.array_equal(cut, (given * 255).round().to(torch.uint8).numpy())
