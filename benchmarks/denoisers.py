"""Denoisers on one run's latents: linear ones that are fitted, a UNet and a diffusion transformer, alone and beside a linear one.

    python benchmarks/denoisers.py RUN --out DIR [--seeds 0 1 2] [--steps 60] [--networks UNet narrow transformer]

RUN is a run folder of `ldae fit all --config demo`. Networks are trained by stage 2 for the same number of steps. The narrow UNet
costs two fifths of the multiplications. The transformer (DiT, Peebles and Xie 2023) takes each cell of a latent as a token. What
is compared is the loss on RUN's validation people.
Without seeds, linear ones alone are compared.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from ldae.config import load_experiment
from ldae.data.manifest import read_manifest
from ldae.diffusion import Estimate, velocity_of
from ldae.models.denoiser import Denoiser, DenoiserConfig, Features, GaussianDenoiser, position_features
from ldae.training.experiment import Experiment
from ldae.training.fit import FitSettings

COMPONENTS = 128
LEVELS = 25
WIDTH, DEPTH, HEADS = 96, 3, 4
NARROW = 20
NETWORKS = ("UNet", "narrow", "transformer")


class Block(nn.Module):
    """Attention and a perceptron, each shifted, scaled and gated by the time (adaLN-zero)."""

    def __init__(self, embedding_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.modulation = nn.Linear(embedding_width, 6 * WIDTH)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, N, W) to (B, N, W)."""
        of_time = self.modulation(nn.functional.silu(embedding))[:, None]
        shift, scale, gate, shift_2, scale_2, gate_2 = of_time.chunk(6, dim=-1)
        qkv = self.qkv(self.norm(x) * (1 + scale) + shift).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        x = x + gate * self.out(attended)
        found: Tensor = x + gate_2 * self.perceptron(self.norm(x) * (1 + scale_2) + shift_2)
        return found


class Tokens(nn.Module):
    """All blocks, in the place of the UNet's way down."""

    def __init__(self, config: DenoiserConfig, channels: int) -> None:
        super().__init__()
        self.octaves = config.coordinates
        self.embed = nn.Linear(channels + 6 * self.octaves, WIDTH)
        self.blocks = nn.ModuleList(Block(config.embedding_width) for _ in range(DEPTH))

    def forward(self, z: Tensor, embedding: Tensor) -> tuple[Tensor]:
        """The tokens, as a map."""
        x = self.embed(torch.cat([z, position_features(z, self.octaves)], dim=1).flatten(2).transpose(1, 2))
        for block in self.blocks:
            x = block(x, embedding)
        return (x.transpose(1, 2).unflatten(2, z.shape[2:]),)


class Head(nn.Module):
    """A linear layer of each token, in the place of the UNet's way up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Features) -> Tensor:
        """(B, C, d, h, w)."""
        found: Tensor = self.head(self.norm(features.skips[0].movedim(1, -1))).movedim(-1, 1)
        return found


@torch.no_grad()
def fitted(base: Experiment) -> None:
    """Print the losses of linear denoisers, over evenly spaced noise levels."""
    train, validation = (base._latents(split).latents for split in ("train", "validation"))
    schedule = base.networks.schedule
    noises = torch.randn(LEVELS, *validation.shape, generator=torch.Generator().manual_seed(0))
    for components in (0, 32, 64, 128, 256, 512):
        linear = GaussianDenoiser(components, tuple(validation.shape[1:]), schedule)  # type: ignore[arg-type]
        linear.fit(train)
        losses = []
        for level, noise in zip(torch.linspace(5, schedule.timesteps - 5, LEVELS).long(), noises, strict=True):
            t = level.expand(len(validation))
            velocity = velocity_of(Estimate(validation, noise), t, schedule)
            losses.append((linear(schedule.add_noise(validation, noise, t), t) - velocity).square().mean())
        row("linear alone", f"{components} components", "", "0", f"{torch.stack(losses).mean():.4f}")


def row(*cells: str) -> None:
    """Print a row of the table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Train and print a row a network and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    options = parser.parse_args()
    manifest = read_manifest(options.run / "manifest.tsv")
    base = Experiment(load_experiment("demo", []), manifest, FitSettings(run=options.run))
    base.fit("compression")
    row("denoiser", "beside a linear one of", "seed", "seconds of training", "validation loss")
    row(*["---"] * 5)
    fitted(base)
    for seed in options.seeds:
        for name in options.networks:
            for components in (0, COMPONENTS):
                run = options.out / f"{name}_{components}_{seed}"
                run.mkdir(parents=True, exist_ok=True)
                if not (run / "cache").exists():
                    (run / "cache").symlink_to((options.run / "cache").resolve(), target_is_directory=True)
                each = [f"denoiser.optimisation.{n}={options.steps}" for n in ("steps", "validate_every")]
                linear = f"denoiser.model.gaussian_components={components}"
                width = [f"denoiser.model.width={NARROW}"] if name == "narrow" else []
                config = load_experiment("demo", [*each, linear, *width, f"seed={seed}"])
                experiment = Experiment(config, manifest, FitSettings(run=run))
                experiment._scans = base._scans
                experiment.networks.compression.load_state_dict(base.networks.compression.state_dict())
                if name == "transformer":
                    replace_unet(experiment.networks.denoiser, config.compression.model.latent_channels, seed)
                record = experiment.fit_denoiser()
                row(
                    name, str(components), str(seed), f"{record.seconds:.0f}", f"{record.losses['validation/loss']:.4f}"
                )


def replace_unet(denoiser: Denoiser, channels: int, seed: int) -> None:
    """Put the transformer in the UNet's place."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        denoiser.encoder = Tokens(denoiser.config, channels)  # type: ignore[assignment]
        denoiser.decoder = Head(channels)  # type: ignore[assignment]


if __name__ == "__main__":
    main()
