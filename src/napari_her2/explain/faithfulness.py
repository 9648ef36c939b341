"""Whether a map of one field shows what the predictor needs there, beside the same map moved elsewhere.

Petsiuk et al., RISE, 2018 (arXiv:1806.07421): pixels are taken from a field in the order of its map, the
highest first (deletion), or put into an empty one (insertion), and the probability of the explained class
is followed. Under a faithful map it falls fast and rises fast: a small area under the curve of deletion, a
large one under that of insertion. Dutta et al. 2025 (Corr-A-Net, Eq. 11) multiply the field by its map.

What is deleted has to be replaced, and every replacement is an image that the predictor never saw: by
default the field strongly blurred (Gaussian, standard deviation one sixteenth of its longer side), which
hides cells and keeps stain and tissue; or the mean of each channel.

For the same reason no figure means much alone. Each stands beside a control: the map moved around the field
by random ways, which has the same values, mean and texture in other places (`masks.move_maps`).

Pixels are those of what the predictor takes: of the correlated representation where there is one.

Differences from the papers
---------------------------
- RISE deletes to black or blurs, in steps of a row of pixels; here the replacement is the same for both
  curves. The control is ours.
- Dutta et al. give the drop over a set of images (measured by
  `napari_her2_training.corr_a_net.accuracy_drop`); of one field, accuracy is whether its class stays.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from napari_her2.errors import JobFailed
from napari_her2.explain.gradcam import evaluating, grad_cam, upsample_maps
from napari_her2.explain.masks import move_maps, pixel_ranks, unit_maps
from napari_her2.models.shortage import Portions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.models.tile_models import FieldHead

Baseline = Literal["blurred", "mean"]
_BLUR = 1 / 16


@dataclass(frozen=True, slots=True, eq=False)
class FaithfulnessCurve:
    """Probability of a class while pixels are deleted, or inserted, in the order of a map.

    Parameters
    ----------
    shares : (n + 1,) float64
        Share of the pixels deleted or inserted, 0 to 1.
    probabilities : (n + 1,) float64
        Under the map.
    control : (R, n + 1) float64
        Under the map moved elsewhere, a row for each way.
    """

    shares: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    control: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the curve, 0 to 1."""
        return float(np.trapezoid(self.probabilities, self.shares))

    @property
    def control_areas(self) -> NDArray[np.float64]:
        """(R,) areas under the curves of the control."""
        return np.asarray(np.trapezoid(self.control, self.shares, axis=1))

    @property
    def control_mean(self) -> float:
        """Mean of the control's areas."""
        return float(self.control_areas.mean())

    @property
    def control_spread(self) -> float:
        """Standard deviation of the control's areas, from the sample."""
        return _spread(self.control_areas)


@dataclass(frozen=True, slots=True, eq=False)
class MaskedProbability:
    """Probability of a class with and without a mask.

    Parameters
    ----------
    whole, masked : float
        Of the field, and of the field multiplied by its map.
    control : (R,) float64
        Of the field multiplied by the map moved elsewhere.
    kept : bool
        Whether the masked field is still predicted as the whole one: its accuracy, if that was right.
    control_kept : float
        Share of the moved maps under which it is.
    """

    whole: float
    masked: float
    control: NDArray[np.float64]
    kept: bool
    control_kept: float

    @property
    def drop_points(self) -> float:
        """Loss of probability in percentage points."""
        return 100 * (self.whole - self.masked)

    @property
    def control_drop_points(self) -> float:
        """Mean loss under the control, percentage points."""
        return 100 * (self.whole - float(self.control.mean()))

    @property
    def control_spread_points(self) -> float:
        """Standard deviation of the loss under the control, percentage points."""
        return 100 * _spread(self.control)


@dataclass(frozen=True, slots=True, eq=False)
class Faithfulness:
    """What deleting, inserting and masking by a map does to the probability of a class.

    Parameters
    ----------
    class_index : int
    baseline : str
        What stands where pixels are deleted: "blurred" or "mean".
    deletion, insertion : FaithfulnessCurve
    soft : MaskedProbability
        Field multiplied by the map.
    half : MaskedProbability
        Only the half of the pixels kept where the map is highest; the others are 0.
    """

    class_index: int
    baseline: Baseline
    deletion: FaithfulnessCurve
    insertion: FaithfulnessCurve
    soft: MaskedProbability
    half: MaskedProbability


def cam_faithfulness_steps(
    model: FieldHead,
    field: Tensor,
    class_index: int,
    *,
    layer: str | None = None,
    steps: int = 16,
    draws: int = 5,
    baseline: Baseline = "blurred",
    batch_size: int = 8,
    seed: int = 0,
) -> Generator[tuple[int, int], None, Faithfulness]:
    """Faithfulness of the Grad-CAM of a class on one field.

    Parameters
    ----------
    model : FieldHead
    field : (3, H, W) float
        RGB of H&E in [0, 1], on the model's device.
    class_index : int
    layer : str, optional
        As for `grad_cam`.
    steps, draws, baseline, batch_size, seed
        As for `faithfulness_steps`.

    Yields
    ------
    tuple of int
        Predictions done, and in all.

    Returns
    -------
    Faithfulness
    """
    with evaluating(model), torch.no_grad():
        seen = model.represent(field[None])
    cams = grad_cam(model.predictor, seen, class_index, layer)
    height, width = seen.shape[2:]
    saliency = unit_maps(upsample_maps(cams, (height, width)))[0]

    def predict(fields: Tensor) -> Tensor:
        with evaluating(model), torch.no_grad():
            probabilities: Tensor = model.predictor(fields).probabilities
        return probabilities

    return (
        yield from faithfulness_steps(
            predict,
            seen[0],
            saliency,
            class_index,
            steps=steps,
            draws=draws,
            baseline=baseline,
            batch_size=batch_size,
            seed=seed,
        )
    )


