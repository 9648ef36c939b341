"""The losses of the MIL aggregators, each with that of its architecture, behind one call: `mil_loss`.

- Attention MIL, ABMIL and TransMIL: cross-entropy of the bag.
- CLAM (Lu et al., Nature Biomedical Engineering 2021, arXiv:2004.09666): cross-entropy of the bag and, for
  every class, of single tiles. Of the true class the B tiles with the most attention are to be "of the
  class" and the B with the least "not of it"; of each other class, since classes exclude each other, the B
  with the most attention are "not of it". Mean over the tiles of a class, then over the classes.
- DSMIL (Li, Li and Eliceiri, CVPR 2021, arXiv:2011.08939): both streams learn the label of the bag.

The loss of single tiles in CLAM may be the smooth top-1 SVM of Berrada, Zisserman and Kumar, Smooth loss
functions for deep top-k classification, ICLR 2018 (arXiv:1802.07595), with margin 1 and temperature t::

    l(s, y) = t logsumexp_j((s_j + [j != y] - s_y) / t)

Differences from the papers and the published code
--------------------------------------------------
- B is at most half of the tiles of the bag, so that no tile is both first and last; a bag of one tile has
  no loss of single tiles. The published code needs B tiles.
- Padded batches: the mean over their bags. All published code takes bag by bag.
- The smooth loss is computed by logsumexp throughout, which does not overflow; the published code changes
  to the hard loss where the exponential would.
- DSMIL: cross-entropy over classes that exclude each other by default; ``exclusive=False`` is the published
  binary cross-entropy of each class by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional as F

from napari_her2.errors import JobFailed
from napari_her2.models.clam import CLAMOutput
from napari_her2.models.dsmil import DSMILOutput
from napari_her2.models.nystrom import at_least_float32
from napari_her2.models.pooling import of_class

if TYPE_CHECKING:
    from torch import Tensor

    from napari_her2.models.aggregator import MILOutput

InstanceLoss = Literal["svm", "cross-entropy"]

SAMPLED = 8
NOT_OF_CLASS, OF_CLASS = 0, 1


@dataclass(frozen=True, slots=True)
class MILLossOptions:
    """Choices of the losses; the defaults are what was published, but for ``exclusive``.

    Parameters
    ----------
    bag_weight : float, default 0.7
        CLAM: share of the bag in the loss, the rest is that of single tiles.
    sampled : int, default 8
        CLAM: tiles of the most and of the least attention that are sampled, B.
    instance_loss : {"svm", "cross-entropy"}, default "svm"
        CLAM: loss of single tiles, the smooth top-1 SVM with margin and temperature 1 or cross-entropy.
    subtyping : bool, default True
        CLAM: classes exclude each other, so that other classes learn from the bag too.
    stream_weight : float, default 0.5
        DSMIL: share of the bag stream, the rest is that of the largest scores.
    exclusive : bool, default True
        DSMIL: cross-entropy over exclusive classes; False: each class by itself, as published. Read the
        answer of such a model through a sigmoid.
    """

    bag_weight: float = 0.7
    sampled: int = SAMPLED
    instance_loss: InstanceLoss = "svm"
    subtyping: bool = True
    stream_weight: float = 0.5
    exclusive: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class MILLossTerms:
    """The loss and its parts, each before its weight.

    Parameters
    ----------
    total : () float
        What to minimise.
    bag : () float
        Of the bag's logits.
    instance : () float or None
        Of single tiles (CLAM) or of the largest scores (DSMIL); None where the architecture has none, or no
        bag has two tiles.
    """

    total: Tensor
    bag: Tensor
    instance: Tensor | None = None


def mil_loss(output: MILOutput, labels: Tensor, options: MILLossOptions | None = None) -> MILLossTerms:
    """Loss of the architecture that gave this output.

    Parameters
    ----------
    output : MILOutput
        Of one bag, or of a batch of B.
    labels : () or (B,) int64
        Classes.
    options : MILLossOptions, optional

    Raises
    ------
    JobFailed
        If there is not one label for each bag.
    """
    options = options or MILLossOptions()
    if labels.shape != output.logits.shape[:-1]:
        raise JobFailed(
            f"Labels of shape {tuple(labels.shape)} do not fit logits of shape "
            f"{tuple(output.logits.shape)}: give one class for each bag."
        )
    if isinstance(output, CLAMOutput):
        return _clam_terms(output, labels, options)
    if isinstance(output, DSMILOutput):
        return _dsmil_terms(output, labels, options)
    bag = _cross_entropy(output.logits, labels)
    return MILLossTerms(total=bag, bag=bag)


def smooth_top1_svm(
    scores: Tensor, labels: Tensor, *, margin: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """Smooth multi-class hinge loss, mean over the rows.

    Parameters
    ----------
    scores : (N, C) float
    labels : (N,) int64
    margin : float, default 1
        By how much the true score must be the largest.
    temperature : float, default 1
        Towards 0 it becomes the hinge loss.

    Returns
    -------
    () float
        Never below 0.
    """
    scores = at_least_float32(scores)
    true = scores.gather(-1, labels.unsqueeze(-1))
    margins = margin * (1 - F.one_hot(labels, scores.shape[-1]).to(scores.dtype))
    return (temperature * ((scores + margins - true) / temperature).logsumexp(dim=-1)).mean()


def clam_instance_loss(
    output: CLAMOutput, labels: Tensor, options: MILLossOptions | None = None
) -> Tensor | None:
    """Loss of CLAM's classifiers of single tiles, mean over the bags.

    Parameters
    ----------
    output : CLAMOutput
    labels : () or (B,) int64
    options : MILLossOptions, optional

    Returns
    -------
    () float or None
        None where no bag has two tiles.
    """
    options = options or MILLossOptions()
    scores, instances = output.branch_scores, output.instances
    if labels.ndim == 0:
        scores, instances, labels = scores[None], instances[None], labels[None]
    bags = [_instances_of_bag(*bag, options) for bag in zip(scores, instances, labels.tolist(), strict=True)]
    given = [loss for loss in bags if loss is not None]
    return torch.stack(given).mean() if given else None


def _instances_of_bag(
    scores: Tensor, instances: Tensor, label: int, options: MILLossOptions
) -> Tensor | None:
    """Loss of one bag: scores (K, H), instances (K, C, 2)."""
    there = scores[:, 0] > -torch.inf
    # Which tiles are sampled is no matter of degree: nothing flows back through the choice.
    scores, instances = scores.detach()[there], instances[there]
    sampled = min(options.sampled, len(scores) // 2)
    if sampled == 0:
        return None
    classes = instances.shape[1]
    losses = []
    for number in range(classes):
        if number != label and not options.subtyping:
            continue
        order = of_class(scores, torch.tensor(number, device=scores.device)).argsort(descending=True)
        chosen = order[:sampled]
        wanted = [OF_CLASS if number == label else NOT_OF_CLASS] * sampled
        if number == label:
            chosen = torch.cat([chosen, order[-sampled:]])
            wanted += [NOT_OF_CLASS] * sampled
        targets = torch.tensor(wanted, device=scores.device)
        losses.append(_instance_loss(instances[chosen, number], targets, options.instance_loss))
    return torch.stack(losses).sum() / (classes if options.subtyping else 1)


def _instance_loss(logits: Tensor, targets: Tensor, kind: InstanceLoss) -> Tensor:
    return smooth_top1_svm(logits, targets) if kind == "svm" else _cross_entropy(logits, targets)


def _clam_terms(output: CLAMOutput, labels: Tensor, options: MILLossOptions) -> MILLossTerms:
    bag = _cross_entropy(output.logits, labels)
    instance = clam_instance_loss(output, labels, options)
    total = options.bag_weight * bag
    if instance is not None:
        total = total + (1 - options.bag_weight) * instance
    return MILLossTerms(total=total, bag=bag, instance=instance)


def _dsmil_terms(output: DSMILOutput, labels: Tensor, options: MILLossOptions) -> MILLossTerms:
    stream = _cross_entropy if options.exclusive else _each_class
    bag, instance = stream(output.bag_logits, labels), stream(output.maxima, labels)
    total = options.stream_weight * bag + (1 - options.stream_weight) * instance
    return MILLossTerms(total=total, bag=bag, instance=instance)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(at_least_float32(logits), labels)


def _each_class(logits: Tensor, labels: Tensor) -> Tensor:
    logits = at_least_float32(logits)
    wanted = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, wanted)
