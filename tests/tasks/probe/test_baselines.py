"""What is written to be compared with codes: for an encoder of both sides, components that are given both sides too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.models.semantic_encoder import SemanticEncoderConfig, VolumeEncoderConfig
from ldae.models.whitening import Whitening
from ldae.networks import Networks
from ldae.tasks.encode import encode_scans
from ldae.tasks.probe.baselines import RandomEncoder, write_baselines
from ldae.tasks.probe.embeddings import read_embeddings
from ldae.volume import Volume, write_volume
from tests.records import record_of

VOLUME = VolumeEncoderConfig(widths=(4, 8), semantic_width=6, pooled=2, linear=1, symmetric=True)

SIMPLE = ("tissue_blocks.parquet", "image_pca.npz", "tissue_pca.npz")


@pytest.fixture
def mirrored(tmp_path, head):
    """A head, and the same head seen in a mirror."""
    scan = head(0)
    write_volume(scan, tmp_path / "scan.nii.gz")
    write_volume(Volume(scan.data, np.diag([-1.0, 1, 1, 1]) @ scan.affine), tmp_path / "mirror.nii.gz")
    return [record_of(name, image=tmp_path / f"{name}.nii.gz") for name in ("scan", "mirror")]


def model_of(config, **encoder):
    """A model with a 3D encoder of these settings."""
    config = replace(config, semantic_encoder=SemanticEncoderConfig(**encoder))
    return LatentDiffusionAutoencoder(config, Networks(config), device="cpu", precision="fp32")


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_symmetric_encoder_alone_is_compared_with_components_of_both_sides(
    tiny_config, mirrored, tmp_path, symmetric
):
    torch.manual_seed(0)
    model = model_of(tiny_config, volume=replace(VOLUME, symmetric=symmetric))
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


@pytest.mark.parametrize(("of", "subjects"), [("all", None), ("within", ["a", "b", "a", "b"])])
def test_the_random_encoder_is_whitened_as_the_model_is(tiny_config, of, subjects):
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    baseline = RandomEncoder(model_of(tiny_config, volume=VOLUME, whitening=1.0, whitening_of=of))
    baseline.records = [record_of(name, str(row), split="train") for row, name in enumerate("abacb")]
    baseline.records[3] = replace(baseline.records[3], split="test")
    baseline.values = [values]
    expected = Whitening(6)
    expected.fit(values[[0, 1, 2, 4]], 1.0, subjects)
    np.testing.assert_allclose(baseline.embeddings().values, expected(values), rtol=1e-5, atol=1e-5)
