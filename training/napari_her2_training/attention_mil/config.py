"""The configuration of attention MIL: what it has beside the sections that all methods share."""

from __future__ import annotations

from dataclasses import dataclass

from napari_her2_training.config import EncoderRunConfig
from napari_her2_training.config_keys import key
from napari_her2_training.encoder.config import PretrainingConfig


@dataclass(frozen=True, slots=True)
class BagsConfig:
    """[bags]: how tiles are drawn for training and validation.

    Parameters
    ----------
    size : int
        Tiles a bag, drawn without replacement; slides with fewer are refused.
    batch_size : int
        Bags a batch.
    train_batches, validation_batches : int
        Batches an epoch.
    validation_seed : int
        The same bags are seen in every validation.
    """

    size: int = key(100, low=1)
    batch_size: int = key(64, low=1)
    train_batches: int = key(100, low=1)
    validation_batches: int = key(25, low=1)
    validation_seed: int = key(123, low=0)


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """[head]: the attention head and how it learns (Adam).

    Parameters
    ----------
    hidden : int
    epochs : int
    learning_rate, weight_decay : float
    guidance : float
        Weight of a second loss where [pretraining] regions say which tiles are tumour: -log of the
        attention that falls on them, and the cross-entropy of each one's own vote. 0, as published: the
        slide's label alone teaches.
    """

    hidden: int = key(256, low=1, high=65536)
    epochs: int = key(50, low=1, high=100_000)
    learning_rate: float = key(1e-3, above=0.0)
    weight_decay: float = key(1e-7, low=0.0)
    guidance: float = key(0.0, low=0.0, high=100.0)


@dataclass(frozen=True, slots=True)
class AttentionConfig(EncoderRunConfig):
    """A whole training run of attention MIL."""

    pretraining: PretrainingConfig
    bags: BagsConfig
    head: HeadConfig
