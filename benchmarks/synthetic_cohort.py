"""Synthetic cohorts of given age, sex and diagnosis: use for training, and whether they give away who was in the training data.

    python benchmarks/synthetic_cohort.py RUN [--count 400] [--draws 5] [--seed 0]

RUN is a run folder of `ldae demo`. Labels of synthetic subjects are those of drawn training subjects; their codes come from a
normal distribution around a regression of the training codes on age, sex and diagnosis, their noise codes are drawn. Rivals are
the same regression on 128 principal components of scans, without diffusion, and real training subjects. Probes of mean
tissue in blocks are trained on synthetic scans, on so many real ones, or on both, and tested on the real test subjects. An attack
guesses that scans near a synthetic one were training scans; its AUC is 0.5 where nothing is given away.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from torch.nn.functional import avg_pool3d

from ldae.autoencoder import LatentDiffusionAutoencoder, SamplingConfig
from ldae.contract import clear_background
from ldae.data.manifest import read_manifest
from ldae.metrics.roc import area_under_curve
from ldae.metrics.samples import coverage, kernel_distance, novelty
from ldae.metrics.statistics import Statistic, mean_of, paired_difference
from ldae.tasks.encode import encode_scans
from ldae.tasks.probe.baselines import SimpleFeatures
from ldae.tasks.probe.models import Features, fit_probe

Images = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
REAL = (20, 50, 200)
STEPS, BATCH, NEIGHBOURS = 4, 16, 5


class Conditional:
    """A normal distribution around a regression on labels, (N, L), of values, (N, S)."""

    def __init__(self, labels: Array, values: Array) -> None:
        self.mean = LinearRegression().fit(labels, values)
        self.factor = np.linalg.cholesky(LedoitWolf().fit(values - self.mean.predict(labels)).covariance_)

    def draw(self, labels: Array, rng: np.random.Generator) -> Array:
        """A value for each row of labels, (M, S)."""
        drawn: Array = self.mean.predict(labels) + rng.standard_normal((len(labels), len(self.factor))) @ self.factor.T
        return drawn


def density(real: Array, drawn: Array) -> float:
    """Mean number of real neighbourhoods that a drawn scan lies in, over their size (Naeem et al. 2020); 1 for equal ones."""
    radius = np.sort(cdist(real, real), axis=1)[:, NEIGHBOURS]
    return float((cdist(real, drawn) < radius[:, None]).sum(axis=0).mean() / NEIGHBOURS)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--draws", type=int, default=5, help="of the real training subjects that are known")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    model = LatentDiffusionAutoencoder.from_pretrained(options.run / "model", precision="fp32")
    manifest = read_manifest(options.run / "manifest.tsv")
    first = manifest.select(~manifest.table["participant_id"].duplicated())
    simple = SimpleFeatures(model.config.preprocessing.voxel_size_mm)
    scans = encode_scans(model, list(first.records), visit=[simple.see])
    table = first.table
    labels = np.column_stack(
        [table["age"], table["sex"] == "M", *(table["diagnosis"] == each for each in ("MCI", "AD"))]
    ).astype(float)
    train, test = (np.flatnonzero(table["split"] == split) for split in ("train", "test"))
    features = {name: each.values.astype(np.float64) for name, each in simple.embeddings().items()}
    pixels = np.concatenate([batch.images() for batch in scans.select(train.tolist()).batches(BATCH)])
    shape = pixels.shape[1:]
    pca = PCA(128, random_state=0).fit(pixels.reshape(len(train), -1))
    wanted = labels[rng.choice(train, options.count)]

    def by_model() -> Images:
        codes = torch.from_numpy(Conditional(labels[train], scans.semantic[train]).draw(wanted, rng)).float()
        noise = model.draw_noise(len(codes), torch.Generator().manual_seed(options.seed))
        pairs = zip(noise.split(BATCH), codes.split(BATCH), strict=True)
        sampling = SamplingConfig("ddim", STEPS)
        return np.concatenate([model.decompress(model.sample_latents(some, y, sampling)) for some, y in pairs])

    def by_components() -> Images:
        drawn = Conditional(labels[train], pca.transform(pixels.reshape(len(train), -1))).draw(wanted, rng)
        images = pca.inverse_transform(drawn).reshape(-1, *shape)
        return clear_background(np.clip(images, 0, 1).astype(np.float32))

    made = {"model": by_model(), "components of scans": by_components()}

    # Fidelity and what is given away, by mean tissue in blocks and by the scans themselves at 6 mm.
    blocks = features["tissue_blocks"]
    centre, spread = blocks[train].mean(axis=0), blocks[train].std(axis=0)
    real_test = np.concatenate([batch.images() for batch in scans.select(test.tolist()).batches(BATCH)])
    print(
        "| synthetic scans | kernel distance | coverage | density | novelty | attack by blocks, AUC | by voxels, AUC |"
    )
    print("|---|---|---|---|---|---|---|")

    def voxels(of: Images) -> Array:
        return avg_pool3d(torch.from_numpy(of)[:, None], 2).flatten(1).double().numpy()

    for name, images in made.items():
        drawn = (simple.tissue_blocks(images).double().numpy() - centre) / spread
        known, new = ((blocks[rows] - centre) / spread for rows in (train, test))
        attacks = []
        for members, others, of in ((known, new, drawn), (voxels(pixels), voxels(real_test), voxels(images))):
            near = -np.concatenate([cdist(rows, of).min(axis=1) for rows in (members, others)])
            attacks.append(roc_auc_score(np.arange(len(near)) < len(members), near))
        near_real = coverage(new, drawn[: len(new)]), density(new, drawn), novelty(drawn, known, new)
        cells = " | ".join(f"{each:.3f}" for each in (*near_real, *attacks))
        print(f"| {name} | {kernel_distance(drawn, new):.1f} | {cells} |", flush=True)

    of_made = {name: simple.tissue_blocks(images).double().numpy() for name, images in made.items()}
    predictions: dict[str, dict[str, list[Array]]] = {"age": {}, "AD": {}}
    at = {"age": test, "AD": test[labels[test, 2] == 0]}
    columns = {"age": 0, "AD": 3}

    def fit(name: str, x: Array, given: Array) -> None:
        for target, kind in (("age", "regression"), ("AD", "binary")):
            kept = (given[:, 2] == 0) | (target == "age")
            names = [str(row) for row in range(kept.sum())]
            probe = fit_probe(Features(x[kept]), given[kept, columns[target]], names, kind)
            predictions[target].setdefault(name, []).append(probe.predict(blocks[at[target]]))

    for name, x in of_made.items():
        fit(f"synthetic by {name}", x, wanted)
    for count in (*REAL, len(train)):
        for _ in range(options.draws if count < len(train) else 1):
            rows = rng.permutation(train)[:count]
            fit(f"{count} real", blocks[rows], labels[rows])
            for name, x in of_made.items():
                both = np.concatenate([blocks[rows], x]), np.concatenate([labels[rows], wanted])
                fit(f"{count} real and {name}", *both)

    def metric(target: str, name: str) -> Statistic:
        """Mean over the draws, of how often each test subject counts."""
        truth = labels[at[target], columns[target]]
        if target == "age":
            return mean_of(np.mean([np.abs(each - truth) for each in predictions[target][name]], axis=0))
        return lambda weights: np.mean(
            [area_under_curve(truth.astype(int), each, weights) for each in predictions[target][name]], axis=0
        )

    print("\n| trained on | age, years | AD, AUC | less the real scans alone, years | AUC |\n|---|---|---|---|---|")
    for name in predictions["age"]:
        cells = []
        alone = name.split(" and ")[0] if " and " in name else None
        for target in at:
            cells.append(f"{metric(target, name)(np.ones((1, len(at[target]))))[0]:.3f}")
        for target in at:
            subjects = [str(row) for row in at[target]]
            rng_of = np.random.default_rng(0)
            found = alone and paired_difference(metric(target, name), metric(target, alone), subjects, seed=rng_of)
            cells.append(f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" if found else "")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
