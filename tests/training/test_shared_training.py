"""Several processes that train together do what one does."""

import json

import pytest
import torch

from ldae.base import ranks
from ldae.io.checkpoints import load_tensors
from ldae.training import batches, loop
from ldae.training.batches import StageDataModule, StepBatchSampler
from ldae.training.denoiser import DenoiserStage
from ldae.training.recipe import STAGES, scan_shapes
from ldae.training.stage import Draws
from tests.command_line import run
from tests.tiny_run import FP32, SMALLEST
from tests.training.shared_training import Scans, config, double_precision, together, train

pytestmark = pytest.mark.usefixtures("uncounted")


def assert_same_weights(one, two, *stages):
    for stage in stages:
        expected, found = (load_tensors(each / stage / "weights.safetensors")[0] for each in (one, two))
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-7, atol=1e-9, msg=f"{stage} {name}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Compression trained in this process for six steps."""
    folder = tmp_path_factory.mktemp("alone")
    with double_precision():
        train(folder, "compression", config(6))
    return folder


@pytest.mark.slow
def test_two_processes_train_as_one(alone, tmp_path):
    # Stage 1 has two optimizers and, in its discriminator, batch norms, so it needs most to be shared.
    assert together(tmp_path, 2, 6, "compression") == 0
    assert_same_weights(alone, tmp_path, "compression")
    log = [(each / "compression/logs/version_0/metrics.csv").read_text().splitlines() for each in (alone, tmp_path)]
    for one, two in zip(*([line.split(",") for line in lines[1:]] for lines in log), strict=True):
        assert [float(cell or 0) for cell in two] == pytest.approx([float(cell or 0) for cell in one], rel=1e-6)


@pytest.mark.slow
def test_two_processes_train_every_stage_as_one(tmp_path):
    assert together(tmp_path / "one", 1, 20, *STAGES) == 0
    assert together(tmp_path / "two", 2, 20, *STAGES) == 0
    assert_same_weights(tmp_path / "one", tmp_path / "two", *STAGES)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_any_number_goes_on(alone, tmp_path, capfd):
    assert together(tmp_path, 2, 6, "compression", die=4) == 1
    assert "process 2 of 2 was ended by signal 9" in capfd.readouterr().err
    assert (tmp_path / "compression/resume.ckpt").is_file()
    assert together(tmp_path, 1, 6, "compression") == 0
    assert_same_weights(alone, tmp_path, "compression")


def test_a_batch_in_parts_has_the_same_gradients(tmp_path):
    # Without batch norms, which compare the scans of a part.
    with double_precision():
        whole, parts = (train(tmp_path / str(n), "denoiser", config(2, accumulate=n)) for n in (1, 4))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-7, atol=1e-9)


def test_validation_takes_as_many_scans_at_once_as_training(tmp_path, monkeypatch):
    seen, losses = [], DenoiserStage.losses
    monkeypatch.setattr(
        DenoiserStage, "losses", lambda self, batch, draws: seen.append(len(batch["key"])) or losses(self, batch, draws)
    )
    train(tmp_path, "denoiser", config(1, accumulate=4, validate_every=1))
    assert set(seen) == {1}


@pytest.mark.slow
def test_an_experiment_on_two_devices_is_that_on_one(tiny_run, tmp_path):
    rates = [
        f"{stage}.optimisation.{setting}" for stage in STAGES for setting in ("learning_rate=1e-7", "batch_size=2")
    ]
    words = (
        "fit",
        "all",
        "--config",
        "quick",
        "--manifest",
        tiny_run / "manifest.tsv",
        *FP32,
        "--set",
        *SMALLEST,
        *rates,
    )
    for devices in (1, 2):
        assert run(*words, "--devices", devices, "--out", tmp_path / str(devices)) == 0
    for stage in STAGES:
        one, two = (load_tensors(tmp_path / n / stage / "weights.safetensors")[0] for n in "12")
        # A whitening by fewer scans than numbers is the inverse of nearly nothing.
        for name, tensor in one.items():
            if "whitening" in name or name.startswith("domain:"):
                continue
            assert (two[name] - tensor).abs().max() <= 1e-6 + 1e-3 * tensor.abs().max(), f"{stage} {name}"
        losses = [json.loads((tmp_path / n / stage / "stage.json").read_text())["losses"] for n in "12"]
        for name in losses[0].keys() & {"train/loss", "validation/loss"}:
            assert losses[1][name] == pytest.approx(losses[0][name], rel=1e-3), f"{stage} {name}"


def test_frozen_batch_norms_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(ranks, "world", lambda: 2)
    frozen, learning = torch.nn.BatchNorm3d(2).requires_grad_(False), torch.nn.BatchNorm3d(2)
    network = torch.nn.Sequential(frozen, torch.nn.Sequential(learning, torch.nn.BatchNorm1d(2, affine=False)))
    ranks.share_batch_norms(network)
    assert network[0] is frozen
    assert all(isinstance(each, ranks.SharedBatchNorm) for each in network[1])


def as_rank(monkeypatch, rank, world):
    for module in (batches, loop):
        monkeypatch.setattr(module, "rank", lambda: rank)
        monkeypatch.setattr(module, "world", lambda: world)


def test_each_process_draws_for_its_rows():
    like = torch.zeros(6, 3)
    whole, shares = Draws(1, 2), [Draws(1, 2, first=first, rows=6) for first in (0, 2, 4)]
    assert torch.equal(torch.cat([each.normal(like[:2]) for each in shares]), whole.normal(like))
    assert torch.equal(torch.cat([each.uniform(2) for each in shares]), whole.uniform(6))
    assert torch.equal(torch.cat([each.integers(99, 2) for each in shares]), whole.integers(99, 6))


def test_processes_share_batches_and_validation(monkeypatch):
    def batches_of(rank, world):
        as_rank(monkeypatch, rank, world)
        return list(StepBatchSampler(5, batch_size=4, steps=3, seed=0))

    whole, shares = batches_of(0, 1), [batches_of(rank, 2) for rank in range(2)]
    assert [first + second for first, second in zip(*shares, strict=True)] == whole
    scans = Scans(scan_shapes(config(1), None))
    for world, expected in ((2, [[0, 2], [1]]), (3, [[0], [1], [2]]), (4, [[0, 1, 2]] * 4)):
        for rank in range(world):
            as_rank(monkeypatch, rank, world)
            data = StageDataModule(scans, scans, batch_size=world * 2 if world > 2 else 2, steps=1, seed=0)
            data.batch_size = 2
            assert list(data.validation_batches) == expected[rank]
