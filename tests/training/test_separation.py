"""The area under the ROC curve and its interval: against scikit-learn, SciPy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm

from napari_her2_training.measures.separation import separation

values = st.lists(st.integers(0, 8), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(values, values)
def test_the_area_is_the_share_of_pairs_in_order_inside_its_interval(usual: list, strange: list) -> None:
    found = separation(np.array(usual, float), np.array(strange, float), 0.95)
    pairs = mannwhitneyu(strange, usual).statistic / (len(usual) * len(strange))
    assert found.value == pytest.approx(pairs)
    assert 0 <= found.low <= found.value <= found.high <= 1
    turned = separation(np.array(strange, float), np.array(usual, float), 0.95)
    assert turned.value == pytest.approx(1 - found.value)
    assert (1 - turned.low, 1 - turned.high) == pytest.approx((found.high, found.low), abs=1e-9)
    wide = separation(np.array(usual, float), np.array(strange, float), 0.99)
    assert wide.low <= found.low + 1e-9
    assert wide.high >= found.high - 1e-9


def test_the_interval_holds_the_true_area_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    for apart, usual, strange in ((0.5, 40, 15), (1.5, 30, 10), (2.5, 60, 12)):
        true = norm.cdf(apart / np.sqrt(2))
        hits = []
        for _ in range(250):
            found = separation(rng.normal(size=usual), rng.normal(apart, 1, strange), 0.95)
            hits.append(found.low <= true <= found.high)
        assert np.mean(hits) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 250)


def test_groups_that_do_not_overlap_leave_doubt() -> None:
    few = separation(np.zeros(5), np.ones(4), 0.95)
    many = separation(np.zeros(50), np.ones(40), 0.95)
    assert few.value == many.value == many.high == 1
    assert few.low < many.low < 1
