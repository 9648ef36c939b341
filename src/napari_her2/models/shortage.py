"""Shortage of memory: how it is recognised, and how a batch that does not fit is computed in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Callable

_OUT_OF_MEMORY_TEXTS = (
    "out of memory",  # CUDA, HIP and MPS
    "can't allocate memory",  # the CPU allocator on Linux and macOS
    "not enough memory",  # the CPU allocator on Windows
    "alloc_failed",  # cuBLAS and cuDNN
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of the computation says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in _OUT_OF_MEMORY_TEXTS)


def release(device: torch.device) -> None:
    """Give back what PyTorch keeps of the memory of a device for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class Portions:
    """Computes batches in as large portions as fit into memory; a portion that did not fit is halved.

    Each example must be computed by itself: what is computed of it does not depend on the portion.

    Parameters
    ----------
    compute : callable
        (B, ...) to (B, ...), on one device.
    of_what : str
        An example in words, for the error.

    Attributes
    ----------
    limit : int or None
        Examples a portion, as learnt; None while all fitted.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor], of_what: str) -> None:
        self._compute = compute
        self._of_what = of_what
        self.limit: int | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        """Compute a batch.

        Parameters
        ----------
        batch : (B, ...)
            On the device.

        Returns
        -------
        (B, ...)

        Raises
        ------
        JobFailed
            If not even one example fits.
        """
        done: list[Tensor] = []
        start = 0
        while start < len(batch):
            part = batch[start : start + (self.limit or len(batch))]
            found = self._attempt(part)
            if found is not None:
                done.append(found)
                start += len(part)
        return done[0] if len(done) == 1 else torch.cat(done)

    def _attempt(self, part: Tensor) -> Tensor | None:
        try:
            return self._compute(part)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise JobFailed(
                    f"The memory of this device is too small for {self._of_what}: close other programs, or "
                    f"choose the CPU."
                ) from error
        # Outside the handler: only now are the frames that hold the tensors of the failed attempt gone.
        self.limit = max(1, len(part) // 2)
        release(part.device)
        return None
