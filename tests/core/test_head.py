"""The head of a model where memory is short: on the CPU, without taking it from whoever uses it elsewhere."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from napari_her2.errors import JobFailed
from napari_her2.inference import head as head_room
from napari_her2.inference.device import choose_device
from napari_her2.inference.head import RoomyDevice, head_on_cpu, refuse_nonsense


@pytest.fixture
def small_gpu(monkeypatch):
    """A device that modules are moved to, and that then has no memory left."""
    monkeypatch.setattr(head_room, "placed", lambda module, _: module)
    return replace(choose_device("cpu"), torch_device=torch.device("cuda:0"))


def test_what_does_not_fit_is_computed_on_the_cpu_from_then_on(small_gpu, tiny_bundle):
    tried = []

    def compute(head, place):
        tried.append(place.type)
        if place.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return head is tiny_bundle.head

    device = RoomyDevice(small_gpu, tiny_bundle)
    assert device.run(compute)
    assert device.run(compute)
    assert tried == ["cuda", "cpu", "cpu"]


def test_other_errors_of_a_device_are_not_hidden(small_gpu, tiny_bundle):
    def compute(head, place):
        raise RuntimeError("device-side assert triggered")

    with pytest.raises(RuntimeError, match="assert"):
        RoomyDevice(small_gpu, tiny_bundle).run(compute)


def test_a_head_that_is_in_use_elsewhere_stays_there(tiny_bundle):
    weights = tiny_bundle.head.state_dict()
    there = {
        name: SimpleNamespace(device=torch.device("cuda:0"), cpu=lambda tensor=tensor: tensor)
        for name, tensor in weights.items()
    }
    elsewhere = replace(tiny_bundle, head=SimpleNamespace(state_dict=lambda: there))
    copy = head_on_cpu(elsewhere)
    assert type(copy) is type(tiny_bundle.head)
    assert all(torch.equal(copy.state_dict()[name], tensor) for name, tensor in weights.items())
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert head_on_cpu(tiny_bundle) is tiny_bundle.head


def test_what_is_not_a_number_is_refused(tiny_bundle):
    refuse_nonsense(tiny_bundle.card, torch.ones(2))
    with pytest.raises(JobFailed, match=r"tiny gave values that are not numbers.*models verify"):
        refuse_nonsense(tiny_bundle.card, torch.ones(2), torch.tensor([1.0, float("nan")]))
