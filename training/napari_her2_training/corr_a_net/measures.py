"""What predictors of fields say, and all measures of it that the table holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_her2.explain.gradcam import grad_cam, upsample_maps
from napari_her2.export.tables import without_nan
from napari_her2.whole_files import whole_file
from napari_her2_training.corr_a_net.accuracy_drop import ExplainedBatch, drop_in_accuracy
from napari_her2_training.corr_a_net.confidence_metrics import measure_predictor
from napari_her2_training.corr_a_net.representation_metrics import (
    channel_correlations,
    dab_density,
    luminance,
    mean_correlations,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.models.corr_a_net import CorrANet
    from napari_her2.models.predictors import Predictor
    from napari_her2_training.corr_a_net.predictor import LabelledFields

_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What a predictor says of fields.

    Parameters
    ----------
    labels : (N,) int64
    logits : (N, C) float32
    confidence_logits : (N,) float32
    """

    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    confidence_logits: NDArray[np.float32]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C)."""
        return torch.softmax(torch.from_numpy(self.logits).double(), dim=1).numpy()

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(N,), 0 to 1."""
        return torch.sigmoid(torch.from_numpy(self.confidence_logits).double()).numpy()

    def save(self, path: Path) -> None:
        """Write it to a ``.npz`` file, whole or not at all."""
        with whole_file(path) as file:
            np.savez(file, labels=self.labels, logits=self.logits, confidence_logits=self.confidence_logits)

    @classmethod
    def load(cls, path: Path) -> Judged:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["labels"], file["logits"], file["confidence_logits"])


def judge(predictor: Predictor, fields: LabelledFields, device: Device) -> Judged:
    """Let a predictor judge fields, in full precision."""
    predictor = predictor.to(device.torch_device).eval()
    logits, doubts = [], []
    for chosen in _batches(len(fields)):
        with torch.inference_mode():
            output = predictor(fields.batch(chosen).to(device.torch_device))
        logits.append(output.logits.float().cpu().numpy())
        doubts.append(output.needed_confidence().float().cpu().numpy())
    predictor.cpu()
    return Judged(fields.labels, np.concatenate(logits), np.concatenate(doubts))


def measures_of(judged: Judged) -> dict[str, Any]:
    """All measures of a predictor as nested mappings, NaN as None."""
    found = asdict(
        measure_predictor(
            judged.labels,
            judged.probabilities,
            judged.confidence,
            judged.confidence_logits.astype(np.float64),
        )
    )
    measures: dict[str, Any] = without_nan(found)
    return measures


def drop_of(predictor: Predictor, fields: LabelledFields, device: Device, *, seed: int) -> dict[str, Any]:
    """Drop in accuracy under Grad-CAM of the predicted class, beside that under the same maps elsewhere.

    Returns
    -------
    dict
        In percent of the accuracy, and in points.
    """
    predictor = predictor.to(device.torch_device).eval()

    def explained() -> Iterator[ExplainedBatch]:
        for chosen in _batches(len(fields)):
            batch = fields.batch(chosen).to(device.torch_device)
            with torch.inference_mode():
                classes = predictor(batch).logits.argmax(dim=1)
            maps = upsample_maps(grad_cam(predictor, batch, classes), (batch.shape[2], batch.shape[3]))
            lowest = maps.amin(dim=(1, 2), keepdim=True)
            span = maps.amax(dim=(1, 2), keepdim=True) - lowest
            scaled = ((maps - lowest) / torch.where(span > 0, span, 1)).clamp_(0, 1)
            labels = torch.from_numpy(fields.labels[chosen]).to(device.torch_device)
            yield ExplainedBatch(batch, labels, scaled)

    found = drop_in_accuracy(explained(), lambda some: predictor(some).logits, seed=seed)
    predictor.cpu()
    measures: dict[str, Any] = {"fields": found.fields, "accuracy": found.soft.whole}
    for name in ("soft", "soft_control", "half", "half_control"):
        masked = getattr(found, name)
        measures |= {f"{name}_percent": masked.drop_percent, f"{name}_points": masked.drop_points}
    nested: dict[str, Any] = without_nan(measures)
    return nested


@dataclass(frozen=True, slots=True, eq=False)
class Correlations:
    """How much representations of H&E resemble the IHC of the same fields: mean |r| of each field.

    Parameters
    ----------
    luminance, dab : (N,) float64
        With the brightness and with the DAB of the IHC image.
    hidden : (N,) float64
        Mean r between the hidden layers of both stains, with its sign: what the loss works on.
    control : (N,) float64
        As ``luminance``, with the IHC of another field: what remains where there is no relation.
    """

    luminance: NDArray[np.float64]
    dab: NDArray[np.float64]
    hidden: NDArray[np.float64]
    control: NDArray[np.float64]


def correlations_of(
    network: CorrANet,
    representations: NDArray[np.float16],
    he: NDArray[np.uint8],
    ihc: NDArray[np.uint8],
    device: Device,
) -> Correlations:
    """Compare what was made of H&E alone with the IHC of the same fields.

    Parameters
    ----------
    network : CorrANet
    representations : (N, d, f, f) float16
    he, ihc : (N, 3, f, f) uint8
    device : Device
    """
    network = network.to(device.torch_device).eval()
    count = len(representations)
    found: dict[str, list[NDArray[np.float64]]] = {"luminance": [], "dab": [], "hidden": [], "control": []}
    for chosen in _batches(count, 4):
        made = torch.from_numpy(np.array(representations[chosen], np.float32))
        stained, sections = (torch.from_numpy(np.array(fields[chosen])).float() / 255 for fields in (ihc, he))
        # Half of the fields away: neighbours in the list come from one slide.
        elsewhere = torch.from_numpy(np.array(ihc[(np.array(chosen) + count // 2) % count])).float() / 255
        with torch.inference_mode():
            # Without the decoders, which take most of the time of a whole pass.
            hidden_he = network.weigh_he(network.encode_he(network.stem(sections.to(device.torch_device))))
            hidden_ihc = network.weigh_ihc(network.encode_ihc(network.stem(stained.to(device.torch_device))))
        found["luminance"].append(mean_correlations(made, luminance(stained)).numpy())
        found["dab"].append(mean_correlations(made, dab_density(stained)).numpy())
        found["hidden"].append(channel_correlations(hidden_he, hidden_ihc).mean(dim=1).numpy())
        found["control"].append(mean_correlations(made, luminance(elsewhere)).numpy())
    network.cpu()
    return Correlations(**{name: np.concatenate(values) for name, values in found.items()})


def _batches(count: int, size: int = _AT_ONCE) -> Iterator[list[int]]:
    for first in range(0, count, size):
        yield list(range(first, min(first + size, count)))
