"""Principal components of each patch of aligned scans: a linear compression that is fitted, not trained."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldae.base.hardware import single_precision
from ldae.base.ranges import Range, checked, count, share, within
from ldae.errors import ConfigError
from ldae.models.cells import from_patches, to_patches

__all__ = ["ComponentsConfig", "PatchComponents", "principal_components"]

PLACES_AT_ONCE = 32
"""Patch positions whose components are computed together; more need more memory."""

OVERSAMPLING = 16
"""Directions beyond those kept, for accuracy of the randomised decomposition (Halko et al. 2011)."""

FLOOR = 0.05
"""Smallest standard deviation that is divided by, relative to the root mean square of all: empty patches stay near 0."""


def principal_components(values: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Principal components of centred values, orthonormal, by falling variance.

    Args:
        values: (N, V), of mean 0; in float32, components of small variance are less exact.
        most: components at most; fewer where the values have fewer.

    Returns:
        Components, (K, V), and the variance along each, (K,), float64.
    """
    # The small of the two symmetric problems: scans are fewer than voxels.
    variance, vectors = torch.linalg.eigh((values @ values.T).double() / len(values))
    order = variance.argsort(descending=True)[:most]
    order = order[variance[order] > 1e-9 * variance.max().clamp_min(1e-30)]
    variance = variance[order]
    components = (values.T @ (vectors[:, order] / (len(values) * variance).sqrt()).to(values)).T
    # An eigenvector's sign is the solver's whim: its largest entry is made positive.
    largest = components.abs().argmax(dim=1, keepdim=True)
    return components * components.gather(1, largest).sign(), variance


@dataclass(frozen=True)
@checked
class ComponentsConfig:
    """Components of each patch.

    Attributes:
        patch: edge of a patch in voxels; the latent has one cell a patch.
        whitening: power of its standard deviation that each component is divided by: 0 leaves large components large, 1 gives
            all the same variance.
        scans: most training scans that they are fitted to; at 3 mm a scan and its mirror image take 1.3 MB of memory.
    """

    patch: int = count(8)
    whitening: float = share(0.0)
    scans: int = within(400, Range(2))


