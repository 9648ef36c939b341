"""The configuration of attention MIL: what it has beside the sections that all methods share."""

from __future__ import annotations

from dataclasses import dataclass

from napari_her2_training.config import (
    EncoderRunConfig,
)
from napari_her2_training.config_keys import key


@dataclass(frozen=True, slots=True)
class PretrainingConfig:
    """[pretraining]: the encoder learns to classify labelled patches; left out with 0 epochs.

    Parameters
    ----------
    epochs : int
    patches_per_slide : int
    regions : str
        GeoJSON of the tumour of each case, relative to the manifest, with {case_id} in it: patches
        outside become a class "normal". Empty: every patch inherits the score of its slide.
    batch_size : int
    learning_rate, weight_decay : float
        Of AdamW, with warm-up and cosine decay.
    dropout : float
        Before the linear classifier, which is thrown away afterwards.
    stain_jitter : float
        Standard deviation of the logarithm of each stain's strength.
    colour_jitter : float
        Largest relative change of brightness and contrast.
    sharpness_jitter : float
        Largest share of the difference to a blurred patch that is added or taken away.
    noise : float
        Largest standard deviation of added noise, grey levels.
    """

    epochs: int = key(0, low=0, high=1000)
    patches_per_slide: int = key(200, low=1)
    regions: str = key("")
    batch_size: int = key(256, low=1)
    learning_rate: float = key(1e-4, above=0.0)
    weight_decay: float = key(1e-2, low=0.0)
    dropout: float = key(0.3, low=0.0, high=0.95)
    stain_jitter: float = key(0.15, low=0.0, high=1.0)
    colour_jitter: float = key(0.05, low=0.0, high=0.5)
    sharpness_jitter: float = key(0.5, low=0.0, high=1.0)
    noise: float = key(2.0, low=0.0, high=50.0)


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
