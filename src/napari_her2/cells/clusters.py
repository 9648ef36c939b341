"""Clusters of stained cells, by which biopsies of the stomach are scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS_UM = 15.0
"""Cells whose centres are this near lie next to each other and belong to one cluster."""


def neighbours(centre_um: NDArray[np.float32]) -> NDArray[np.intp]:
    """Pairs of cells that lie next to each other.

    Parameters
    ----------
    centre_um : (N, 2) float32

    Returns
    -------
    (P, 2) intp
        Numbers of both cells, each pair once.
    """
    from scipy.spatial import cKDTree  # half a second, which a dock that opens need not wait

    if len(centre_um) < 2:
        return np.zeros((0, 2), np.intp)
    return np.asarray(cKDTree(centre_um).query_pairs(NEIGHBOURS_UM, output_type="ndarray"), np.intp)


def largest_clusters(
    chosen: NDArray[np.bool_], group: NDArray[np.integer], pairs: NDArray[np.intp], groups: int
) -> NDArray[np.int64]:
    """Cells of the largest cluster of chosen cells in each group: each next to another one of it.

    Parameters
    ----------
    chosen : (N,) bool
    group : (N,) int
        Which group each cell belongs to, from 0; clusters end at the border of a group.
    pairs : (P, 2) intp
        From `neighbours`, of the same cells.
    groups : int

    Returns
    -------
    (groups,) int64
        1 where no two chosen cells of a group lie next to each other, 0 where none is chosen.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    largest = np.zeros(groups, np.int64)
    numbers = np.flatnonzero(chosen)
    if not len(numbers):
        return largest
    place = np.full(len(chosen), -1, np.intp)
    place[numbers] = np.arange(len(numbers))
    first, second = pairs.T
    linked = chosen[first] & chosen[second] & (group[first] == group[second])
    ends = place[first[linked]], place[second[linked]]
    links = coo_matrix((np.ones(len(ends[0]), bool), ends), shape=(len(numbers),) * 2)
    count, cluster = connected_components(links, directed=False)
    of = np.empty(count, np.int64)
    of[cluster] = group[numbers]
    np.maximum.at(largest, of, np.bincount(cluster, minlength=count))
    return largest
