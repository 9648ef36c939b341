"""In which precision numbers are computed: what is wanted is decided here, for scoring and training alike.

Features of a frozen encoder may be computed in lower precision where the device has instructions for it and
the encoder agrees with itself in float32 (`napari_her2.inference.encode`). Scores are never: what models say
of tiles, fields, patches and small images, slide models over features, and Grad-CAM are float32 everywhere.

The environment variable NAPARI_HER2_PRECISION forces the precision of features:

- ``auto``, or not set: bfloat16 where the processor has it natively and it agrees, else float32; float16 on
  GPUs without bfloat16.
- ``float32``: always, also for networks that learn on a GPU.
- ``bfloat16``: on any CPU and on GPUs that know it; emulated, and slower, on a CPU without instructions for
  it. An encoder that it does not suit is refused.
"""

from __future__ import annotations

import os

import torch

from napari_her2.errors import JobFailed

VARIABLE = "NAPARI_HER2_PRECISION"
AUTO, FLOAT32, BFLOAT16 = CHOICES = ("auto", "float32", "bfloat16")
_NATIVE_BF16_CPU = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


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
    wanted = os.environ.get(VARIABLE, "").strip().lower() or AUTO
    if wanted not in CHOICES:
        raise JobFailed(f"There is no precision {wanted!r:.40}: set {VARIABLE} to {', '.join(CHOICES)}.")
    return wanted


def lower_precision(device: torch.device) -> torch.dtype | None:
    """Return the lower precision in which features may be computed on a device.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    torch.dtype or None
        None: float32 alone.

    Raises
    ------
    JobFailed
        If one was asked for that the device does not offer.
    """
    wanted = wanted_precision()
    if wanted == FLOAT32:
        return None
    if device.type == "mps":
        # Lower precision was never measured on Apple GPUs, so it is not offered.
        if wanted == BFLOAT16:
            raise JobFailed(
                f"bfloat16 was asked for ({VARIABLE}), but is not offered on an Apple GPU: set it to auto, "
                f"or choose the device cpu."
            )
        return None
    if wanted == BFLOAT16:
        return torch.bfloat16
    if device.type == "cuda":
        # bfloat16 keeps the range of float32, so nothing overflows; native from compute capability 8.0 on.
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if _cpu_knows_bfloat16() else None


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
    advice = f"set {VARIABLE} to {learnt}" if learnt in CHOICES else "score on a device like that of training"
    return (
        f"The model learnt from features computed in {learnt}, those of this slide were computed in {used}: "
        f"probabilities may differ a little. To have them alike, {advice}."
    )


def _cpu_knows_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16: elsewhere it is emulated, and slower."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # PyTorch tells this through functions that it does not promise to keep: absent means no.
    asked = [getattr(torch.cpu, name, None) for name in _NATIVE_BF16_CPU]
    return any(ask is not None and ask() for ask in asked)
