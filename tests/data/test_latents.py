import dataclasses
import shutil

import pytest
import torch

from ldae.data.latents import LatentCache, latent_key
from ldae.data.manifest import build_manifest
from ldae.models.compression import Posterior


@pytest.fixture
def records(tmp_path):
    import pandas as pd

    rows = []
    for subject in "abc":
        (tmp_path / f"{subject}.nii").write_bytes(subject.encode() * 9)
        rows.append({"participant_id": subject, "session_id": "1", "image": f"{subject}.nii"})
    return build_manifest(pd.DataFrame(rows), tmp_path / "cohort.tsv").records


@pytest.fixture
def cache(tmp_path):
    """Images are ramps from left to right, scaled by the file's first byte; `compressed` lists the batches' sizes."""
    compressed = []

    def read(records):
        return torch.stack([torch.arange(3.0).reshape(1, 3, 1, 1) * each.image.read_bytes()[0] for each in records])

    def compress(images):
        compressed.append(len(images))
        return Posterior(2 * images, torch.ones_like(images))

    return LatentCache(read, compress, tmp_path / "cache", "some key"), compressed


def test_each_scan_and_each_mirror_image_is_compressed_once(records, cache):
    latents, compressed = cache
    whole = latents.means(records[:2])
    assert torch.equal(latents.means(records), torch.cat([whole, latents.means(records[2:])])), "order is kept"
    assert compressed == [2, 1]
    assert torch.equal(latents.means(records, mirrored=True), latents.means(records).flip(2))
    assert latents.posterior(records, mirrored=True).std.eq(1).all()
    assert compressed == [2, 1, 3]
    assert torch.equal(dataclasses.replace(latents, folder=None).means(records[:2]), whole), "kept or not"


def test_latents_follow_the_content_of_the_image(records, cache, tmp_path):
    latents, compressed = cache
    before = latents.means(records[:1])
    moved = dataclasses.replace(records[0], participant_id="x", image=tmp_path / "moved.nii")
    shutil.copy(records[0].image, moved.image)
    assert torch.equal(latents.means([moved]), before)
    assert compressed == [1], "the same content under another name is known"
    records[0].image.write_bytes(b"zz")
    assert not torch.equal(latents.means(records[:1]), before)
    latents.path(moved).write_bytes(b"damaged")
    assert torch.equal(latents.means([moved]), before)
    assert compressed == [1, 1, 1]
    dataclasses.replace(latents, key="another key").means([moved])
    assert compressed == [1, 1, 1, 1]


def test_images_that_are_given_are_not_read(records, cache):
    latents, _ = cache
    unreadable = dataclasses.replace(latents, read=None)
    images = latents.read(records)
    assert torch.equal(unreadable.means(records, images), latents.means(records))


def test_the_key_changes_with_weights_contract_and_precision(tiny_model):
    compression, contract = tiny_model.networks.compression, tiny_model.config.preprocessing
    other = type(compression)(compression.config)
    keys = [
        latent_key(compression, contract, torch.float32),
        latent_key(other, contract, torch.float32),
        latent_key(compression, dataclasses.replace(contract, percentiles=(1.0, 99.0)), torch.float32),
        latent_key(compression, contract, torch.bfloat16),
    ]
    assert len(set(keys)) == 4
    assert keys[0] == latent_key(compression, contract, torch.float32)
