"""The order in which a fit sees its examples, and the seeds of what is random in it.

Everything follows from the seed of the run, the epoch and the number of the batch, so that a fit that was
stopped goes on as if it had not been.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


def seed_of(seed: int, *what: int) -> int:
    """Return a seed of its own for each purpose, epoch and batch."""
    return int(np.random.SeedSequence(seed, spawn_key=what).generate_state(1, np.uint64)[0] >> 1)


def epoch_order(labels: NDArray[np.int64], *, balanced: bool, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the examples of an epoch.

    Parameters
    ----------
    labels : (N,) int64
    balanced : bool
        Each class as often as the others: rare ones come again and again, frequent ones in part, others in
        the next epoch.
    seed, epoch : int

    Returns
    -------
    (N,) int64
        Numbers of examples.
    """
    rng = np.random.default_rng([seed, epoch])
    count = len(labels)
    if not balanced:
        return rng.permutation(count)
    present = np.unique(labels)
    each = -(-count // len(present))
    drawn = []
    for number in present:
        own = np.flatnonzero(labels == number)
        rounds = -(-each // len(own))
        drawn.append(np.concatenate([rng.permutation(own) for _ in range(rounds)])[:each])
    order: NDArray[np.int64] = rng.permutation(np.concatenate(drawn))[:count]
    return order


class EpochOrder:
    """The order of the examples of each epoch: see `epoch_order`; that of the present epoch is kept.

    Parameters
    ----------
    labels : (N,) int64
    balanced : bool
    seed : int
    """

    def __init__(self, labels: NDArray[np.int64], *, balanced: bool, seed: int) -> None:
        self._labels, self._balanced, self._seed = labels, balanced, seed
        self._known: tuple[int, NDArray[np.int64]] = (-1, labels)

    def of(self, epoch: int) -> NDArray[np.int64]:
        """(N,) int64 numbers of the examples of an epoch."""
        if self._known[0] != epoch:
            order = epoch_order(self._labels, balanced=self._balanced, seed=self._seed, epoch=epoch)
            self._known = (epoch, order)
        return self._known[1]


def inverse_frequencies(labels: NDArray[np.int64], classes: int) -> torch.Tensor:
    """(C,) float32 weights of classes, the rarer the larger; 1 on average over the examples."""
    counts = np.bincount(labels, minlength=classes)
    present = (counts > 0).sum()
    weights = np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32)
