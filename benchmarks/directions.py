"""Directions without labels, and how many of a phantom's true factors they match.

    python benchmarks/directions.py RUN [--count 16] [--steps 200] [--seeds 0 1 2]

RUN is a run folder of `ldae demo`. Directions come from the training subjects' codes: principal components, independent
components (FastICA), singular vectors of the expected scan's Jacobian, and contrastive directions (LatentCLR, Yüksel et al.
2021), whose changes of the expected latent are alike over scans and unlike one another. A factor is matched where the test
subjects' codes along a direction of its own correlate with it by more than 0.6; pairs maximise the sum of correlations.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import FastICA
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.networks import semantic_predict
from ldae.tasks.probe.embeddings import read_embeddings

FACTORS = ("ventricles_ml", "hippocampi_ml", "cortex_mm", "intracranial_scale", "site")
MATCHED = 0.6
SCANS = 2
TEMPERATURE = 0.5
Array = npt.NDArray[np.float64]


def expected(model: LatentDiffusionAutoencoder, semantic: Tensor) -> Tensor:
    """Latents that codes lead one to expect, with gradients, (N, ...) flattened."""
    noise = model.draw_noise(1, torch.Generator().manual_seed(0)).expand(len(semantic), -1, -1, -1, -1)
    last = torch.full((len(semantic),), model.networks.schedule.timesteps - 1)
    return semantic_predict(model.networks, semantic, model.config)(noise, last).clean.flatten(1)


@torch.no_grad()
def jacobian(model: LatentDiffusionAutoencoder, mean: Tensor, scale: Tensor, count: int) -> Array:
    """Singular vectors, among codes, of the expected latent's change by a standard deviation of each number, (count, S)."""
    moved = torch.cat([expected(model, mean + 0.1 * rows) for rows in torch.diag(scale).split(32)])
    axes, _, _ = torch.linalg.svd(moved - expected(model, mean[None]), full_matrices=False)
    return axes.T[:count].double().numpy()


def contrastive(model: LatentDiffusionAutoencoder, codes: Tensor, count: int, steps: int, seed: int) -> Array:
    """Directions whose changes tell them apart, (count, S), in standard deviations of each number."""
    generator = torch.Generator().manual_seed(seed)
    scale = codes.std(dim=0)
    directions = torch.randn(count, codes.shape[1], generator=generator, requires_grad=True)
    optimizer = torch.optim.Adam([directions], lr=0.05)
    for _ in range(steps):
        start = codes[torch.randint(len(codes), (SCANS,), generator=generator)]
        unit = torch.nn.functional.normalize(directions, dim=1) * scale * codes.shape[1] ** 0.5 / 4
        moved = expected(model, (start[:, None] + unit).flatten(0, 1)).unflatten(0, (SCANS, count))
        change = torch.nn.functional.normalize(moved - expected(model, start)[:, None], dim=2).flatten(0, 1)
        alike = (change @ change.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        same = torch.arange(count).repeat(SCANS)
        positive = (same[:, None] == same) & ~torch.eye(len(same), dtype=torch.bool)
        loss = (alike.logsumexp(dim=1) - alike.masked_fill(~positive, -torch.inf).logsumexp(dim=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.nn.functional.normalize(directions, dim=1).detach().double().numpy()


def strength(values: Array, factor: pd.Series) -> float:
    """Absolute correlation; the correlation ratio of text."""
    if factor.dtype != object and not isinstance(factor.dtype, pd.StringDtype):
        return abs(float(np.corrcoef(values, factor)[0, 1]))
    means = pd.Series(values).groupby(factor.to_numpy()).transform("mean")
    return float(means.std() / values.std())


def main() -> None:
    """Print the correlation of each factor with the direction of its own, by method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    model = LatentDiffusionAutoencoder.from_pretrained(options.run / "model", precision="fp32")
    for network in vars(model.networks).values():
        if isinstance(network, torch.nn.Module):
            network.requires_grad_(False)
    keys = ["participant_id", "session_id"]
    truth = pd.read_csv(options.run / "cohort" / "phantom_truth.tsv", sep="\t")
    truth["hippocampi_ml"] = truth["hippocampus_left_ml"] + truth["hippocampus_right_ml"]
    table = pd.read_csv(options.run / "manifest.tsv", sep="\t")[[*keys, "split", "site"]].merge(truth, on=keys)
    stored = read_embeddings(options.run / "codes.parquet")
    y = pd.DataFrame(stored.values, index=pd.MultiIndex.from_frame(stored.keys[keys]))
    table = table.drop_duplicates("participant_id").set_index(keys)
    training, test = (table[table["split"] == split] for split in ("train", "test"))
    known = torch.tensor(y.loc[training.index].to_numpy(), dtype=torch.float32)
    mean, scale = known.mean(dim=0), known.std(dim=0)
    standardised = ((known - mean) / scale).double().numpy()
    of = ((torch.tensor(y.loc[test.index].to_numpy(), dtype=torch.float32) - mean) / scale).double().numpy()
    print(f"| directions | {' | '.join(FACTORS)} | matched |\n|---|{'---|' * (len(FACTORS) + 1)}")

    def row(name: str, directions: Array) -> None:
        along = of @ directions.T
        r = np.array([[strength(values, test[factor]) for values in along.T] for factor in FACTORS])
        own = r[linear_sum_assignment(-r)]
        cells = " | ".join(f"{value:.2f}" for value in own)
        print(f"| {name} | {cells} | {(own > MATCHED).sum()} of {len(FACTORS)} |", flush=True)

    principal = np.linalg.svd((known - mean).numpy(), full_matrices=False)[2][: options.count]
    row("principal components", principal * scale.numpy())
    row("expected scan's Jacobian", jacobian(model, mean, scale, options.count))
    for seed in options.seeds:
        ica = FastICA(options.count, random_state=seed, max_iter=1000).fit(standardised)
        row(f"independent components, seed {seed}", ica.components_)
        row(f"contrastive, seed {seed}", contrastive(model, known, options.count, options.steps, seed))


if __name__ == "__main__":
    main()
