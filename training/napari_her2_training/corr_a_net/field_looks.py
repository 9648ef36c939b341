"""What fields of a folder look like to a finished predictor: there are no slides to score for it.

Names of patches say nothing of slides, so each field stands for one. Fields differ more than slides, of which
many fields are seen: the limits are wide, and only what lies far off is called unlike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.inference.appearance import MPP, SIDE_PX, TILES, appearance_of, describable
from napari_her2.inference.doubt import Signature
from napari_her2.slide.resample import padded_size, resampled, window_size
from napari_her2.steps import Progress
from napari_her2_training.doubt.fit import CALIBRATION, TRAINING, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.models.tile_models import TileModel
    from napari_her2_training.corr_a_net.bci_folder import BCIFolder
    from napari_her2_training.corr_a_net.fields import FieldStore

STAGE = "Learning what the model has seen: fields"
_AT_ONCE = 16


def field_looks(
    store: FieldStore, folder: BCIFolder, model: TileModel, device: Device, most: int, *, seed: int
) -> Generator[Progress, None, dict[str, list[Signature]]]:
    """Describe fields of H&E as scoring describes those of a slide.

    Parameters
    ----------
    store : FieldStore
        Its H&E fields of training and validation are cut.
    folder : BCIFolder
        What they were cut from.
    model : TileModel
    device : Device
    most : int
        Fields of each part, drawn by the seed.
    seed : int

    Yields
    ------
    Progress

    Returns
    -------
    dict of str to list of Signature
        By the parts of `napari_her2_training.doubt.fit`, a signature a field.
    """
    found: dict[str, list[Signature]] = {TRAINING: [], VALIDATION: [], CALIBRATION: []}
    model.to(device.torch_device)
    try:
        for stream, (part, name) in enumerate((("train", TRAINING), ("validation", VALIDATION))):
            fields, listed = store.images(part, "he"), store.listed(part)
            chosen = np.random.default_rng([seed, stream]).permutation(len(listed))[:most]
            for first in range(0, len(chosen), _AT_ONCE):
                yield Progress(STAGE, first, len(chosen), "fields", part)
                some = np.sort(chosen)[first : first + _AT_ONCE].tolist()
                features = _features(model, fields[some], device)
                found[name] += [
                    Signature(listed.cases[number], "H&E", row[None], _appearance(folder, part, number))
                    for number, row in zip(some, features, strict=True)
                ]
    finally:
        model.cpu()
    return found


def _features(model: TileModel, fields: NDArray[np.uint8], device: Device) -> NDArray[np.float32]:
    with torch.inference_mode():
        pixels = torch.from_numpy(fields).to(device.torch_device).float() / 255
        values: NDArray[np.float32] = model.tile_features(pixels).float().cpu().numpy()
    return values


def _appearance(folder: BCIFolder, part: str, number: int) -> NDArray[np.float32] | None:
    """Describe the squares of a patch, (M, A); None where it holds none that shows tissue."""
    squares = _squares(folder.pixels(part, number), folder.config.mpp)[:TILES]
    described = appearance_of(squares[describable(squares)])
    return described if len(described) else None


def _squares(image: NDArray[np.uint8], mpp: float) -> NDArray[np.uint8]:
    """Cut a patch into squares at the µm/px of descriptions, (M, s, s, 3); none where it is too small."""
    scale = MPP / mpp
    size = (int(image.shape[0] / scale), int(image.shape[1] / scale))
    window = padded_size(window_size(size, (scale, scale)), (scale, scale))
    margin = [(0, max(0, wanted - have)) for wanted, have in zip(window, image.shape[:2], strict=True)]
    small = resampled(np.pad(image, (*margin, (0, 0)), mode="edge"), (scale, scale), size)
    corners = _corners(small.shape[:2])
    return np.array([small[y : y + SIDE_PX, x : x + SIDE_PX] for y, x in corners], np.uint8).reshape(
        -1, SIDE_PX, SIDE_PX, 3
    )


def _corners(size: Sequence[int]) -> list[tuple[int, int]]:
    rows, columns = (range(0, side - SIDE_PX + 1, SIDE_PX) for side in size)
    return [(y, x) for y in rows for x in columns]
