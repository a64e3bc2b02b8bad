"""Cohorts of which it is known what their features tell."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from ldae.data.manifest import Manifest, read_manifest, write_manifest
from ldae.tasks.encode import encode_scans
from ldae.tasks.probe.embeddings import Embeddings, embeddings_of
from tests.heads import write_heads
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def known_cohort(tmp_path_factory) -> Callable[..., tuple[Manifest, Embeddings]]:
    """Makes people with two scans each, whose first feature carries age and diagnosis, and the rest nothing."""

    def make(n: int = 90, *, noise: float = 0.5, width: int = 8, seed: int = 0) -> tuple[Manifest, Embeddings]:
        rng = np.random.default_rng(seed)
        latent = np.repeat(rng.normal(size=n), 2)
        features = rng.normal(size=(2 * n, width))
        features[:, 0] = latent + noise * rng.normal(size=2 * n)
        person = np.arange(2 * n) // 2
        table = pd.DataFrame(
            {
                "participant_id": [f"s{i:03d}" for i in person],
                "session_id": [f"ses-{i % 2}" for i in range(2 * n)],
                "image": "x.nii.gz",
                "age": 70 + 5 * latent,
                "sex": np.where(person % 2 == 0, "F", "M"),
                "site": np.where(person % 3 == 0, "north", "south"),
                "months": [12.0 * (i % 2) for i in range(2 * n)],
                "diagnosis": np.where(latent > 0.3, "AD", np.where(latent < -0.3, "CN", "MCI")),
                "score": np.round(20 + 3 * latent + rng.normal(size=2 * n), 2),
                "split": np.where(person < 0.56 * n, "train", np.where(person < 0.67 * n, "validation", "test")),
            }
        )
        path = tmp_path_factory.mktemp("known") / "m.tsv"
        manifest = read_manifest(write_manifest(table, path), check_images=False)
        return manifest, embeddings_of(manifest.records, features)

    return make


@pytest.fixture
def cohort(tmp_path):
    """Two subjects with sessions at months 0, 12 and 24."""
    return write_cohort(tmp_path)


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """Such a cohort, encoded by a tiny model; shared, so not to be changed."""
    model, cohort = make_tiny_model(), write_cohort(tmp_path_factory.mktemp("scans"))
    return encode_scans(model, cohort.records, batch_size=4).with_noise(model, batch_size=4)


def write_cohort(folder):
    rows = []
    for subject, diagnosis, split in ((0, "CN", "train"), (1, "AD", "test")):
        for month in (0, 12, 24):
            scan = (f"sub-{subject}", f"ses-M{month:02d}", f"{subject}_{month}.nii.gz")
            rows.append((*scan, month, 70 + month / 12, diagnosis, split, 10 * subject + month))
    columns = "participant_id session_id image months age diagnosis split"
    return read_manifest(write_heads(folder, rows, columns))
