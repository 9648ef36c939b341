"""JPEG tiles decoded on the GPU, into its memory, by nvJPEG: a choice of the user.

The environment variable NAPARI_HER2_JPEG says who decodes the tiles that an encoder takes:

- ``cpu``, or not set: the processor, in as many threads as there are cores.
- ``gpu``: nvJPEG, where an NVIDIA GPU computes and the slide holds JPEG. The processor still reads every tile
  through at an eighth of its size, so that damage is found and reported as ever.

nvJPEG rounds otherwise than libjpeg-turbo, by a level or two of 255. Where it differs by more on tiles of the
slide itself (as it might where a scanner stores RGB and does not say so), the processor decodes that slide.
Whether it is faster was not measured: no GPU was at hand when this was written.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from napari_her2.errors import JobFailed
from napari_her2.inference.wish import wish

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE = "NAPARI_HER2_JPEG"
CPU, GPU = CHOICES = ("cpu", "gpu")
NVJPEG = "tiles decoded by nvJPEG"
_decoding = threading.Lock()  # nothing says that a decoder may be used by two threads at once
_SMOOTH_CHROMA = ":fancy_upsampling=1"  # as libjpeg-turbo does it


def wanted_decoder() -> str:
    """Return who is to decode.

    Returns
    -------
    str
        One of `CHOICES`.

    Raises
    ------
    JobFailed
        If the environment variable says something else.
    """
    return wish(VARIABLE, CHOICES, "decoder of JPEG")


def gpu_decodes(device: torch.device) -> bool:
    """Whether JPEG is decoded on a device.

    Parameters
    ----------
    device : torch.device

    Raises
    ------
    JobFailed
        If that was asked for, and nvImageCodec is not installed.
    """
    if wanted_decoder() == CPU or device.type != "cuda":
        return False
    if not _installed():
        raise JobFailed(
            f"JPEG tiles were to be decoded on the GPU ({VARIABLE}), but nvImageCodec is not installed: "
            f"`pip install 'napari-her2[nvjpeg]'`, or set it to cpu."
        )
    return True


def decoding_words(device: torch.device) -> str:
    """Who decodes JPEG tiles, and why, for a person."""
    if device.type != "cuda":
        return "by the processor"
    if wanted_decoder() == CPU:
        return f"by the processor ({VARIABLE}=gpu lets the GPU do it)"
    return (
        "by the GPU, where it agrees"
        if _installed()
        else f"{VARIABLE}=gpu, but nvImageCodec is not installed"
    )


def decode_pictures(pictures: Sequence[bytes], device: torch.device) -> list[torch.Tensor | None]:
    """Decode JPEGs into the memory of a device.

    Parameters
    ----------
    pictures : sequence of bytes
    device : torch.device
        A CUDA device; or the CPU, where the same library decodes by libjpeg-turbo.

    Returns
    -------
    list of (height, width, 3) uint8 or None
        None of what could not be decoded.
    """
    from nvidia import nvimgcodec

    decoder = _decoder(device)
    how = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    # The bytes have to outlive their decoding.
    streams = [nvimgcodec.CodeStream(picture) for picture in pictures]
    with _decoding:
        found = decoder.decode(streams, params=how, cuda_stream=stream)
    # What lies in the memory of the processor is not given away by DLPack where there is no driver.
    given = from_dlpack if device.type == "cuda" else _from_host
    return [None if image is None else given(image) for image in found]


def _from_host(image: Any) -> torch.Tensor:  # noqa: ANN401 - of a library without types
    return torch.from_numpy(np.asarray(image))


@lru_cache(maxsize=8)
def _decoder(device: torch.device) -> Any:  # noqa: ANN401 - of a library without types
    from nvidia import nvimgcodec

    if device.type == "cuda":
        return nvimgcodec.Decoder(device_id=device.index or 0, options=_SMOOTH_CHROMA)
    backend = nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)
    return nvimgcodec.Decoder(
        device_id=nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, backends=[backend], options=_SMOOTH_CHROMA
    )


def _installed() -> bool:
    return find_spec("nvidia") is not None and find_spec("nvidia.nvimgcodec") is not None
