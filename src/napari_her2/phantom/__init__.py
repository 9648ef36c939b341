"""Synthetic registered H&E and HER2 IHC slides with known truth.

For demonstration, training and tests: a phantom is no patient's tissue, and the link between
morphology and HER2 in it is invented.
"""

from __future__ import annotations

from napari_her2.phantom.case import SCORES, Score
from napari_her2.phantom.cohort import cohort_steps
from napari_her2.phantom.pair import PhantomPair, make_pair
from napari_her2.phantom.true_cells import TrueCells, cells_of, tissue_of, tissue_of_truth

__all__ = [
    "SCORES",
    "PhantomPair",
    "Score",
    "TrueCells",
    "cells_of",
    "cohort_steps",
    "make_pair",
    "tissue_of",
    "tissue_of_truth",
]
