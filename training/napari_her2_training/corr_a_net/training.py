"""Training of Corr-A-Net on pairs of fields, and what it then makes of H&E alone.

Dutta et al. 2025 (medRxiv preprint): Adam at 1e-4, its rate falling along a cosine over all 250 epochs. The
epoch of the lowest validation loss is kept.

Differences from the paper
--------------------------
- It augments intensities too. Targets of the reconstruction are what the stem sees of the very images that
  go in, so here pairs are flipped and turned by right angles together, and their colours stay.
- Fields can be learnt from in squares cut at random, which is what a CPU has the time for.
- Training and validation fields are not mixed up in the range of the stem: it is measured on training fields.

Differences from the published code
-----------------------------------
- There, IHC is blanked at random; here, the loss reconstructs from each stain alone as well as from both.
- With and without attention learn for as many epochs (there 150 and 100), and are judged on fields that
  were not learnt from (there, none).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from napari_her2.errors import JobFailed
from napari_her2.models.corr_a_net import CorrANet
from napari_her2.steps import Progress
from napari_her2_training.corr_a_net.losses import CorrelateOver, LossOptions, corr_a_net_loss
from napari_her2_training.files import array_file
from napari_her2_training.running.draws import EpochOrder
from napari_her2_training.running.shortage import halved
from napari_her2_training.running.task import Batch, Task, batch_mean

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2_training.corr_a_net.arms import NetworkArm
    from napari_her2_training.corr_a_net.config import NetworkConfig, StemConfig
    from napari_her2_training.corr_a_net.losses import LossTerms

PATCHES = "patches"
"""[encoder] weights: the stem is learnt from the training fields."""
_CEILING_FIELDS = 64
_AT_ONCE = 8


class CorrANetTask(Task):
    """Corr-A-Net and the pairs that it learns from.

    Parameters
    ----------
    network : CorrANet
    train, validation : tuple of (N, 3, f, f) uint8
        H&E and IHC of the same places.
    config : NetworkConfig
    seed : int
    learn_stem : bool, default False
        Whether the kernels of the stem are learnt from the pairs first.

    Raises
    ------
    JobFailed
        If there is no pair to learn from, or none to check with.
    """

    clip = None
    any_side = True

    def __init__(
        self,
        network: CorrANet,
        train: tuple[NDArray[np.uint8], NDArray[np.uint8]],
        validation: tuple[NDArray[np.uint8], NDArray[np.uint8]],
        config: NetworkConfig,
        *,
        seed: int,
        learn_stem: bool = False,
    ) -> None:
        pairs, checked = len(train[0]), len(validation[0])
        if min(pairs, checked) == 0:
            raise JobFailed(
                "Corr-A-Net needs fields to learn from and to check with: add some, or change the split."
            )
        super().__init__(
            seed=seed,
            epochs=config.epochs,
            train_batches=config.train_batches or -(-pairs // config.batch_size),
            validation_batches=_at_most(config.validation_batches, -(-checked // config.batch_size)),
        )
        self.network = network
        self.config = config
        self.learn_stem = learn_stem
        self.options = loss_options(config)
        self.train_pairs, self.validation_pairs = train, validation
        self._order = EpochOrder(np.zeros(pairs, np.int64), balanced=False, seed=seed)

    def prepare(self) -> None:
        """Fit the stem and its range, and lay the network out as convolutions like it."""
        if self.learn_stem:
            self.network.stem.fit_kernels(_stem_images(self.train_pairs), seed=self.seed)
        self.network.stem.fit_ceiling(_stem_images(self.train_pairs))
        self.network.to(memory_format=torch.channels_last)

    def draw(self, epoch: int, number: int) -> Batch:
        """Squares of H&E and IHC, flipped and turned alike."""
        size = self.config.batch_size
        rng = np.random.default_rng([self.seed, epoch, number])
        order = self._order.of(epoch)
        chosen = order[np.arange(number * size, (number + 1) * size) % len(order)]
        he, ihc = draw_pairs(self.train_pairs, chosen, self.config.crop_px, rng)
        return torch.from_numpy(he), torch.from_numpy(ihc)

    def draw_validation(self, number: int) -> Batch:
        """Cut the middle of fields."""
        size = self.config.batch_size
        he, ihc = (
            _middle(np.asarray(fields[number * size : (number + 1) * size]), self.config.crop_px)
            for fields in self.validation_pairs
        )
        return torch.from_numpy(he), torch.from_numpy(ihc)

    def loss(self, *batch: Tensor) -> Tensor:
        """Reconstruction less correlation."""
        return self._terms(*batch).total

    def judge(self, *batch: Tensor) -> Batch:
        """Loss and correlation of a batch, and how many fields it holds."""
        terms = self._terms(*batch)
        return terms.total.float(), terms.correlation.float(), torch.tensor(len(batch[0]))

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        """Mean loss and correlation."""
        losses, correlations, counts = zip(*judged, strict=True)
        return {
            self.monitor: batch_mean(losses, counts),
            "validation_correlation": batch_mean(correlations, counts),
        }

    def lighter(self) -> str:
        """Fewer fields a batch."""
        return halved("[network] batch_size", self.config.batch_size)

    def optimiser(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """Adam, its rate falling along a cosine."""
        learnt = [weights for weights in self.network.parameters() if weights.requires_grad]
        optimizer = torch.optim.Adam(learnt, lr=self.config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.config.epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _terms(self, he: Tensor, ihc: Tensor) -> LossTerms:
        return corr_a_net_loss(self.network(he.float().div_(255), ihc.float().div_(255)), self.options)


def loss_options(config: NetworkConfig) -> LossOptions:
    """Return the options of the loss that a configuration asks for."""
    return LossOptions(
        beta=config.beta,
        self_reconstruction=config.self_reconstruction,
        cross_reconstruction=config.cross_reconstruction,
        joint_reconstruction=config.joint_reconstruction,
        correlation=config.correlation,
        correlate_over=cast("CorrelateOver", config.correlate_over),
    )


def new_network(stem: StemConfig, arm: NetworkArm, *, seed: int) -> CorrANet:
    """Build Corr-A-Net with weights that the seed alone decides, and the stem that was asked for.

    A stem that is learnt from the fields is random until it is.

    Raises
    ------
    ModelError
        If the weights of the stem cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CorrANet(**arm.arguments)  # type: ignore[arg-type]
    if stem.weights not in ("random", PATCHES):
        weights = stem.weights
        given: Literal["pretrained"] | Path = (
            "pretrained" if weights == "pretrained" else Path(weights).expanduser()
        )
        network.stem.load(given)
    return network


