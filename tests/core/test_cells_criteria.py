"""From cells to a score: percentages, the criteria, and when the answer stands on the edge."""

from __future__ import annotations

import pytest

from napari_her2.cells.criteria import Shares, finding
from napari_her2.cells.rules import Rules


@pytest.mark.parametrize(
    ("shares", "score"),
    [
        (Shares(60, 40, 10.01), "3+"),
        (Shares(60, 40, 10), "2+"),
        (Shares(60, 10, 0), "1+"),
        (Shares(60, 6, 0, 5), "2+"),  # moderate to intense but incomplete
        (Shares(60, 6, 4), "2+"),  # intense and complete in 10 % or fewer
        (Shares(10, 0, 0), "0"),
        (Shares(10.1, 0, 0), "1+"),
    ],
)
def test_criteria_of_the_breast(shares, score):
    assert finding(shares, Rules()).score == score
