import dataclasses
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch

from ldae.data.latents import LatentCache, latent_key
from ldae.data.manifest import build_manifest, write_manifest
from ldae.models.compression import Posterior


@pytest.fixture
def records(tmp_path):
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
    latents.flush()
    (shard,) = latents.shards.iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
    assert torch.equal(dataclasses.replace(latents).means([moved]), before)
    assert compressed == [1, 1, 1], "of a damaged shard, scans are compressed again"
    dataclasses.replace(latents, key="another key").means([moved])
    assert compressed == [1, 1, 1, 1]


def test_a_cache_leaves_shards_of_so_many_scans_or_bytes(records, cache, monkeypatch):
    latents, compressed = cache
    monkeypatch.setattr("ldae.data.latents.SHARD_SCANS", 2)
    whole = latents.posterior(records)
    assert len(list(latents.shards.iterdir())) == 1
    latents.flush()
    latents.flush()
    assert len(list(latents.shards.iterdir())) == 2
    monkeypatch.setattr("ldae.data.latents.SHARD_BYTES", 1)
    other = dataclasses.replace(latents)
    other.means(records, mirrored=True)
    assert len(list(latents.shards.iterdir())) == 5
    assert torch.equal(latents.posterior(records).std, whole.std)
    assert torch.equal(latents.means(records, mirrored=True), whole.mean.flip(2)), "shards that others wrote are found"
    assert compressed == [3, 3]


def test_what_is_kept_is_written_at_the_end_but_not_into_a_folder_that_is_gone(records, cache):
    latents, _ = cache
    one, two = dataclasses.replace(latents), dataclasses.replace(latents)
    one.means(records)
    two.means(records, mirrored=True)
    assert list(latents.shards.iterdir()) == []
    del one
    assert len(list(latents.shards.iterdir())) == 1
    shutil.rmtree(latents.folder)
    del two
    assert not latents.folder.exists()


WRITER = """
import os, signal, sys
from pathlib import Path
import torch
import ldae.data.latents as module
from ldae.data.manifest import read_manifest
from ldae.models.compression import Posterior

folder, kill_after = Path(sys.argv[1]), int(sys.argv[2])
module.SHARD_SCANS = 4
done = []

def compress(images):
    if len(done) == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    return Posterior(images, torch.ones_like(images))

cache = module.LatentCache(lambda records: torch.full((1, 1, 2, 2, 2), float(records[0].participant_id)), compress, folder, "k")
means = [cache.means([record]) for record in read_manifest(folder.parent / "m.tsv").records]
print(len(done), *(mean.mean().item() for mean in means))
"""


@pytest.mark.slow
def test_a_killed_writer_loses_one_shard_at_most_and_two_write_at_once(tmp_path):
    rows = [{"participant_id": str(i), "session_id": "1", "image": f"{i}.nii"} for i in range(20)]
    for row in rows:
        (tmp_path / row["image"]).write_text(row["participant_id"])
    write_manifest(pd.DataFrame(rows), tmp_path / "m.tsv")

    def start(kill_after):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "cache"), str(kill_after)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    killed = start(11)
    assert killed.wait(120) == -9
    both = [start(-1), start(-1)]
    said = [each.communicate(timeout=120)[0].split() for each in both]
    assert all(int(computed) <= 20 - 8 for computed, *_ in said), "the shards of the killed one are read"
    assert [means for _, *means in said] == [[str(float(i)) for i in range(20)]] * 2
    again = start(-1).communicate(timeout=120)[0].split()
    assert again == ["0", *said[0][1:]]
    assert not list(tmp_path.rglob(".writing*"))


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