def represent_steps(
    network: CorrANet, he: NDArray[np.uint8], path: Path, device: Device, *, stage: str
) -> Generator[Progress, None, None]:
    """Write what the network makes of H&E fields, as predictors take it, unless it is there.

    Parameters
    ----------
    network : CorrANet
    he : (N, 3, f, f) uint8
        Nothing else is asked for: no IHC is needed.
    path : Path
        A ``.npy`` file, (N, d, f, f) float16 on [0, 1].
    device : Device
    stage : str
        Named in the progress.
    """
    if path.exists():
        return
    count = len(he)
    network = network.to(device.torch_device).eval()
    with array_file(path, (count, network.channels, *he.shape[2:]), np.float16) as made:
        for first in range(0, count, _AT_ONCE):
            yield Progress(stage, first, count, "fields")
            fields = torch.from_numpy(np.array(he[first : first + _AT_ONCE])).to(device.torch_device)
            with torch.inference_mode():
                found = network.to_predictor(network.represent(fields.float().div_(255)))
            made[first : first + len(fields)] = found.half().cpu().numpy()
    network.cpu()


def fit_range(network: CorrANet, he: NDArray[np.uint8], device: Device) -> None:
    """Measure on training fields the range that a network scales by, where it does not scale each by itself.

    Parameters
    ----------
    network : CorrANet
    he : (N, 3, f, f) uint8
    device : Device
    """
    if network.scaling == "field":
        return
    network.to(device.torch_device)
    network.fit_range(field.to(device.torch_device) for field in spread_fields(he))
    network.cpu()


def draw_pairs(
    pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    chosen: NDArray[np.int64],
    crop_px: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Squares of pairs, flipped and turned at random, both stains alike.

    Parameters
    ----------
    pairs : tuple of (N, C, f, f) uint8
    chosen : (B,) int64
        Numbers of the fields.
    crop_px : int
        Side of the squares; 0 takes whole fields.
    rng : np.random.Generator

    Returns
    -------
    tuple of (B, C, crop_px, crop_px) uint8
    """
    side = crop_px or pairs[0].shape[2]
    drawn: tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]] = ([], [])
    for number in chosen.tolist():
        y, x = rng.integers(0, pairs[0].shape[2] - side + 1, 2).tolist()
        turns, flipped = int(rng.integers(4)), bool(rng.integers(2))
        for fields, squares in zip(pairs, drawn, strict=True):
            squares.append(turned(np.asarray(fields[number, :, y : y + side, x : x + side]), turns, flipped))
    return np.stack(drawn[0]), np.stack(drawn[1])


def turned(field: NDArray[Any], turns: int, flipped: bool) -> NDArray[Any]:
    """Turn a field, (C, f, f), by right angles, and mirror it."""
    field = np.rot90(field, turns, axes=(1, 2))
    return field[:, :, ::-1] if flipped else field


def _middle(fields: NDArray[np.uint8], crop_px: int) -> NDArray[np.uint8]:
    if not crop_px:
        return np.array(fields)
    first = (fields.shape[2] - crop_px) // 2
    return np.array(fields[:, :, first : first + crop_px, first : first + crop_px])


def _stem_images(pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> Iterator[Tensor]:
    """Training fields of both stains, in turn."""
    return itertools.chain.from_iterable(zip(*map(spread_fields, pairs), strict=True))


def spread_fields(fields: NDArray[np.uint8]) -> Iterator[Tensor]:
    """64 of the fields at most, spread over all of them: (1, 3, f, f) float32 in [0, 1] each."""
    count = len(fields)
    spread = np.unique(np.linspace(0, count - 1, min(count, _CEILING_FIELDS)).astype(np.int64))
    for number in spread.tolist():
        yield torch.from_numpy(np.array(fields[number : number + 1])).float().div_(255)


def _at_most(wanted: int, most: int) -> int:
    return min(wanted, most) if wanted else most
