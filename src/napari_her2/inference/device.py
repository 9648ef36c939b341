"""Which device computes, and why: the reason is shown wherever the device is shown."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from napari_her2.errors import JobFailed

_NATIVE_BF16_CPU = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@dataclass(frozen=True, slots=True)
class Device:
    """The device that computes.

    Parameters
    ----------
    torch_device : torch.device
    name : str
        For a person: "cuda:0 (NVIDIA H200)", "cpu (no CUDA or MPS device found)".
    reason : str
        Why this one; for a CPU, why it is not a GPU.
    autocast_dtype : torch.dtype or None
        The lower precision that this device computes natively, None where there is none. Whether it
        is used is decided per encoder, by comparison with float32 (`EncoderRunner`).
    """

    torch_device: torch.device
    name: str
    reason: str
    autocast_dtype: torch.dtype | None = None


def choose_device(wanted: str = "auto") -> Device:
    """Choose the device to compute on.

    Parameters
    ----------
    wanted : str
        "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:1", "mps".

    Returns
    -------
    Device

    Raises
    ------
    JobFailed
        If a device was asked for by name and cannot be used.
    """
    wanted = wanted.strip().lower()
    if wanted == "auto":
        return _choose_automatically()
    if wanted == "cpu":
        return _cpu("chosen by the user")
    kind, _, number = wanted.partition(":")
    if kind not in ("cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise JobFailed(f"There is no device called {wanted!r}: use auto, cpu, cuda, cuda:0 or mps.")
    problem = _cuda_problem(int(number or 0)) if kind == "cuda" else _mps_problem()
    if problem is not None:
        raise JobFailed(
            f"{wanted} was asked for, but {problem}. Choose the device auto, or repair the set-up."
        )
    return _cuda(int(number or 0), "chosen by the user") if kind == "cuda" else _mps("chosen by the user")


def _choose_automatically() -> Device:
    cuda_problem = _cuda_problem(0)
    if cuda_problem is None:
        return _cuda(0, "a CUDA device was found")
    if _mps_problem() is None:
        return _mps("an Apple GPU was found")
    return _cpu(cuda_problem)


def _cpu(reason: str) -> Device:
    return Device(torch.device("cpu"), f"cpu ({reason})", reason, _cpu_autocast_dtype())


def _cuda(number: int, reason: str) -> Device:
    device = torch.device("cuda", number)
    # bfloat16 keeps the range of float32, so nothing overflows; it is native from compute capability 8.0 on.
    native_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
    dtype = torch.bfloat16 if native_bf16 else torch.float16
    return Device(device, f"cuda:{number} ({torch.cuda.get_device_name(device)})", reason, dtype)


def _mps(reason: str) -> Device:
    # float32 only: on Apple GPUs lower precision was never measured here, so it is not offered.
    return Device(torch.device("mps"), "mps (Apple GPU)", reason, None)


def _cuda_problem(number: int) -> str | None:
    """Why CUDA device ``number`` cannot be used, or None."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        if any("driver" in str(warning.message).lower() for warning in caught):
            return "the NVIDIA driver does not fit this PyTorch"
        if torch.version.cuda is None and torch.version.hip is None and not torch.backends.mps.is_built():
            return "this PyTorch was built without CUDA"
        return "no CUDA or MPS device found"
    if number >= torch.cuda.device_count():
        return f"there are only {torch.cuda.device_count()} CUDA devices, counted from 0"
    try:
        torch.zeros(1, device=torch.device("cuda", number)).add_(1).cpu()
    except RuntimeError as error:
        # Too old for this build, taken by another process, or out of memory already.
        return f"the GPU does not work with this PyTorch ({str(error).splitlines()[0]})"
    return None


def _mps_problem() -> str | None:
    """Why the Apple GPU cannot be used, or None."""
    if not torch.backends.mps.is_built():
        return "this PyTorch was built without MPS"
    return None if torch.backends.mps.is_available() else "no Apple GPU was found"


def _cpu_autocast_dtype() -> torch.dtype | None:
    """Return bfloat16 where the CPU has instructions for it: elsewhere it is emulated, and slower."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    # PyTorch tells this through functions that it does not promise to keep: absent means no.
    told = [getattr(torch.cpu, name, None) for name in _NATIVE_BF16_CPU]
    return torch.bfloat16 if any(ask is not None and ask() for ask in told) else None
