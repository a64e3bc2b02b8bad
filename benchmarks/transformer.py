"""A diffusion transformer in the UNet's place (DiT, Peebles and Xie 2023), at a comparable cost, on one run's latents.

    python benchmarks/transformer.py RUN --out DIR [--seeds 0 1 2] [--steps 150]

RUN is a run folder of `ldae fit all --config demo`. Each cell of a latent is a token. Both are trained by stage 2 for the same
number of steps; what is compared is the loss on RUN's validation people, and the seconds of training.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from ldae.config import load_experiment
from ldae.data.manifest import read_manifest
from ldae.models.blocks import timestep_embedding
from ldae.models.denoiser import Denoiser, DenoiserConfig, Features, position_features
from ldae.training.experiment import Experiment
from ldae.training.fit import FitSettings


class Block(nn.Module):
    """Attention and a perceptron, each shifted, scaled and gated by the time (adaLN-zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, N, W) to (B, N, W)."""
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(nn.functional.silu(time))[:, None].chunk(
            6, dim=-1
        )
        qkv = self.qkv(self.norm(x) * (1 + scale) + shift).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        x = x + gate * self.out(attended)
        found: Tensor = x + gate_2 * self.perceptron(self.norm(x) * (1 + scale_2) + shift_2)
        return found


class Transformer(nn.Module):
    """v_theta(z_t, t) with the methods of a :class:`Denoiser`.

    Args:
        config: of the UNet whose place it takes: what it predicts, and how it sees positions.
        channels: of the latent.
    """

    def __init__(self, config: DenoiserConfig, channels: int, width: int = 96, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.config, self.width = config, width
        self.embed = nn.Linear(channels + 6 * config.coordinates, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, z_t: Tensor, t: Tensor) -> Features:
        """The tokens after all blocks."""
        time = self.time(timestep_embedding(t, self.width))
        seen = torch.cat([z_t, position_features(z_t, self.config.coordinates)], dim=1)
        x = self.embed(seen.flatten(2).transpose(1, 2))
        for block in self.blocks:
            x = block(x, time)
        return Features(time, (x.transpose(1, 2).unflatten(2, z_t.shape[2:]),))

    def predict(self, features: Features) -> Tensor:
        """The output, (B, C, d, h, w)."""
        (x,) = features.skips
        found: Tensor = self.head(self.norm(x.movedim(1, -1))).movedim(-1, 1)
        return found


def main() -> None:
    """Train and print a row a network and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    manifest = read_manifest(options.run / "manifest.tsv")
    base = Experiment(load_experiment("demo", []), manifest, FitSettings(run=options.run))
    base.fit("compression")
    print("| denoiser | seed | parameters | seconds of training | validation loss |\n|---|---|---|---|---|")
    for seed in options.seeds:
        for name, kind in (("UNet", Denoiser), ("transformer", Transformer)):
            run = options.out / f"{name}_{seed}"
            run.mkdir(parents=True, exist_ok=True)
            if not (run / "cache").exists():
                (run / "cache").symlink_to((options.run / "cache").resolve(), target_is_directory=True)
            steps = [
                f"denoiser.optimisation.{each}={options.steps}"
                for each in ("steps", "validate_every", "checkpoint_every")
            ]
            config = load_experiment("demo", [*steps, f"seed={seed}"])
            experiment = Experiment(config, manifest, FitSettings(run=run))
            experiment._scans = base._scans
            experiment.networks.compression.load_state_dict(base.networks.compression.state_dict())
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                channels = config.compression.model.latent_channels
                experiment.networks.denoiser = kind(config.denoiser.model, channels)  # type: ignore[assignment]
            record = experiment.fit_denoiser()
            count = sum(each.numel() for each in experiment.networks.denoiser.parameters())
            found = (name, str(seed), f"{count:,}", f"{record.seconds:.0f}", f"{record.losses['validation/loss']:.4f}")
            print(f"| {' | '.join(found)} |", flush=True)
            (run / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