class PatchComponents(nn.Module):
    """Each patch position has a mean and its own components, turned toward the components that all positions share.

    In aligned scans a position always shows the same anatomy, which few components describe. The basis of a position is only
    known up to a rotation; turning it toward the shared basis (orthogonal Procrustes, Schoenemann 1966) lets a latent channel
    mean the same everywhere, as a convolution needs, and costs nothing. The posterior is that of probabilistic principal
    components (Tipping and Bishop 1999) for a small residual: its standard deviation is the residual's.

    Args:
        config: of the components.
        channels: components of each position, C.
        cells: patches along each axis, (d, h, w).
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    residual: Tensor

    def __init__(self, config: ComponentsConfig, channels: int, cells: tuple[int, int, int]) -> None:
        super().__init__()
        self.config, self.cells = config, cells
        places, voxels = cells[0] * cells[1] * cells[2], config.patch**3
        self.register_buffer("mean", torch.zeros(places, voxels))
        self.register_buffer("basis", torch.eye(voxels, channels).repeat(places, 1, 1))
        self.register_buffer("scale", torch.ones(places, channels))
        self.register_buffer("residual", torch.zeros(places, 1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent, (B, C, d, h, w), of scans (B, 1, D, H, W)."""
        with single_precision(x.device):
            latent = torch.einsum("bpv,pvc->bpc", self.to_patches(x) - self.mean, self.basis) / self.scale
        return self._on_grid(latent), self._on_grid((self.residual / self.scale).expand(latent.shape))

    def decode(self, latent: Tensor) -> Tensor:
        """Scans, (B, 1, D, H, W), of latents, (B, C, d, h, w)."""
        with single_precision(latent.device):
            values = latent.float().flatten(2).transpose(1, 2) * self.scale
            patches = torch.einsum("bpc,pvc->bpv", values, self.basis) + self.mean
            return from_patches(self._on_grid(patches), self.config.patch)

    @torch.no_grad()
    def fit(self, scans: Iterable[Tensor], generator: torch.Generator) -> None:
        """Components of scans, which are kept in half precision meanwhile.

        Args:
            scans: training scans in batches, (B, 1, D, H, W) each; two scans at least.
            generator: of the randomised decomposition.
        """
        channels = self.basis.shape[2]
        patches = torch.cat([self.to_patches(batch).half() for batch in scans]).transpose(0, 1)  # (places, N, voxels)
        places = [slice(at, at + PLACES_AT_ONCE) for at in range(0, len(patches), PLACES_AT_ONCE)]
        voxels = patches.shape[2]
        covariance = torch.zeros(voxels, voxels, dtype=torch.float64)
        for some in places:
            part = patches[some].float()
            self.mean[some] = part.mean(dim=1)
            flat = (part - self.mean[some, None]).flatten(0, 1)
            covariance += (flat.T @ flat).double()
        shared = torch.linalg.eigh(covariance)[1].flip(1)[:, :channels].float()
        spread = torch.empty_like(self.scale)
        for some in places:
            centred = patches[some].float() - self.mean[some, None]
            self.basis[some] = _turned(_components(centred, channels, generator), shared)
            values = centred @ self.basis[some]
            spread[some] = values.square().mean(dim=1).sqrt()
            left = (centred.square().sum(dim=2) - values.square().sum(dim=2)).clamp_min(0).mean(dim=1)
            self.residual[some] = (left / max(1, voxels - channels)).sqrt()[:, None]
        overall = spread.square().mean().sqrt().clamp_min(1e-8)
        scale = spread.clamp_min(FLOOR * overall) ** self.config.whitening
        # All latents together have a mean square of 1, as diffusion expects.
        self.scale.copy_(scale * (spread / scale).square().mean().sqrt().clamp_min(1e-8))

    def to_patches(self, x: Tensor) -> Tensor:
        """(B, 1, D, H, W) to (B, places, voxels of a patch), float32.

        Raises:
            ConfigError: if the scans are not on the grid that the components are of.
        """
        (d, h, w), p = self.cells, self.config.patch
        if x.shape[2:] != (d * p, h * p, w * p):
            msg = (
                f"components of patches know scans of {(d * p, h * p, w * p)} voxels alone, got {tuple(x.shape[2:])}; "
                "prepare the scans as the model's preprocessing says"
            )
            raise ConfigError(msg)
        return to_patches(x.float(), p, p**3).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def leave_out_empty(self, at_most: float = 2e-3) -> Tensor:
        """Leave out patches that hardly any scan shows anything in: their latents and what they decode to become 0.

        Args:
            at_most: largest intensity of the mean patch of those that are left out.

        Returns:
            Which they are, (places,).
        """
        empty: Tensor = self.mean.amax(dim=1) <= at_most
        for buffer in (self.mean, self.basis, self.residual):
            buffer[empty] = 0.0
        self.scale[empty] = 1.0
        return empty

    def _on_grid(self, values: Tensor) -> Tensor:
        return values.transpose(1, 2).reshape(len(values), -1, *self.cells)


def _components(centred: Tensor, channels: int, generator: torch.Generator) -> Tensor:
    """Orthonormal directions of largest variance, (places, voxels, C), of (places, N, voxels)."""
    places, count, voxels = centred.shape
    width = min(channels + OVERSAMPLING, count, voxels)
    start = torch.randn(places, voxels, width, generator=generator)
    found = torch.linalg.qr(start)[0]
    for _ in range(3):
        found = torch.linalg.qr(centred.transpose(1, 2) @ (centred @ found))[0]
    _, _, turn = torch.linalg.svd(centred @ found, full_matrices=False)
    best = found @ turn.transpose(1, 2)
    if width < channels:  # fewer scans than components: the rest is any orthonormal complement
        best = torch.linalg.qr(
            torch.cat([best, torch.randn(places, voxels, channels - width, generator=generator)], 2)
        )[0]
    return best[:, :, :channels]


def _turned(local: Tensor, shared: Tensor) -> Tensor:
    """Local bases, (places, voxels, C), rotated within their span toward the shared basis, (voxels, C)."""
    u, _, vh = torch.linalg.svd(local.transpose(1, 2) @ shared)
    return local @ (u @ vh)
