"""Building blocks of the ADM-family UNets (Dhariwal and Nichol 2021): group norms, resampling, attention."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "GroupNorm",
    "ResidualBlock",
    "SelfAttention",
    "group_moments",
    "group_norm",
    "timestep_embedding",
    "zero_init",
]

Stride = tuple[int, int, int]

PIECE = 1 << 15
"""Voxels that are summed in float32 before their sum is added in float64."""


class GroupNorm(nn.GroupNorm):
    """Group norm that is right for channels-last volumes on the CPU too.

    There torch 2.13 sums a whole group in float32, one value after the other: over groups of millions of voxels it is off by
    1e-3. Other devices, layouts and types are torch's own; so is compiled code, which sums in another way.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same."""
        channels_last = x.ndim == 5 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last_3d)
        exact = x.device.type == "cpu" and x.dtype == torch.float32 and channels_last
        if not exact or torch.compiler.is_compiling():
            return super().forward(x)
        normalised: Tensor = _ExactGroupNorm.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.num_groups, self.eps
        )
        return normalised


class _ExactGroupNorm(torch.autograd.Function):
    """Forward with :func:`group_moments`, backward by torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        mean, variance = group_moments([x], groups)
        rstd = (variance + eps).rsqrt()
        ctx.save_for_backward(x, mean.float(), rstd.float(), weight)
        ctx.groups = groups
        each = x.shape[1] // groups
        scale = rstd.repeat_interleave(each, dim=1) * weight
        shift = bias - mean.repeat_interleave(each, dim=1) * scale
        return torch.addcmul(_spread(shift), x, _spread(scale))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last_3d)
        sizes = (*x.shape[:2], x[0, 0].numel(), ctx.groups)
        # All three gradients at once: torch crashes where the input's is not asked for.
        found = torch.ops.aten.native_group_norm_backward(gradient, x, mean, rstd, weight, *sizes, [True, True, True])
        return *found, None, None


def group_moments(parts: Iterable[Tensor], groups: int) -> Tensor:
    """Mean and variance of each group of a feature map, (2, B, groups), float64.

    Args:
        parts: of the feature map along a spatial axis, (B, C, d, h, w) each, in any layout.
        groups: of its channels.
    """
    sums, count, first = torch.zeros(()), 0, torch.zeros(())
    for part in parts:
        rows = part.permute(0, 2, 3, 4, 1).flatten(1, 3)
        first = first if count else rows[:, :1].float()  # less a value of each channel, a large mean costs no digits
        count += rows.shape[1]
        for piece in torch.split(rows, PIECE, dim=1):
            values = piece.float() - first
            sums = sums + torch.stack([values.sum(dim=1), values.square().sum(dim=1)]).double()
    shifted, square = sums / count
    means = (shifted + first[:, 0]).unflatten(1, (groups, -1))
    within = (square - shifted.square()).unflatten(1, (groups, -1))
    mean = means.mean(dim=2)
    return torch.stack([mean, (within + (means - mean[..., None]).square()).mean(dim=2).clamp_min(0.0)])


def _spread(each: Tensor) -> Tensor:
    """Values for each channel, (B, C), as float32 that broadcasts over volumes."""
    return each.float()[:, :, None, None, None]


def zero_init(module: nn.Conv3d | nn.Linear) -> nn.Conv3d | nn.Linear:
    """Zero a layer's parameters, so that its residual branch starts as the identity."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def group_norm(channels: int) -> GroupNorm:
    """Group norm with 32 groups, or as many as divide the channels."""
    return GroupNorm(math.gcd(32, channels), channels)


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of timesteps (Vaswani et al. 2017), cosines first.

    Args:
        t: timesteps, (B,).
        width: of the embedding, even.

    Returns:
        (B, width), float32.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResidualBlock(nn.Module):
    """Residual block with adaptive group norm from the time embedding and, if given one, from the semantic code.

    out = skip(x) + conv(dropout(silu(a_y * (a_t * norm(h) + b_t) + b_y))), with (a, b) = (1 + scale, shift) a linear map of
    the embedding (Zhang et al. 2022 for the second one). A block may resample: average pooling by `stride` on the way
    down, nearest neighbour on the way up.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        embedding_width: width of the time embedding.
        dropout: probability.
        semantic_width: width of the embedded semantic code; None leaves it out.
        down_stride: pool the input by this much.
        up: whether the output is resized to the `size` given to forward.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        *,
        dropout: float = 0.0,
        semantic_width: int | None = None,
        down_stride: Stride | None = None,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.down_stride = down_stride
        self.up = up
        self.norm_in = group_norm(in_channels)
        self.conv_in = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.time_projection = nn.Linear(embedding_width, 2 * out_channels)
        self.semantic_projection = None if semantic_width is None else nn.Linear(semantic_width, 2 * out_channels)
        self.norm_out = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_init(nn.Conv3d(out_channels, out_channels, 3, padding=1))
        self.skip: nn.Module = nn.Identity() if in_channels == out_channels else nn.Conv3d(in_channels, out_channels, 1)

    def forward(
        self, x: Tensor, embedding: Tensor, semantic: Tensor | None = None, size: Sequence[int] | None = None
    ) -> Tensor:
        """Apply the block.

        Args:
            x: features, (B, C, d, h, w).
            embedding: time embedding, (B, E).
            semantic: embedded semantic code, (B, semantic width), for blocks built with a semantic width.
            size: spatial size to reach, for blocks that go up.
        """
        h = F.silu(self.norm_in(x))
        if self.down_stride is not None:
            h, x = (F.avg_pool3d(each, self.down_stride, self.down_stride) for each in (h, x))
        elif self.up:
            h, x = (F.interpolate(each, size=tuple(size or ()), mode="nearest") for each in (h, x))
        h = modulate(self.norm_out(self.conv_in(h)), self.time_projection(F.silu(embedding)))
        if self.semantic_projection is not None and semantic is not None:
            h = modulate(h, self.semantic_projection(F.silu(semantic)))
        h = self.conv_out(self.dropout(F.silu(h)))
        return self.skip(x) + h


def modulate(h: Tensor, scale_and_shift: Tensor) -> Tensor:
    """(1 + scale) * h + shift, each channel its own; (B, C, d, h, w) and (B, 2C)."""
    scale, shift = scale_and_shift[:, :, None, None, None].chunk(2, dim=1)
    return h * (1.0 + scale) + shift


class SelfAttention(nn.Module):
    """Self-attention over all voxels, with a residual connection.

    Queries, keys and values of one head lie together in the projection's output.

    Args:
        channels: of the features.
        heads: attention heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.projection = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, d, h, w) to the same."""
        batch, channels, *spatial = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).reshape(batch, -1, self.heads, 3 * channels // self.heads).transpose(1, 2)
        attended = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        projected = self.projection(attended.transpose(1, 2).reshape(batch, -1, channels))
        return x + projected.transpose(1, 2).reshape(batch, channels, *spatial)
