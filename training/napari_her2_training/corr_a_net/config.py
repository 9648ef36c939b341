"""The configuration of Corr-A-Net: fields, the two networks, and the table of arms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from napari_her2.errors import JobFailed
from napari_her2.models.corr_a_net import MAX_DILATION, SCALINGS
from napari_her2.models.predictors import FIELD_PX, PREDICTORS
from napari_her2_training.config import EncoderRunConfig
from napari_her2_training.config_keys import key
from napari_her2_training.config_sections import DataConfig, EncoderConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

INPUTS = ("H&E", "IHC", "H&E+IHC", "correlated")
"""What a predictor can look at."""
ATTENTION: Mapping[str, tuple[bool, ...]] = {"both": (True, False), "with": (True,), "without": (False,)}


@dataclass(frozen=True, slots=True)
class FieldDataConfig(DataConfig):
    """[data]: as for every method, but fields of H&E and IHC of the same places, and one split.

    Parameters
    ----------
    tile_px : int
        Side of a field as it is read.
    field_px : int
        Side to which fields are averaged, once; divides `tile_px`.
    fields_per_slide : int
        Fields drawn from the tissue of a slide, which may overlap; 0 takes the tiles that scoring takes.
    regions : str
        GeoJSON of the tumour of each case, relative to the manifest, with {case_id} in it: only fields
        that hold enough tumour are taken. Empty: wherever there is tissue.
    least_tumour : float
        Share of a field that must be tumour, with `regions`.
    """

    tile_px: int = key(1024, low=32, high=8192)
    mpp: float = key(0.46, low=0.1, high=4.0)
    validation: float = key(0.3, above=0.0, high=0.9)
    classes: str = key("scores", choices=("scores",))
    folds: int = key(1, low=1, high=1)
    stratified: bool = key(True)
    seed: int = key(42, low=0)
    field_px: int = key(FIELD_PX, low=16, high=2048)
    fields_per_slide: int = key(0, low=0, high=10_000)
    regions: str = key("")
    least_tumour: float = key(0.1, above=0.0, high=1.0)


@dataclass(frozen=True, slots=True)
class StemConfig(EncoderConfig):
    """[encoder]: the stem of Corr-A-Net, which stays as it is.

    Parameters
    ----------
    weights : str
        "random", "pretrained" (may download a ResNet-50 of ImageNet), a .safetensors file of one, or
        "patches": learnt from the training fields, see `ResNetStem.fit_kernels`.
    """

    name: str = key("resnet50-stem", choices=("resnet50-stem",))
    normalisation: str = key("imagenet", choices=("imagenet",))


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """[network]: Corr-A-Net, its loss, and how it learns (Adam, rate falling along a cosine).

    Parameters
    ----------
    dim : int
        Channels of the representation.
    attention : bool
        Whether squeeze-excitation weighs them.
    dilation : int
    scaling : str
        Variants of Corr-A-Net, see `napari_her2.models.corr_a_net.CorrANet`; by default that of the paper.
    crop_px : int
        Side of the squares that are cut from the fields to learn from; 0 takes whole fields.
    batch_size : int
    train_batches, validation_batches : int
        Batches an epoch; 0 takes every field once.
    epochs : int
    learning_rate : float
    beta, self_reconstruction, cross_reconstruction, joint_reconstruction, correlation, correlate_over
        See `napari_her2_training.corr_a_net.losses.LossOptions`.
    """

    dim: int = key(16, low=4, high=256)
    attention: bool = key(True)
    dilation: int = key(1, low=1, high=MAX_DILATION)
    scaling: str = key("field", choices=SCALINGS)
    crop_px: int = key(0, low=0, high=2048)
    batch_size: int = key(64, low=1)
    train_batches: int = key(0, low=0)
    validation_batches: int = key(0, low=0)
    epochs: int = key(250, low=1, high=100_000)
    learning_rate: float = key(1e-4, above=0.0)
    beta: float = key(0.84, low=0.0, high=1.0)
    self_reconstruction: float = key(1.0, low=0.0)
    cross_reconstruction: float = key(1.0, low=0.0)
    joint_reconstruction: float = key(1.0, low=0.0)
    correlation: float = key(1.5, low=0.0)
    correlate_over: str = key("pixels", choices=("pixels", "channels"))


@dataclass(frozen=True, slots=True)
class PredictorConfig:
    """[predictor]: the predictor, its loss, and how it learns (Adam, rate falling along a cosine).

    Parameters
    ----------
    architecture : str
        A key of `napari_her2.models.predictors.PREDICTORS`.
    input : str
        "H&E", "IHC", "H&E+IHC" or "correlated".
    network : str
        With "correlated": the file that training Corr-A-Net wrote.
    crop_px : int
        Side of the squares that are cut from the fields to learn from; 0 takes whole fields. Whole ones are
        judged in any case; a transformer takes no others.
    batch_size, accumulate : int
        Fields a batch, and batches a step of the optimiser.
    train_batches : int
        Batches an epoch; 0 takes every field once.
    epochs : int
    learning_rate, weight_decay : float
    weighted : bool
        Whether a field weighs inversely to how frequent its class is.
    jitter : float
        Largest relative change of strength and contrast of what is learnt from.
    first_lambda, budget, hinted, focal
        See `napari_her2_training.corr_a_net.predictor_losses.PredictorLossOptions`.
    """

    architecture: str = key("resnext50-32x4d", choices=tuple(PREDICTORS))
    input: str = key("correlated", choices=INPUTS)
    network: str = key("")
    crop_px: int = key(0, low=0, high=2048)
    batch_size: int = key(32, low=1)
    accumulate: int = key(1, low=1, high=10_000)
    train_batches: int = key(0, low=0)
    epochs: int = key(100, low=1, high=100_000)
    learning_rate: float = key(1e-4, above=0.0)
    weight_decay: float = key(0.0, low=0.0)
    weighted: bool = key(True)
    jitter: float = key(0.1, low=0.0, high=0.9)
    first_lambda: float = key(0.1, low=0.0)
    budget: float = key(0.3, above=0.0)
    hinted: float = key(0.5, low=0.0, high=1.0)
    focal: float = key(0.0, low=0.0)


@dataclass(frozen=True, slots=True)
class TableConfig:
    """[table]: the arms that are compared; lists are texts with commas.

    Parameters
    ----------
    predictors : str
        Architectures; empty takes that of [predictor].
    inputs : str
        What they look at.
    dims : str
        Channels of the correlated representations; empty takes that of [network].
    attention : str
        "both", "with" or "without".
    """

    predictors: str = key("")
    inputs: str = key(", ".join(INPUTS))
    dims: str = key("")
    attention: str = key("both", choices=tuple(ATTENTION))


@dataclass(frozen=True, slots=True)
class CorrANetConfig(EncoderRunConfig):
    """A whole training run of Corr-A-Net, of a predictor, or of a table of both."""

    data: FieldDataConfig
    encoder: StemConfig
    network: NetworkConfig
    predictor: PredictorConfig
    table: TableConfig
    joins_bags: ClassVar[bool] = False  # its fields are judged one by one

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Check a configuration given as nested mappings; see `RunConfig.parse`."""
        config = cls._parse_sections(values)
        data = config.data
        if data.tile_px % data.field_px:
            raise JobFailed(
                f"[data] field_px ({data.field_px}) must divide tile_px ({data.tile_px}), so that fields are "
                f"averaged by a whole factor."
            )
        for section, crop in (("network", config.network.crop_px), ("predictor", config.predictor.crop_px)):
            if crop > data.field_px:
                raise JobFailed(
                    f"[{section}] crop_px ({crop}) must not exceed [data] field_px ({data.field_px})."
                )
        least = config.network.dilation**2 + 1
        if (config.network.crop_px or data.field_px) < least:
            raise JobFailed(
                f"[network] dilation = {config.network.dilation} looks {least - 1} px around: learn from "
                f"squares of at least {least} px (crop_px)."
            )
        for architecture in config.predictors:
            known = PREDICTORS.get(architecture)
            if known is not None and known.transformer and config.predictor.crop_px not in (0, data.field_px):
                raise JobFailed(f"{architecture} learns from whole fields: set [predictor] crop_px = 0.")
        for dim in (config.network.dim, *config.dims):
            if dim < 4 or dim % 4:
                raise JobFailed(f"Corr-A-Net takes 8, 16, 32 or another multiple of 4 channels, not {dim}.")
        _known("predictors", config.predictors, tuple(PREDICTORS))
        _known("inputs", config.inputs, INPUTS)
        return config

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the representations in the table."""
        listed = _listed(self.table.dims)
        if not all(item.isdecimal() for item in listed):
            raise JobFailed(f"[table] dims must be whole numbers with commas, not {self.table.dims!r:.80}.")
        return tuple(map(int, listed)) or (self.network.dim,)

    @property
    def predictors(self) -> tuple[str, ...]:
        """Architectures in the table."""
        return _listed(self.table.predictors) or (self.predictor.architecture,)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the predictors of the table look at."""
        return _listed(self.table.inputs)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def _known(name: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    for item in given:
        if item not in known:
            raise JobFailed(f"[table] {name} may hold {', '.join(known)}, not {item!r:.80}.")
    if not given:
        raise JobFailed(f"[table] {name} must name at least one of {', '.join(known)}.")
