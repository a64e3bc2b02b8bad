"""What is written to be compared with codes: for an encoder of both sides, components that are given both sides too."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import read_manifest, write_manifest
from ldae.models.semantic_encoder import SemanticEncoderConfig, VolumeEncoderConfig
from ldae.models.whitening import Whitening
from ldae.networks import Networks
from ldae.tasks.encode import encode_scans
from ldae.tasks.probe.baselines import RandomEncoder, write_baselines
from ldae.tasks.probe.embeddings import read_embeddings
from ldae.volume import Volume, write_volume

VOLUME = VolumeEncoderConfig(widths=(4, 8), semantic_width=6, pooled=2, linear=1, symmetric=True)

SIMPLE = ("tissue_blocks.parquet", "image_pca.npz", "tissue_pca.npz")


@pytest.fixture
def mirrored(tmp_path, head):
    """A head, and the same head seen in a mirror."""
    scan = head(0)
    write_volume(scan, tmp_path / "scan.nii.gz")
    write_volume(Volume(scan.data, np.diag([-1.0, 1, 1, 1]) @ scan.affine), tmp_path / "mirror.nii.gz")
    rows = [{"participant_id": name, "session_id": "1", "image": f"{name}.nii.gz"} for name in ("scan", "mirror")]
    return read_manifest(write_manifest(pd.DataFrame(rows), tmp_path / "cohort.tsv")).records


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_symmetric_encoder_alone_is_compared_with_components_of_both_sides(
    tiny_config, mirrored, tmp_path, symmetric
):
    torch.manual_seed(0)
    encoder = SemanticEncoderConfig(volume=replace(VOLUME, symmetric=symmetric))
    config = replace(tiny_config, semantic_encoder=encoder)
    model = LatentDiffusionAutoencoder(config, Networks(config), device="cpu", precision="fp32")
    scan, mirror = encode_scans(model, mirrored).semantic
    written = write_baselines(model, mirrored, tmp_path / "out")
    names = ["random_encoder.parquet", *SIMPLE, "latent_pca.npz"]
    assert [path.name for path in written] == names + ["latent_pca_symmetric.npz"] * symmetric
    if not symmetric:
        assert np.abs(scan - mirror).max() > 0.01
        return
    np.testing.assert_allclose(scan, mirror, atol=1e-4)
    random, *simple, one_side, both_sides = (read_embeddings(path).values for path in written)
    for values in simple:
        np.testing.assert_allclose(*values, atol=1e-3)
    np.testing.assert_allclose(*random, atol=1e-4)
    np.testing.assert_allclose(*both_sides, atol=1e-4)
    assert np.abs(one_side[0] - one_side[1]).max() > 0.01
    np.testing.assert_allclose(both_sides[0], one_side.mean(axis=0), atol=1e-4)


def test_the_random_encoder_is_whitened_as_the_model_is(tiny_config, mirrored):
    record = mirrored[0]
    names = ["a", "b", "a", "c", "b"]
    splits = ["train", "train", "train", "test", "train"]
    records = [
        replace(record, participant_id=name, session_id=str(i), split=split)
        for i, (name, split) in enumerate(zip(names, splits, strict=True))
    ]
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    for of, subjects in (("all", None), ("within", ["a", "b", "a", "b"])):
        encoder = SemanticEncoderConfig(volume=VOLUME, whitening=1.0, whitening_of=of)
        config = replace(tiny_config, semantic_encoder=encoder)
        model = LatentDiffusionAutoencoder(config, Networks(config), device="cpu", precision="fp32")
        baseline = RandomEncoder(model)
        baseline.records, baseline.values = records, [values]
        expected = Whitening(6)
        expected.fit(values[[0, 1, 2, 4]], 1.0, subjects)
        np.testing.assert_allclose(baseline.embeddings().values, expected(values), rtol=1e-5, atol=1e-5)
