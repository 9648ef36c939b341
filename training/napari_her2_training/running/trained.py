"""What training leaves of a fold, whatever the method: its network, what it predicted, and what it is of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from torch import nn

    from napari_her2.inference.doubt import Signature
    from napari_her2.models.patch_encoder import PatchEncoder
    from napari_her2.steps import Progress
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.running.cards import ModelFacts


@dataclass(frozen=True, slots=True, eq=False)
class TrainedFold:
    """What training leaves of a fold.

    Parameters
    ----------
    model : nn.Module
        Frozen, on the CPU.
    encoder : PatchEncoder or None
    facts : ModelFacts
    predictions : mapping of str to mapping of str to Predictions
        Reading, part.
    reading : str
        That of the bundle.
    heads : mapping of str to str
        Readings that are heads of one model, and what each looks at, in words. Others are ways to read the
        same model, of which a bundle has one.
    no_bundle : str
        Why slides cannot be scored with it, empty where they can.
    no_doubt : str
        Why it keeps nothing of its cases although it scores slides, empty where it may.
    uncalibrated : tuple of str
        Readings whose probabilities are none that a temperature could mend.
    of_parts : tuple of str
        Readings of parts of slides, which are no answers of slides: they are never joined in cases.
    unit : str
        What was judged.
    note : str
        What else the card is to say of the training.
    weights : str
        What the file of the weights alone is called after, where there is no bundle.
    counts : mapping of str to int or None
        What each part holds, where it is not the slides of the split.
    sizes : str
        The same in words for the card.
    figures : mapping of str to float
        Further ones for the card.
    record : mapping
        What else a report tells.
    of_slides : mapping of str to mapping of str to Predictions
        Where the answers of the slides of a case were joined: what was said of each slide.
    looks : callable or None
        Of a training without slides: what so many training examples, and those of validation, look like to
        the model, by the parts of `napari_her2_training.doubt.fit`. None where slides are scored to tell it.
    """

    model: nn.Module
    encoder: PatchEncoder | None
    facts: ModelFacts
    predictions: Mapping[str, Mapping[str, Predictions]]
    reading: str = ""
    heads: Mapping[str, str] = field(default_factory=dict)
    no_bundle: str = ""
    no_doubt: str = ""
    uncalibrated: tuple[str, ...] = ()
    of_parts: tuple[str, ...] = ()
    unit: str = "slides"
    note: str = ""
    weights: str = "head"
    counts: Mapping[str, int] | None = None
    sizes: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, object] = field(default_factory=dict)
    of_slides: Mapping[str, Mapping[str, Predictions]] = field(default_factory=dict)
    looks: Callable[[int], Generator[Progress, None, Mapping[str, Sequence[Signature]]]] | None = None
