"""What a network of the semantic encoder's shape learns from the labels alone: the bound that a code without labels is held to.

    python benchmarks/supervised.py MANIFEST --model MODEL --out DIR

Trains the model's own kind of encoder, from random weights, with one linear layer on the labels of the training people:
diagnosis (AD against CN) and age, each with three seeds. It stops where the validation people are predicted best, and is tested
once on the test people. Scans are read as the encoder reads them. Writes supervised.csv, a row a seed.
"""

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import ldae
from ldae.data.manifest import Manifest, read_manifest
from ldae.models.semantic_encoder import VolumeEncoder

STEPS, EVERY, BATCH, RATE = 300, 25, 16, 1e-3
NOISE = 0.3
"""Standard deviation of noise on what is read, relative to that of each of its voxels over the training scans."""


def read_views(model: ldae.LatentDiffusionAutoencoder, manifest: Manifest) -> Tensor:
    """What the semantic encoder reads of each scan, (N, C, d, h, w)."""
    view = model.networks.semantic_encoder.view
    with torch.no_grad():
        scans = (torch.from_numpy(model.prepare_record(record).data) for record in manifest.records)
        return torch.cat([view(scan[None, None]).half() for scan in scans]).float()


def fresh_encoder(model: ldae.LatentDiffusionAutoencoder, linear: bool, views: Tensor) -> VolumeEncoder:
    """An encoder with random weights that takes views, of maps or scans; its linear path begins with principal components."""
    config = replace(model.config.semantic_encoder.volume, view="tissue" if views.shape[1] > 1 else "scan")
    shape = model.config.preprocessing.shape
    encoder = VolumeEncoder(config if linear else replace(config, linear=0), shape)
    encoder.view = nn.Identity()
    if encoder.linear is not None:
        both = (views + views.flip(2)) / 2 if config.symmetric else views
        encoder.linear.begin_from(encoder.linear.averaged(both), config.linear_spread)
    return encoder


@torch.no_grad()
def predict(network: nn.Module, views: Tensor) -> Tensor:
    """Logits or years, (N,)."""
    network.eval()
    return torch.cat([network(part)[:, 0] for part in views.split(64)])


def train(
    encoder: VolumeEncoder, views: dict[str, Tensor], labels: dict[str, Tensor], seed: int, binary: bool
) -> tuple[nn.Sequential, float]:
    """The network that predicts the validation people best, and its loss on them."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(encoder.projection.out_features, 1)
    both = nn.Sequential(encoder, head)
    optimiser = torch.optim.AdamW(both.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    spread = views["train"].std(dim=0)
    loss = nn.functional.binary_cross_entropy_with_logits if binary else nn.functional.l1_loss
    centre, scale = (0.0, 1.0) if binary else (labels["train"].mean(), labels["train"].std())

    best, kept = np.inf, copy.deepcopy(both.state_dict())
    for step in range(1, STEPS + 1):
        both.train()
        rows = torch.randint(len(labels["train"]), (BATCH,), generator=generator)
        x = views["train"][rows]
        x = x + NOISE * spread * torch.randn(x.shape, generator=generator)
        error = loss(both(x)[:, 0], (labels["train"][rows] - centre) / scale)
        optimiser.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % EVERY == 0:
            held = float(loss(predict(both, views["validation"]), (labels["validation"] - centre) / scale))
            if held < best:
                best, kept = held, copy.deepcopy(both.state_dict())
    both.load_state_dict(kept)
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.mul_(scale).add_(centre)
    return both.eval(), best


def main() -> None:
    """Print and write a row for each target, network and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="runs/demo/model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    manifest = read_manifest(given.manifest)
    model = ldae.from_pretrained(given.model, device="cpu", precision="fp32")
    table, views = manifest.table, read_views(model, manifest)
    rows = []
    for target in ("diagnosis", "age"):
        binary = target == "diagnosis"
        known = table["diagnosis"].isin(["CN", "AD"]) if binary else table["age"].notna()
        values = (table["diagnosis"] == "AD").astype(float) if binary else table["age"]
        at = {split: np.flatnonzero(known & (table["split"] == split)) for split in ("train", "validation", "test")}
        labels = {split: torch.tensor(values.to_numpy(dtype=np.float32)[found]) for split, found in at.items()}
        for linear in (False, True):
            for seed in range(given.seeds):
                torch.manual_seed(seed)
                parts = {split: views[found] for split, found in at.items()}
                network, _ = train(fresh_encoder(model, linear, parts["train"]), parts, labels, seed, binary)
                found = predict(network, parts["test"]).numpy()
                truth = labels["test"].numpy()
                score = roc_auc_score(truth, found) if binary else float(np.abs(found - truth).mean())
                kind = "with the linear path" if linear else "convolutions"
                rows.append({"target": target, "network": kind, "seed": seed, "auc" if binary else "mae": score})
                print(rows[-1], flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(given.out / "supervised.csv", index=False)


if __name__ == "__main__":
    main()
