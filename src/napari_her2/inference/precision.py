"""In which precision numbers are computed: what is wanted is decided here, for scoring and training alike.

Features of a frozen encoder may be computed in lower precision where the device has instructions for it and
the encoder agrees with itself in float32 (`napari_her2.inference.encode`). Scores are never: what models say
of tiles, fields, patches and small images, slide models over features, and Grad-CAM are float32 everywhere.

The environment variable NAPARI_HER2_PRECISION forces the precision of features:

- ``auto``, or not set: bfloat16 where it is faster and agrees, which is on GPUs that have it and on CPUs with
  AMX; float16 on GPUs without bfloat16; else float32.
- ``float32``: always, also for networks that learn on a GPU.
- ``bfloat16``: on any CPU and on GPUs that know it; slower on a CPU without AMX. An encoder that it does not
  suit is refused.

On a CPU what the processor has decides, never a clock, so that one machine always gives the same numbers.
AVX512-BF16 alone does not count: three of four encoders took 1.15 to 1.41 times as long as in float32. On
ARM, where PyTorch knows instructions for bfloat16 too, nothing was measured: float32.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from napari_her2.errors import JobFailed
from napari_her2.inference.wish import wish

VARIABLE = "NAPARI_HER2_PRECISION"
AUTO, FLOAT32, BFLOAT16 = CHOICES = ("auto", "float32", "bfloat16")
_ARM = ("arm", "aarch64")


@dataclass(frozen=True, slots=True)
class Precision:
    """In which precision a device computes features, and why.

    Parameters
    ----------
    dtype : torch.dtype or None
        The lower precision; None: float32 alone.
    reason : str
        For a person, in a few words.
    """

    dtype: torch.dtype | None
    reason: str


def wanted_precision() -> str:
    """Return what the user wants.

    Returns
    -------
    str
        One of `CHOICES`.

    Raises
    ------
    JobFailed
        If the environment variable says something else.
    """
    return wish(VARIABLE, CHOICES, "precision")


def device_precision(device: torch.device) -> Precision:
    """Return in which precision features may be computed on a device.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    Precision

    Raises
    ------
    JobFailed
        If one was asked for that the device does not offer.
    """
    wanted = wanted_precision()
    if wanted == FLOAT32:
        return Precision(None, "chosen by the user")
    if device.type == "mps":
        if wanted == BFLOAT16:
            raise JobFailed(
                f"bfloat16 was asked for ({VARIABLE}), but is not offered on an Apple GPU: set it to auto, "
                f"or choose the device cpu."
            )
        return Precision(None, "lower precision was never measured on Apple GPUs")
    if wanted == BFLOAT16:
        return Precision(torch.bfloat16, "chosen by the user")
    if device.type == "cuda":
        # bfloat16 keeps the range of float32, so nothing overflows; native from compute capability 8.0 on.
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return Precision(torch.bfloat16, "this GPU has it")
        return Precision(torch.float16, "this GPU has no bfloat16")
    return _cpu_precision()


def name_of(dtype: torch.dtype | None) -> str:
    """Return the name of a precision: "float32" for None."""
    return FLOAT32 if dtype is None else str(dtype).removeprefix("torch.")


def joined(precisions: list[str]) -> str:
    """Return the precision of several slides: one word, unless memory was short for one of them."""
    return " and ".join(sorted(set(precisions)))


def other_precision(learnt: str | None, used: str) -> str:
    """Warn of features in another precision than a model learnt from.

    Parameters
    ----------
    learnt : str or None
        What the card says; None where it says nothing.
    used : str

    Returns
    -------
    str
        A sentence; empty where there is nothing to say.
    """
    if learnt is None or learnt == used:
        return ""
    advice = (
        f"set {VARIABLE} to {learnt}, which may be slower here"
        if learnt in CHOICES
        else "score on a device like that of training"
    )
    return (
        f"The model learnt from features computed in {learnt}, those of this slide were computed in {used}: "
        f"probabilities may differ a little. To have them alike, {advice}."
    )


def _cpu_precision() -> Precision:
    """Choose bfloat16 where the processor is faster in it."""
    if platform.machine().lower().startswith(_ARM):
        return Precision(None, "bfloat16 was never measured on ARM processors")
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return Precision(None, "this PyTorch lacks oneDNN, which computes bfloat16")
    if _has_amx():
        return Precision(torch.bfloat16, "this processor has AMX")
    return Precision(None, "this processor computes bfloat16 no faster")


def _has_amx() -> bool:
    """Whether the processor has AMX, and the operating system allows its use.

    PyTorch answers this by functions that it does not promise to keep: absent means no. Where the system
    does not allow it, as in some containers, oneDNN computes by AVX512-BF16 without a word.
    """
    answers = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_init_amx")]
    return all(answer is not None and answer() for answer in answers)
