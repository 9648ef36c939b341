"""What a method brings to its training: what it draws, loses and is judged by, and how it steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Batch = tuple[Tensor, ...]


class Task(nn.Module, ABC):
    """A network with what it learns from; the one Lightning module (`Learner`) does the rest.

    A batch follows from the seed, the epoch and its number alone, so that a fit that was stopped goes on with
    the same bits as one that was not. Batches are drawn on the CPU, in a thread of their own, ahead of the
    step that learns from them; every other method finds them on the device of the network.

    Names of the submodules and buffers are those of the checkpoints: they do not change.

    Parameters
    ----------
    seed : int
    epochs : int
    train_batches, validation_batches : int
        Batches an epoch, of all processes together.
    accumulate : int
        Batches a step of the optimiser.

    Attributes
    ----------
    patience : int
        Epochs in a row without a better measure after which learning ends; 0: it never does.
    monitor, mode, ties : str
        The measure by which the best epoch is kept, whether "min" or "max" of it is best, and whether the
        "first" or the "last" of equals.
    clip : float or None
        Largest norm of the gradient. Methods of papers that clip nothing have None; the others name it under
        "Differences from the paper".
    channels_last : bool
        Whether the network learns in the layout that convolutions like.
    any_side : bool
        Whether the network takes images of any side.
    stream : int
        Number of the random stream of dropout; the others of a method are for what it draws.
    whole : bool
        Whether each batch moves every parameter that learns: several processes find out which ones it moved
        otherwise, which takes time.
    parts : int
        In how many parts a batch goes through the network, one after the other, where memory is short
        (`in_parts`).
    """

    monitor: str = "validation_loss"
    mode: str = "min"
    ties: str = "first"
    clip: ClassVar[float | None] = 1.0
    channels_last: ClassVar[bool] = False
    any_side: ClassVar[bool] = False
    stream: ClassVar[int] = 1
    whole: bool = True
    patience: int = 0
    parts: int = 1

    def __init__(
        self, *, seed: int, epochs: int, train_batches: int, validation_batches: int, accumulate: int = 1
    ) -> None:
        super().__init__()
        self.seed = seed
        self.epochs = epochs
        self.train_batches, self.validation_batches = train_batches, validation_batches
        self.accumulate = accumulate

    def prepare(self) -> None:
        """Do what is to be done once, before the first epoch."""

    @abstractmethod
    def draw(self, epoch: int, number: int) -> Batch:
        """Draw a batch of an epoch, on the CPU."""

    @abstractmethod
    def draw_validation(self, number: int) -> Batch:
        """Draw a batch to judge, on the CPU: the same in every epoch."""

    @abstractmethod
    def loss(self, *batch: Tensor) -> Tensor:
        """Return what a batch of `draw` is to lose, () float."""

    @abstractmethod
    def judge(self, *batch: Tensor) -> Batch:
        """Return what the network makes of a batch of `draw_validation`."""

    @abstractmethod
    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        """Measure all that was judged in an epoch; `monitor` is one of the measures."""

    def follow(self, in_order: Callable[[Tensor], Sequence[Tensor]]) -> None:
        """Take along what follows the batches, once a batch was learnt from.

        Parameters
        ----------
        in_order : callable
            Gives a value of this batch together with those of the batches that other processes learnt from
            at the same time, in the order of the batches.
        """

    @property
    def most_parts(self) -> int:
        """In how many parts a batch may go through the network.

        More than 1 where the network looks at each example by itself and the task computes it by `in_parts`.
        """
        return 1

    def in_parts(self, compute: Callable[..., tuple[Tensor, ...]], *batch: Tensor) -> tuple[Tensor, ...]:
        """Compute examples, in `parts` one after the other; the loss is that of all of them together.

        Of a part nothing is kept but its result: the gradient computes it once more. So a batch takes the
        memory of a part. What is dropped out is drawn part by part, and sums round differently.

        Parameters
        ----------
        compute : callable
            (B, ...) each to (B, ...) each, of each example by itself.
        *batch : Tensor
            (B, ...) each.

        Returns
        -------
        tuple of Tensor
            (B, ...) each.
        """
        if self.parts == 1:
            return compute(*batch)
        size = -(-len(batch[0]) // self.parts)
        pieces = zip(*(torch.split(of, size) for of in batch), strict=True)
        found: list[tuple[Tensor, ...]] = [
            checkpoint(compute, *piece, use_reentrant=False) for piece in pieces
        ]
        return tuple(torch.cat(of) for of in zip(*found, strict=True))

    def lighter(self) -> str:
        """Return the setting that a batch of less memory has: "[bags] batch_size = 32" where it is 64 now.

        Empty where nothing is left to lower.
        """
        return ""

    @abstractmethod
    def optimiser(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """Return the optimiser, and its schedule where it has one."""


def batch_mean(values: Sequence[Tensor], counts: Sequence[Tensor | int]) -> float:
    """Mean of the means of batches, each as heavy as it holds examples, in float32.

    Parameters
    ----------
    values : sequence of () float
    counts : sequence of () int64 or int
    """
    total = torch.stack([value.float() * count for value, count in zip(values, counts, strict=True)])
    return float(sum(total) / sum(counts))
