"""The sections that configurations of trainings share, each with its keys and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.models.case_slides import EACH, MEAN, RULES, WAYS
from napari_her2.models.normalisations import NORMALISATIONS
from napari_her2_training.classes import class_mapping
from napari_her2_training.config_keys import key
from napari_her2_training.encoder_choice import ALEXNET

if TYPE_CHECKING:
    from napari_her2_training.classes import ClassMapping


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """[model]: what the card of the finished model says.

    Parameters
    ----------
    name : str
        Also the name of the bundle file.
    training_data : str
        What the model was trained on, in words; the numbers of cases are added.
    notice : str
        What is to be said wherever its score is shown, after the notice of napari-her2.
    """

    name: str = key()
    training_data: str = key()
    version: str = key("1")
    task: str = key("H&E-based prediction of the HER2 IHC score")
    licence: str = key("BSD-3-Clause")
    intended_use: str = key("Research on the slides it was validated on. Not for diagnosis.")
    guideline: str = key("ASCO/CAP 2018, affirmed 2023")
    notice: str = key("")


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """[data] of every method: where the data lies.

    Parameters
    ----------
    manifest : str
        CSV of the cases, or the folder that a method reads, relative to the configuration file; may be given
        to the command instead.
    """

    manifest: str = key("")


@dataclass(frozen=True, slots=True)
class CasesConfig(SourceConfig):
    """[data]: cases, classes and splits.

    Parameters
    ----------
    classes : str
        "scores" (0, 1+, 2+, 3+) or "binary" (0 and 1+ against 2+ and 3+).
    folds : int
        1: one split; more: cross-validation, one model a fold.
    validation : float
        Share of the cases for validation, with one fold.
    test : float
        Share of the cases that is never trained on.
    stratified : bool
        Whether folds hold the classes in proportion.
    seed : int
        Of the splits. Columns ``split`` and ``fold`` of the manifest go before all of these; with cases
        that are "test" alone, the others are split as told here.
    check_stains : bool
        Whether a slide that looks like another stain than its column says, or like fluorescence, is refused;
        Corr-A-Net looks at the H&E slide alone.
    """

    classes: str = key("scores", choices=("scores", "binary"))
    folds: int = key(1, low=1, high=100)
    validation: float = key(0.2, above=0.0, high=0.9)
    test: float = key(0.0, low=0.0, high=0.9)
    stratified: bool = key(False)
    seed: int = key(123, low=0)
    check_stains: bool = key(True)

    @property
    def mapping(self) -> ClassMapping:
        """Which scores make which class."""
        return class_mapping(self.classes)


@dataclass(frozen=True, slots=True)
class DataConfig(CasesConfig):
    """[data] of a method that sees tiles.

    Parameters
    ----------
    tile_px : int
        For an encoder that is known by name, 0 or left out is that of its contract; so is mpp. AlexNet takes
        95 to 112.
    mpp : float
        µm per pixel of the tiles.
    min_tissue : float
        Share of a tile that must be tissue.
    """

    tile_px: int = key(96, low=8, high=4096)
    mpp: float = key(0.5, low=0.1, high=4.0)
    min_tissue: float = key(0.5, low=0.0, high=1.0)


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """[encoder]: the patch encoder before any pre-training.

    Parameters
    ----------
    name : str
        A name of `napari_her2.models.encoder_contracts` ("uni", also as other programs write it), "alexnet",
        "timm:NAME", or "model:NAME": that of a model which is installed, or of a file.
    weights : str
        "installed" (those in the folder of encoders), "random", "pretrained" (may download) or a file. A
        model has its own.
    normalisation : str
        "auto", or a key of `napari_her2.models.normalisations.NORMALISATIONS`.
    pooling : str
        "auto", or how the tokens of a transformer make up the features of a tile.
    features_tile_px : int
        Side of the tiles, pixels, that features of files were made of, where the files do not state it; 0: as
        they state it.
    features_mpp : float
        µm per pixel of those tiles, likewise.
    """

    name: str = key(ALEXNET)
    weights: str = key("random")
    normalisation: str = key("auto", choices=("auto", *NORMALISATIONS))
    pooling: str = key("auto", choices=("auto", "class", "class+mean", "token mean"))
    features_tile_px: int = key(0, low=0, high=4096)
    features_mpp: float = key(0.0, low=0.0, high=100.0)


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """[compute]: where and how it runs.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", "cuda:0" or "mps".
    seed : int
        Of weights, bags and augmentation.
    devices : int
        GPUs of a machine, or processes on a CPU, that learn together; each sees other batches, so that a
        step of the optimiser looks at as many times more. 0 takes all GPUs.
    nodes : int
        Machines that learn together; each runs the same command, started by the scheduler of the cluster.
    strategy : str
        How they work together, as Lightning names it.
    """

    device: str = key("auto")
    seed: int = key(0, low=0)
    devices: int = key(1, low=0, high=1024)
    nodes: int = key(1, low=1, high=10_000)
    strategy: str = key("auto", choices=("auto", "ddp", "ddp_find_unused_parameters_true"))


@dataclass(frozen=True, slots=True)
class MeasureConfig:
    """[measure]: intervals, calibration, and when an answer is withheld.

    Parameters
    ----------
    resamples : int
        Of the cases, for the bootstrap interval of every measure; 0: none.
    confidence : float
        Of the intervals.
    seed : int
    calibrate : bool
        Whether the model gets a temperature, fitted on the validation slides.
    wanted_accuracy : float
        The model withholds answers below the confidence at which so large a share of the validation slides
        is answered rightly; 0: it keeps the general limit.
    """

    resamples: int = key(1000, low=0, high=1_000_000)
    confidence: float = key(0.95, low=0.5, high=0.999)
    seed: int = key(0, low=0)
    calibrate: bool = key(True)
    wanted_accuracy: float = key(0.0, low=0.0, high=1.0)


@dataclass(frozen=True, slots=True)
class Published:
    """[[published]]: a figure of the paper whose protocol this is, to be told beside what is measured.

    Parameters
    ----------
    measure : str
        As our own measures are called: "macro AUC".
    value : float
        On the scale of the measure: 0.622, not 62.2 %.
    on : str
        Data and arm that it was measured on, in words, with what the source leaves open.
    source : str
        Where it stands.
    """

    measure: str = key()
    value: float = key()
    on: str = key()
    source: str = key()


@dataclass(frozen=True, slots=True)
class DoubtConfig:
    """[doubt]: what the finished model keeps of its cases, to tell how far its answers can be trusted.

    Parameters
    ----------
    familiarity : bool
        Whether it keeps what its slides look like, by which a slide is called unlike them.
    sets : bool
        Whether it keeps how it answers the validation and calibration cases, for sets of scores.
    slides : int
        Training slides that are looked at for it, drawn by the seed of [compute]; all of validation and
        calibration are.
    """

    familiarity: bool = key(True)
    sets: bool = key(True)
    slides: int = key(200, low=1, high=100_000)

    @property
    def wanted(self) -> bool:
        """Whether anything is kept."""
        return self.familiarity or self.sets


@dataclass(frozen=True, slots=True)
class StoppingConfig:
    """[stopping]: when learning ends before its last epoch. The weights are those of the best epoch anyway.

    Parameters
    ----------
    patience : int
        Epochs in a row that are no better than the best, after which learning ends; 0: it never does, as in
        all published protocols of these methods. A schedule of the learning rate is cut off then.
    """

    patience: int = key(0, low=0, high=100_000)


@dataclass(frozen=True, slots=True)
class CaseSlidesConfig:
    """[cases]: what several slides of one case are to the model.

    Parameters
    ----------
    slides : str
        "each": every row of the manifest by itself, with the score of its case. "joined bags": all tiles of
        the slides of a case are one bag. "joined answers": each row is learnt from by itself, and what is
        said of the rows of a case is joined where the model is judged, calibrated and used.
    rule : str
        How answers are joined: "mean" of the probabilities, or "highest", the slide that lies highest. See
        `napari_her2.models.case_slides.joined_probabilities`.
    """

    slides: str = key(EACH, choices=WAYS)
    rule: str = key(MEAN, choices=tuple(RULES))


NO_DOUBT = DoubtConfig(familiarity=False, sets=False)
"""Of models that are only compared."""
