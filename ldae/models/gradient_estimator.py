"""The gradient estimator G(z_t, y, t): an estimate of grad log p(y | z_t) (Zhang et al. 2022)."""

import torch
from torch import Tensor, nn

from ldae.models.denoiser import Denoiser, DenoiserConfig, Features, UNetDecoder

__all__ = ["GradientEstimator"]


class GradientEstimator(nn.Module):
    """Own middle and output blocks over the frozen denoiser's time embedding and encoder features.

    Args:
        config: shape of the denoiser whose features it reads.
        channels: latent channels C.
        semantic_width: width S of the semantic code.
    """

    def __init__(self, config: DenoiserConfig, channels: int, semantic_width: int) -> None:
        super().__init__()
        self.semantic_embedding = nn.Linear(semantic_width, config.embedding_width)
        self.decoder = UNetDecoder(config, channels, semantic_width=config.embedding_width)

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

    def embed(self, semantic: Tensor, keep: Tensor | None = None) -> Tensor:
        """The code as the blocks read it, (B, E).

        Args:
            semantic: y, (B, S).
            keep: 0 for the scans whose code is withheld, else 1, (B,).
        """
        embedded: Tensor = self.semantic_embedding(semantic)
        return embedded if keep is None else embedded * keep[:, None]

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
        return self.decoder(Features(features.embedding, skips), self.embed(semantic, keep))
