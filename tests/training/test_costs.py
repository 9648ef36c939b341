"""What a step of learning takes is timed on a part of a batch where there is only a CPU."""

from __future__ import annotations

import pytest
import torch

from napari_her2_training.findings import Cost
from napari_her2_training.running.costs import smaller


def test_a_few_images_stand_for_a_batch_and_smaller_ones_where_the_network_takes_any_side() -> None:
    batch = torch.zeros(64, 3, 96, 96), torch.arange(64)
    some, share = smaller(batch, any_side=True)
    assert [tuple(part.shape) for part in some] == [(8, 3, 96, 96), (8,)]
    assert share == pytest.approx(8 / 64)
    large = torch.zeros(4, 3, 512, 512), torch.zeros(4, 3, 512, 512)
    some, share = smaller(large, any_side=True)
    assert {tuple(part.shape) for part in some} == {(2, 3, 128, 128)}
    assert share == pytest.approx(2 / 4 * (128 / 512) ** 2)
    some, share = smaller(large, any_side=False)
    assert {tuple(part.shape) for part in some} == {(2, 3, 512, 512)}
    assert share == pytest.approx(2 / 4)


def test_some_tiles_stand_for_the_bag_of_a_slide() -> None:
    pair = torch.zeros(8192, 5), torch.zeros(1000, 6), torch.tensor(3)
    some, share = smaller(pair, any_side=False)
    assert [tuple(part.shape) for part in some] == [(4096, 5), (1000, 6), ()]
    assert share == pytest.approx(0.5)
    bags = torch.zeros(64, 100, 5), torch.zeros(64, dtype=torch.int64), torch.zeros(64, 100, dtype=torch.bool)
    some, share = smaller(bags, any_side=False)
    assert share == 1
    assert [tuple(part.shape) for part in some] == [tuple(part.shape) for part in bags]


def test_what_was_not_timed_has_no_total() -> None:
    assert Cost(2.0, 0.5, 10).total(train=3, validate=4) == 8
    assert Cost(None, None, 10).total(train=3, validate=4) is None
    assert Cost(None, None, 10, batch_bytes=7).memory_bytes == 10 * 4 * 4 + 7
