"""Perceptual terms of the compression loss; one that needs no download, and pretrained ones from a local file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from monai.losses import JukeboxLoss, PerceptualLoss
from torch import nn

from ldae.errors import ConfigError, DependencyError
from ldae.io.checkpoints import load_tensors

__all__ = ["PerceptualConfig", "build_perceptual"]


@dataclass(frozen=True)
class PerceptualConfig:
    """Which features two images are compared in.

    Attributes:
        kind: `none`; `spectral`, the amplitude of the Fourier transform (Dhariwal et al. 2020), which needs no weights;
            `medicalnet`, a 3D network (Chen et al. 2019); or `lpips`, a 2D one over slices (Zhang et al. 2018; the extra
            ldae[lpips]).
        weight: of the term.
        weights: file of the pretrained network; without it the network's own loader looks in torch's cache and then
            downloads.
    """

    kind: Literal["none", "spectral", "medicalnet", "lpips"] = "none"
    weight: float = 1e-3
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not Path(self.weights).is_file():
            msg = f"perceptual weights {self.weights}: no such file; give the path of the downloaded weights"
            raise ConfigError(msg)


def build_perceptual(config: PerceptualConfig) -> nn.Module | None:
    """A module of two batches of scans, (B, 1, D, H, W), float32, to a scalar; None for kind `none`.

    Raises:
        DependencyError: if the pretrained network cannot be had, naming what to install or to give.
    """
    if config.kind == "none" or config.weight == 0:
        return None
    if config.kind == "spectral":
        spectral: nn.Module = JukeboxLoss(spatial_dims=3)
        return spectral
    network = {"medicalnet": "medicalnet_resnet10_23datasets", "lpips": "alex"}[config.kind]
    try:
        loss: nn.Module = PerceptualLoss(
            spatial_dims=3,
            network_type=network,
            is_fake_3d=config.kind == "lpips",
            fake_3d_ratio=0.25,
            pretrained=config.weights is None,
        )
        if config.weights is not None:
            _load_weights(loss, Path(config.weights))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        remedy = (
            "install 'ldae[lpips]' and give compression.loss.perceptual.weights"
            if config.kind == "lpips"
            else "give compression.loss.perceptual.weights, a local file"
        )
        msg = f"the perceptual network {network} cannot be loaded ({reason}); {remedy}, or choose kind 'spectral'"
        raise DependencyError(msg) from error
    return loss.eval().requires_grad_(False)


def _load_weights(loss: nn.Module, path: Path) -> None:
    state: Any
    if path.suffix == ".safetensors":
        state, _ = load_tensors(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    wrapped: Any = loss.perceptual_function
    target = getattr(wrapped, "model", wrapped)
    target.load_state_dict(state, strict=True)
