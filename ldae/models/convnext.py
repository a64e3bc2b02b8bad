"""A 2D ConvNeXt of any size (Liu et al. 2022), with torchvision's parameter names, so that its weights load."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldae.base.ranges import blocks, checked, count, not_negative
from ldae.errors import ConfigError

__all__ = ["ConvNeXt", "ConvNeXtConfig"]


@dataclass(frozen=True)
@checked
class ConvNeXtConfig:
    """Depth and width of each stage; the defaults are ConvNeXt-Small.

    Attributes:
        depths: residual blocks of each stage.
        widths: channels of each stage.
        stem: patch size of the first layer, pixels (4 in the paper; 2 suits coarse grids).
        layer_scale: initial scale of each residual branch.
    """

    depths: tuple[int, ...] = blocks((3, 3, 27, 3))
    widths: tuple[int, ...] = count((96, 192, 384, 768))
    stem: int = count(4)
    layer_scale: float = not_negative(1e-6)

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths) or not self.widths:
            msg = (
                f"depths and widths name the same stages, one or more, got {self.depths} and {self.widths}; change them"
            )
            raise ConfigError(msg)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Permute(nn.Module):
    """Reorder axes inside a sequence of layers."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """The permuted tensor."""
        return x.permute(*self.axes)


class Block(nn.Module):
    """Depthwise 7x7 convolution, layer norm, and a fourfold inverted bottleneck, scaled and added."""

    def __init__(self, width: int, layer_scale: float) -> None:
        super().__init__()
        # The indices of the parameters (0, 2, 3, 5) are torchvision's.
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            Permute(0, 2, 3, 1),
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            Permute(0, 3, 1, 2),
        )
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x + self.layer_scale * self.block(x)


class ConvNeXt(nn.Module):
    """Slices to feature vectors: (B, 1, H, W) to (B, widths[-1])."""

    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__()
        widths = config.widths
        layers: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(1, widths[0], config.stem, config.stem), ChannelNorm(widths[0], eps=1e-6))
        ]
        for index, (depth, width) in enumerate(zip(config.depths, widths, strict=True)):
            layers.append(nn.Sequential(*[Block(width, config.layer_scale) for _ in range(depth)]))
            if index + 1 < len(widths):
                layers.append(nn.Sequential(ChannelNorm(width, eps=1e-6), nn.Conv2d(width, widths[index + 1], 2, 2)))
        self.features = nn.Sequential(*layers)
        # The pooled vector's norm is the first layer of torchvision's classifier; its linear layer is left out.
        self.classifier = nn.Sequential(ChannelNorm(widths[-1], eps=1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """One vector a slice."""
        return self.classifier(self.features(x).mean(dim=(2, 3), keepdim=True)).flatten(1)
