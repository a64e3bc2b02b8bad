"""The gradient estimator G(z_t, y, t): an estimate of grad log p(y | z_t) (Zhang et al. 2022)."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldae.models.blocks import zero_init
from ldae.models.denoiser import Denoiser, DenoiserConfig, Features, GaussianDenoiser, UNetDecoder

__all__ = ["GradientEstimator"]


class GradientEstimator(nn.Module):
    """Own middle and output blocks over the frozen denoiser's time embedding and encoder features.

    Args:
        config: shape of the denoiser whose features it reads.
        channels: latent channels C.
        semantic_width: width S of the semantic code.
        mapped: (C, d, h, w) of a latent that a linear layer also makes of the code; it is added at a weight for each channel
            that depends on the time, and the decoder sees it. A code of aligned scans says much of each place, which a
            modulation of whole feature maps cannot carry. The published estimator has none.
        gaussian: of what the code leaves open in a latent, where the denoiser has a linear part: the latent that is made of the
            code is then a mean that the code expects, and needs no weights.
    """

    def __init__(
        self,
        config: DenoiserConfig,
        channels: int,
        semantic_width: int,
        mapped: tuple[int, int, int, int] | None = None,
        gaussian: GaussianDenoiser | None = None,
    ) -> None:
        super().__init__()
        self.embedding_width, self.mapped, self.gaussian = config.embedding_width, mapped, gaussian
        values = 0 if mapped is None else math.prod(mapped)
        self.semantic_embedding = nn.Linear(semantic_width, config.embedding_width + values)
        self.decoder = UNetDecoder(config, channels, semantic_width=config.embedding_width)
        if mapped is not None:
            if gaussian is None:
                self.map_weight = zero_init(nn.Linear(config.embedding_width, channels))
            self.map_features = zero_init(nn.Conv3d(channels, config.width, 1))

    @torch.no_grad()
    def start_from(self, denoiser: Denoiser) -> None:
        """Take over the denoiser's decoder, which knows the features already; the head stays zero, so that nothing is shifted.

        Args:
            denoiser: trained, of the same config.
        """
        own = self.decoder.state_dict()
        for name, tensor in denoiser.decoder.state_dict().items():
            if not name.startswith("head."):
                own[name].copy_(tensor)

    def embed(self, semantic: Tensor) -> Tensor:
        """The code, (B, S), as the blocks read it, and the values of its map, (B, E + C d h w)."""
        embedded: Tensor = self.semantic_embedding(semantic)
        return embedded

    def forward(self, features: Features, semantic: Tensor, keep: Tensor | None = None) -> Tensor:
        """The gradient, (B, C, d, h, w).

        Args:
            features: of the frozen denoiser at (z_t, t).
            semantic: y, (B, S).
            keep: 0 for the scans whose code is withheld, else 1, (B,).
        """
        # torch 2.13 crashes in GroupNorm's backward on the CPU where the input is channels-last and needs no gradient
        # while its weight does; frozen features are exactly that. On contiguous tensors this copies nothing.
        skips = tuple(skip.contiguous() for skip in features.skips)
        return self.estimate(replace(features, skips=skips), self.embed(semantic), keep)

    def estimate(self, features: Features, embedded: Tensor, keep: Tensor | None = None) -> Tensor:
        """The gradient, (B, C, d, h, w), of features and embedded codes, as :meth:`embed` gives them; `keep` as above."""
        kept = embedded if keep is None else embedded * keep[:, None]
        if self.mapped is None:
            return self.decoder(features, kept)
        blocks, values = kept[:, : self.embedding_width], kept[:, self.embedding_width :]
        code_map = values.reshape(-1, *self.mapped)
        finest, *coarser = features.skips
        read = replace(features, skips=(finest + self.map_features(code_map), *coarser))
        change: Tensor = self.decoder(read, blocks)
        if self.gaussian is None or features.linear is None:
            weight = self.map_weight(F.silu(features.embedding))[..., None, None, None]
            return change + weight * code_map
        linear = self.gaussian(features.z_t, features.t, code_map) - features.linear
        return change.float() + (linear if keep is None else linear * keep[:, None, None, None, None])

    @torch.no_grad()
    def begin_map(self, codes: Tensor, latents: Tensor, ridge: float = 1e-3) -> None:
        """Begin the map as the linear regression of latents on codes; what it leaves is normally distributed.

        Args:
            codes: y of training scans, (N, S).
            latents: their standardised latents, (N, C, d, h, w).
            ridge: relative to the mean variance of the codes.
        """
        y, z = codes.double().cpu(), latents.double().cpu().flatten(1)
        mean, centre = y.mean(dim=0), z.mean(dim=0)
        y = y - mean
        gram = y.T @ y
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram, y.T @ (z - centre)).T
        layer = self.semantic_embedding
        layer.weight[self.embedding_width :] = weight.to(layer.weight)
        layer.bias[self.embedding_width :] = (centre - weight @ mean).to(layer.bias)
        if self.gaussian is not None:
            left = z - centre - y @ weight.T
            self.gaussian.fit(left.unflatten(1, latents.shape[1:]), fitted=y.shape[1])

    @torch.no_grad()
    def leave_out(self, places: Tensor) -> None:
        """Let the map be 0 at some places of the latent, (d h w,)."""
        if self.mapped is not None:
            layer = self.semantic_embedding
            for values in (layer.weight, layer.bias):
                values[self.embedding_width :].view(self.mapped[0], -1, *values.shape[1:])[:, places] = 0.0
            if self.gaussian is not None:
                self.gaussian.leave_out(places)