def faithfulness_steps(
    predict: Callable[[Tensor], Tensor],
    field: Tensor,
    saliency: Tensor,
    class_index: int,
    *,
    steps: int = 16,
    draws: int = 5,
    baseline: Baseline = "blurred",
    batch_size: int = 8,
    seed: int = 0,
) -> Generator[tuple[int, int], None, Faithfulness]:
    """Measure how faithful a map of one field is, in steps; closing the generator cancels.

    Parameters
    ----------
    predict : callable
        (B, d, H, W) float to (B, C) probabilities, of a predictor in evaluation mode, without gradients.
    field : (d, H, W) float
        What the predictor takes.
    saliency : (H, W) float
        Its map, 0 to 1.
    class_index : int
        The class that the map explains.
    steps : int, default 16
        Parts in which the pixels are deleted and inserted.
    draws : int, default 5
        How often the map is moved for the control.
    baseline : {"blurred", "mean"}, default "blurred"
        What stands where pixels are deleted.
    batch_size : int, default 8
    seed : int, default 0

    Yields
    ------
    tuple of int
        Predictions done, and in all: 2 + 2 steps (1 + draws).

    Returns
    -------
    Faithfulness

    Raises
    ------
    JobFailed
        If the map does not fit its field or leaves [0, 1], or a number is below 1.
    """
    _check(field, saliency, steps=steps, draws=draws, batch_size=batch_size)
    generator = torch.Generator().manual_seed(seed)
    moved = move_maps(saliency.expand(draws, -1, -1), generator=generator)
    masks = torch.cat([saliency[None], moved])
    counts = np.rint(np.linspace(0, saliency.numel(), steps + 1)).astype(np.int64)
    variants = _variants(field, blank_field(field, baseline), masks, counts[1:-1].tolist(), generator)
    total = 2 + 2 * steps * (1 + draws)
    found: list[NDArray[np.float64]] = []
    yield 0, total
    portions = Portions(predict, "a single field")
    for batch in _batched(variants, batch_size):
        found.append(portions(batch).cpu().double().numpy())
        yield sum(map(len, found)), total
    probabilities = np.concatenate(found)
    explained, predicted = probabilities[:, class_index], probabilities.argmax(axis=1)
    by_map = explained[2:].reshape(1 + draws, 2 * steps)
    kept = (predicted[2:] == predicted[0]).reshape(1 + draws, 2 * steps)

    def curve(inner: NDArray[np.float64], first: float, last: float) -> FaithfulnessCurve:
        whole = np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (first, last)))
        return FaithfulnessCurve(counts / counts[-1], whole[0], whole[1:])

    def masked(column: int) -> MaskedProbability:
        values, same = by_map[:, column], kept[:, column]
        return MaskedProbability(
            whole=float(explained[0]),
            masked=float(values[0]),
            control=values[1:],
            kept=bool(same[0]),
            control_kept=float(same[1:].mean()),
        )

    full, empty = float(explained[0]), float(explained[1])
    return Faithfulness(
        class_index=class_index,
        baseline=baseline,
        deletion=curve(by_map[:, : steps - 1], full, empty),
        insertion=curve(by_map[:, steps - 1 : -2], empty, full),
        soft=masked(-2),
        half=masked(-1),
    )


def blank_field(field: Tensor, baseline: Baseline) -> Tensor:
    """Make what stands where pixels of a field are deleted.

    Parameters
    ----------
    field : (d, H, W) float
    baseline : {"blurred", "mean"}
        The field blurred by a Gaussian with a standard deviation of one sixteenth of its longer side, or
        the mean of each channel.

    Returns
    -------
    (d, H, W) float
    """
    if baseline == "mean":
        return field.mean(dim=(1, 2), keepdim=True).expand_as(field)
    sigma = max(field.shape[1:]) * _BLUR
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(field.float().cpu().numpy(), (0, sigma, sigma), mode="reflect")
    return torch.from_numpy(blurred).to(field)


def _variants(
    field: Tensor, blank: Tensor, masks: Tensor, counts: list[int], generator: torch.Generator
) -> Iterator[Tensor]:
    """Everything to be predicted: whole, blank, then for each mask its deletions, insertions and products."""
    yield field
    yield blank
    for mask in masks:
        ranks = pixel_ranks(mask[None], generator=generator)[0]
        for count in counts:
            yield torch.where(ranks < count, blank, field)
        for count in counts:
            yield torch.where(ranks < count, field, blank)
        yield field * mask.to(field)
        yield field * (ranks < mask.numel() // 2)


def _batched(variants: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    while batch := list(itertools.islice(variants, size)):
        yield torch.stack(batch)


def _spread(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _check(field: Tensor, saliency: Tensor, *, steps: int, draws: int, batch_size: int) -> None:
    if min(steps, draws, batch_size) < 1:
        raise JobFailed("Curves need at least one step, one draw of the control and one field at once.")
    if field.ndim != 3 or saliency.shape != field.shape[1:]:
        raise JobFailed(
            f"A map of shape {tuple(saliency.shape)} does not fit a field of shape {tuple(field.shape)}: "
            f"bring it to the field's size."
        )
    # Asked this way round, NaN is refused too.
    if not bool(((saliency >= 0) & (saliency <= 1)).all()):
        raise JobFailed("Maps lie between 0 and 1: scale them before they are used as masks.")
