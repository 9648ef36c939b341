"""Which of several processes that learn together this one is; told without importing PyTorch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_her2_training.config import ComputeConfig

# Where Lightning, torchrun and the schedulers of clusters write the number of a process or of its machine.
_NUMBERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def is_first(compute: ComputeConfig) -> bool:
    """Whether this process writes what comes out: of those that learn together, one does.

    Lightning starts the others with the command line of the first, and tells each its number. A training
    that learns alone is always the first, also as one of several tasks of a scheduler.

    Parameters
    ----------
    compute : ComputeConfig
    """
    alone = compute.devices == 1 and compute.nodes == 1
    return alone or all(os.environ.get(name, "0") == "0" for name in _NUMBERS)
