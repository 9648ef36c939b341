"""Which device computes, and why: the reason is shown wherever the device is shown."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from napari_her2.errors import JobFailed
from napari_her2.inference.precision import BFLOAT16, device_precision, name_of, wanted_precision


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
        The lower precision in which features may be computed, None where there is none; see
        `napari_her2.inference.precision`. Whether it is used is decided per encoder, by comparison with
        float32 (`EncoderRunner`).
    insisted : bool
        Whether the user asked for that precision: an encoder that it does not suit is then refused.
    precision_reason : str
        Why that precision, in a few words; empty where nothing is said.
    """

    torch_device: torch.device
    name: str
    reason: str
    autocast_dtype: torch.dtype | None = None
    insisted: bool = False
    precision_reason: str = ""

    @property
    def precision_words(self) -> str:
        """In which precision features are computed, and why: "float32: this processor computes ..."."""
        name = name_of(self.autocast_dtype)
        if self.autocast_dtype is not None and not self.insisted:
            name += " where the encoder agrees"
        return f"{name}: {self.precision_reason}" if self.precision_reason else name

    def line(self, used: str, graph: str = "") -> str:
        """Return the device with the precision that was used and why, for a person.

        Parameters
        ----------
        used : str
            In which features were computed. The reason is left out where it is not that of the device: the
            encoder did not agree, or features were computed in several ways.
        graph : str
            How they were computed, where not layer by layer: "fused layers 1".

        Returns
        -------
        str
            "cpu (chosen by the user); features in float32: this processor computes bfloat16 no faster".
        """
        own = used == name_of(self.autocast_dtype) and self.precision_reason
        how = f"{used}, {graph}" if graph else used
        return f"{self.name}; features in {how}{f': {self.precision_reason}' if own else ''}"


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
        If a device, or a precision, was asked for by name and cannot be used.
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
    return _device(torch.device("cpu"), f"cpu ({reason})", reason)


def _cuda(number: int, reason: str) -> Device:
    device = torch.device("cuda", number)
    # TF32 would round float32 to three digits, convolutions by default: scores are told to more.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return _device(device, f"cuda:{number} ({torch.cuda.get_device_name(device)})", reason)


def _mps(reason: str) -> Device:
    return _device(torch.device("mps"), "mps (Apple GPU)", reason)


def _device(device: torch.device, name: str, reason: str) -> Device:
    precision, insisted = device_precision(device), wanted_precision() == BFLOAT16
    return Device(device, name, reason, precision.dtype, insisted, precision.reason)


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
