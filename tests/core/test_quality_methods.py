"""What leaving poor tissue out means for methods that do not score tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from low_resolution_bundles import make_low_resolution_bundle
from napari_her2 import open_slide, score_slide

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def half_blurred(small_pair, tmp_path_factory):
    """Both slides of a case as pictures whose left halves are out of focus by 2 µm, by their stain."""
    folder, made = tmp_path_factory.mktemp("blurred"), {}
    for stain, path in (("H&E", small_pair.he), ("IHC", small_pair.ihc)):
        with open_slide(path) as slide:
            rgb = slide.read(0, 0, 0, *slide.shape)
            half = rgb.shape[1] // 2
            rgb[:, :half] = cv2.GaussianBlur(rgb, (0, 0), 2 / slide.known_mpp[0])[:, :half]
        made[stain] = folder / f"{stain[0]}.png"
        cv2.imwrite(str(made[stain]), rgb[..., ::-1])
    return made


def scored(path: Path, model, **options):
    with open_slide(path, mpp=0.5) as slide:
        return score_slide(slide, model, device="cpu", **options)


def test_cells_in_poor_tiles_do_not_count(half_blurred) -> None:
    plain = scored(half_blurred["IHC"], "ihc-rules").slides[0]
    left = scored(half_blurred["IHC"], "ihc-rules", leave_out_poor=True).slides[0]
    quality = left.quality
    assert plain.quality is None
    assert 0.2 < quality.share < 0.8
    index = quality.grid.index_of_px0(left.cells.cells.centre_um.astype(float) / left.grid.slide_mpp)
    inside = quality.grid.contains(index)
    poor = np.zeros(len(index), bool)
    poor[inside] = quality.poor[tuple(index[inside].T)]
    assert len(left.cells.cells) == len(plain.cells.cells)
    assert poor.sum() > 20
    assert (left.cells.region[poor] == -1).all()
    assert np.array_equal(left.cells.region[~poor], plain.cells.region[~poor])


@pytest.mark.parametrize("whiten", [True, False])
def test_poor_tissue_is_white_for_a_model_that_learnt_so_and_else_only_marked(
    half_blurred, tmp_path, whiten
) -> None:
    model = make_low_resolution_bundle(tmp_path / "m.safetensors", stain="H&E", arguments={"whiten": whiten})
    plain = scored(half_blurred["H&E"], model, override_fit=True)
    left = scored(half_blurred["H&E"], model, override_fit=True, leave_out_poor=True)
    quality = left.slides[0].quality
    assert quality.left_out == whiten
    assert any("marked and not left out" in line for line in left.warnings) != whiten
    seen, before = left.thumbnails[0], plain.thumbnails[0]
    if not whiten:
        assert np.array_equal(seen.rgb, before.rgb)
        return
    # The image is cropped to what is good: nothing in it is tissue whose place is poor.
    assert left.tissue_mm2 < 0.85 * plain.tissue_mm2
    index = quality.grid.index_of_px0(seen.to_px0(np.argwhere(seen.tissue) + 0.5))
    index = index[quality.grid.contains(index)]
    assert len(index) > 20
    assert quality.poor.sum() > 2
    assert quality.poor[tuple(index.T)].mean() < 0.1  # half pixels at the edges alone
