"""The loss that teaches a predictor its class and, from hints, its confidence.

Dutta et al. 2025 (Corr-A-Net), after DeVries and Taylor 2018 (arXiv:1802.04865). For a field with
probabilities p, label y and confidence c, a hint moves the prediction towards the label as far as the model
lacks confidence, and lacking confidence has a price::

    p' = c p + (1 - c) onehot(y)
    total = mean_w(-log p'_y) + lambda mean(-log c)

``mean_w`` weighs every field by the weight of its class. Hints are given for a random half of each batch;
the others learn from p alone, so that the model cannot learn to live on hints. After each batch lambda falls
where the price was below its budget, and rises where it was above: without this c tends to 1 or 0 for all.

Predictions are always judged by p, never by p'.

Differences from the paper
--------------------------
- Half of the batch, the budget and the first lambda are those of DeVries and Taylor; the paper is silent.
- From log-probabilities by logaddexp and softplus: exact where p or c underflows, and no clamp, whose
  gradient would vanish there.
- lambda stays within `LAMBDA_RANGE`, where a long run could take it to zero or to infinity.
- A class that does not occur weighs nothing; a batch of such fields alone has no loss.

Differences from the published code
-----------------------------------
- There, the focal loss (here ``focal=2``) in scripts for IHC, plain cross-entropy in others, no confidence
  in most; and lambda does not accumulate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from napari_her2.errors import JobFailed
from napari_her2.models.nystrom import at_least_float32

if TYPE_CHECKING:
    from torch import Tensor

    from napari_her2.models.predictors import PredictorOutput

LAMBDA_RANGE = (1e-6, 1e6)
_FALL, _RISE = 1 / 1.01, 1 / 0.99


@dataclass(frozen=True, slots=True)
class PredictorLossOptions:
    """Choices of the loss.

    Parameters
    ----------
    first_lambda : float, default 0.1
        Weight of the price of lacking confidence, at the start; 0 leaves the confidence network out.
    budget : float or None, default 0.3
        What lacking confidence may cost on average; None keeps lambda as it is.
    hinted : float, default 0.5
        Share of fields that are given a hint.
    focal : float, default 0
        Exponent gamma of the focal loss (Lin et al. 2017, arXiv:1708.02002), 0 or at least 1.

    Raises
    ------
    JobFailed
        If a number is out of its bounds.
    """

    first_lambda: float = 0.1
    budget: float | None = 0.3
    hinted: float = 0.5
    focal: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.first_lambda <= LAMBDA_RANGE[1]:
            raise JobFailed(f"The first lambda is from 0 to {LAMBDA_RANGE[1]:g}, not {self.first_lambda}.")
        if self.budget is not None and not self.budget > 0:
            raise JobFailed(
                f"The budget of confidence is above 0, not {self.budget}: leave it out to have none."
            )
        if not 0 <= self.hinted <= 1:
            raise JobFailed(f"The share of hinted fields is from 0 to 1, not {self.hinted}.")
        if self.focal != 0 and not self.focal >= 1:
            # Between the two the gradient is infinite for a field that is surely right.
            raise JobFailed(f"The focal exponent is 0 or at least 1, not {self.focal}.")


@dataclass(frozen=True, slots=True, eq=False)
class PredictorLossTerms:
    """The loss and its parts.

    Parameters
    ----------
    total : () float
        What to minimise.
    classification : () float
        Weighted cross-entropy, or focal loss, of the predictions with their hints.
    confidence : () float
        Mean of -log c over all fields, ahead of lambda.
    """

    total: Tensor
    classification: Tensor
    confidence: Tensor


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights in inverse proportion to how often the classes occur in training.

    Parameters
    ----------
    labels : (N,) int64
    classes : int
        C.

    Returns
    -------
    (C,) float32
        Sum 1; 0 for a class that does not occur.

    Raises
    ------
    JobFailed
        If there is no label, or one beyond the classes.

    Examples
    --------
    >>> class_weights(torch.tensor([0, 0, 0, 2]), 3)
    tensor([0.2500, 0.0000, 0.7500])
    """
    if len(labels) == 0:
        raise JobFailed("There is no field to train on: check the manifest and its split.")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise JobFailed(f"A label lies outside the {classes} classes: check the scores of the manifest.")
    counts = torch.bincount(labels, minlength=classes).double()
    inverse = torch.where(counts > 0, 1 / counts, 0.0)
    return (inverse / inverse.sum()).float()


def draw_hints(
    fields: int, options: PredictorLossOptions | None = None, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw which fields of a batch are given a hint, each by itself.

    Parameters
    ----------
    fields : int
        B.
    options : PredictorLossOptions, optional
    generator : torch.Generator, optional
        Its device is that of the result.

    Returns
    -------
    (B,) bool
    """
    options = options or PredictorLossOptions()
    device = "cpu" if generator is None else generator.device
    return torch.rand(fields, generator=generator, device=device) < options.hinted


def predictor_loss(
    output: PredictorOutput,
    labels: Tensor,
    lambda_: Tensor | float,
    *,
    hinted: Tensor | None = None,
    weights: Tensor | None = None,
    options: PredictorLossOptions | None = None,
) -> PredictorLossTerms:
    """Loss of a batch.

    Parameters
    ----------
    output : PredictorOutput
        Of B fields and C classes.
    labels : (B,) int64
    lambda_ : () float
        Present weight of the price of lacking confidence.
    hinted : (B,) bool, optional
        Which fields are given a hint (`draw_hints`); none if left out, as in validation.
    weights : (C,) float, optional
        Of the classes (`class_weights`); equal if left out.
    options : PredictorLossOptions, optional
    """
    options = options or PredictorLossOptions()
    log_p = at_least_float32(output.logits).log_softmax(dim=-1)
    log_right = log_p.gather(1, labels[:, None]).squeeze(1)
    doubt = at_least_float32(output.needed_confidence())
    price = F.softplus(-doubt)  # -log c
    if hinted is not None:
        moved = torch.logaddexp(log_right - price, -F.softplus(doubt))
        # Rounding may take p' just above 1, and so its loss below 0.
        log_right = torch.where(hinted.to(labels.device), moved.clamp_max(0), log_right)
    lost = -log_right
    if options.focal:
        lost = lost * (-torch.expm1(log_right)) ** options.focal
    of_field = lost.new_ones(len(lost)) if weights is None else weights.to(lost)[labels]
    smallest = torch.finfo(lost.dtype).tiny
    classification = (of_field * lost).sum() / of_field.sum().clamp_min(smallest)
    confidence = price.mean()
    return PredictorLossTerms(
        total=classification + lambda_ * confidence, classification=classification, confidence=confidence
    )


def next_lambda(lambda_: Tensor, confidence: Tensor, options: PredictorLossOptions | None = None) -> Tensor:
    """Weight of the price of lacking confidence for the next batch.

    Parameters
    ----------
    lambda_ : () float
        That of this batch. Keep it with the model's state: a run that resumes needs it.
    confidence : () float
        `PredictorLossTerms.confidence` of this batch.
    options : PredictorLossOptions, optional

    Returns
    -------
    () float
        Without gradient, on the device of ``lambda_``; nothing is copied to the CPU.
    """
    options = options or PredictorLossOptions()
    with torch.no_grad():
        if options.budget is None or options.first_lambda == 0:
            return lambda_.clone()
        cheap = confidence.to(lambda_) < options.budget
        return (lambda_ * torch.where(cheap, _FALL, _RISE)).clamp(*LAMBDA_RANGE)
