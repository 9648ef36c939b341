"""A slide that is written over while a training reads it: the row is named, and nothing of it is kept."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_her2.errors import SlideChanged
from napari_her2.phantom import cohort_steps
from napari_her2.slide import identity, identity_memory
from napari_her2.slide.identity import content_sha256
from napari_her2.slide.whole_slide import Slide
from napari_her2_training.arm_config import StainedCasesConfig
from napari_her2_training.attention_mil.config import AttentionConfig
from napari_her2_training.attention_mil.patches import gather_patches
from napari_her2_training.cohort.manifest import Case, read_manifest
from napari_her2_training.cohort.splits import Split
from napari_her2_training.corr_a_net import slide_fields
from napari_her2_training.corr_a_net.config import FieldDataConfig
from napari_her2_training.corr_a_net.fields import FieldStore
from napari_her2_training.corr_a_net.slide_fields import Places, SlideFields, plan_fields
from napari_her2_training.low_resolution.config import ImageConfig, PatchesConfig
from napari_her2_training.low_resolution.slide_images import ImageStore, Thumbnails, Tiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHANGED = r"Row 2 of the manifest, case \S+: \S+\.svs was changed while it was in use.*open it again"
DATA = StainedCasesConfig(stain="he")
FIELDS = FieldDataConfig(tile_px=128, field_px=64, mpp=0.5, min_tissue=0.1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for _ in cohort_steps(folder, cases=1, seed=3, size_px=768):
        pass
    return folder


@pytest.fixture(params=["old", "just written"])
def case(request: pytest.FixtureRequest, cohort: Path, tmp_path: Path) -> Case:
    """A case whose files are as old as slides are, or so young that their times need not tell."""
    folder = tmp_path / "cohort"
    shutil.copytree(cohort, folder)
    if request.param == "old":
        for path in folder.glob("*.svs"):
            os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    return read_manifest(folder / "manifest.csv")[0]


@pytest.fixture(autouse=True)
def coarse_times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written lie on a file system whose times do not tell of a change."""
    if "just written" in request.node.name:

        class Coarse(identity_memory.FileState):
            @classmethod
            def of(cls, found: os.stat_result) -> identity_memory.FileState:
                return cls(found.st_dev, found.st_ino, found.st_size, 0, 0)

            @property
            def settled(self) -> bool:
                return False

        monkeypatch.setattr(identity, "FileState", Coarse)
    else:
        monkeypatch.setattr(identity_memory, "SETTLED_NS", 0)


def overwrite(path: Path) -> None:
    """Change the last byte of a file, as a scanner does that starts again: what is decoded stays the same."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def overwrite_after(monkeypatch: pytest.MonkeyPatch, place: object, name: str, path: Path) -> None:
    """Write over a slide, once, when a function that is given it was called."""
    original = getattr(place, name)
    done = []

    def then_overwritten(slide: Slide, *args: object, **options: object) -> object:
        found = original(slide, *args, **options)
        if slide.path == path and not done:
            done.append(True)
            overwrite(path)
        return found

    monkeypatch.setattr(place, name, then_overwritten)


def exhaust(steps: object) -> None:
    for _ in steps:  # type: ignore[attr-defined]
        pass


@pytest.mark.parametrize("cut", [Thumbnails(ImageConfig(size_px=64), DATA), None], ids=["image", "tiles"])
def test_images_of_a_changed_slide_are_not_kept(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Callable | None
) -> None:
    store = ImageStore(
        tmp_path / "images", "he", cut or Tiles(PatchesConfig(tile_px=64, mpp=1.0, per_slide=4), DATA, 0)
    )
    overwrite_after(monkeypatch, Slide, "tissue", case.slide("he"))
    with pytest.raises(SlideChanged, match=CHANGED):
        exhaust(store.prepare([case], "Reading"))
    assert not list((tmp_path / "images").iterdir())


@pytest.mark.parametrize("stain", ["he", "ihc"])
def test_fields_are_not_found_on_a_changed_slide(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stain: str
) -> None:
    overwrite_after(monkeypatch, slide_fields, "check_scale", case.slide(stain))
    record = tmp_path / "fields.json"
    with pytest.raises(SlideChanged, match=CHANGED):
        exhaust(plan_fields(Split((case,), (case,)), FIELDS, tmp_path, record))
    assert not record.exists()


@pytest.mark.parametrize("stain", ["he", "ihc"])
def test_fields_of_a_changed_slide_are_not_kept(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stain: str
) -> None:
    places = Places(case, ((100.0, 100.0), (150.0, 120.0)))
    store = FieldStore(tmp_path / "fields", SlideFields({"train": (places,)}, FIELDS))
    overwrite_after(monkeypatch, Slide, "squares", case.slide(stain))
    with pytest.raises(SlideChanged, match=CHANGED):
        exhaust(store.prepare("train", stain))
    assert not list((tmp_path / "fields").iterdir())


def test_patches_of_a_changed_slide_are_not_learnt_from(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    overwrite_after(monkeypatch, Slide, "tissue", case.slide("he"))
    config = AttentionConfig.parse(
        {"model": {"name": "tiny", "training_data": "phantoms"}, "data": {"tile_px": 96, "mpp": 1.0}}
    )
    with pytest.raises(SlideChanged, match=CHANGED):
        exhaust(gather_patches([case], config, case.slide("he").parent, per_slide=4, seed=0, stage="Cutting"))


def test_slides_whose_times_alone_change_are_learnt_from_where_their_content_is_known(
    case: Case, tmp_path: Path
) -> None:
    """A cohort that was scored or embedded before: a copy of a slide over itself does no harm."""
    content_sha256(case.slide("he"))
    cut = Tiles(PatchesConfig(tile_px=64, mpp=1.0, per_slide=4), DATA, 0)

    def touched(slide: Slide, of: Case) -> object:
        assert slide.identity.known
        os.utime(slide.path)
        return cut(slide, of)

    store = ImageStore(tmp_path / "images", "he", touched)  # type: ignore[arg-type]
    exhaust(store.prepare([case], "Reading"))
    assert np.load(tmp_path / "images" / f"{case.row}.npy").shape == (4, 64, 64, 3)
