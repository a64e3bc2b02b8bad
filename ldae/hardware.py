"""Where a network runs and in which precision; chosen once."""

from typing import Literal, TypeVar

import torch
from torch import nn

from ldae.errors import ConfigError

__all__ = ["Device", "Precision", "channels_last", "choose_device", "choose_precision", "has_bf16"]

Network = TypeVar("Network", bound=nn.Module)
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]


def choose_device(device: Device = "auto") -> torch.device:
    """The device to run on; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: if the device asked for is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(device, False):
        present = ", ".join(name for name, there in available.items() if there)
        msg = f"device {device!r} is not available to this torch ({torch.__version__}), which has {present}; use --device auto"
        raise ConfigError(msg)
    return torch.device(device)


def channels_last(module: Network) -> Network:
    """Lay a 3D network's weights out channels-last, in which CPUs and GPUs convolve fastest; returns the module."""
    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return module


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported and supported())
    return False


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix work under autocast: bfloat16 or float32. fp16 is not offered: it overflows in the decoder."""
    if precision == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    if precision not in ("fp32", "bf16"):
        msg = f"precision must be auto, fp32 or bf16, got {precision!r}"
        raise ConfigError(msg)
    return torch.bfloat16 if precision == "bf16" else torch.float32
