"""What is told before training is what training then takes; nothing is learnt while it is told."""

import json

import pytest
import torch

from ldae.config import load_experiment
from ldae.errors import DependencyError
from ldae.networks import Networks
from ldae.training import forecast as forecasts
from ldae.training.compression import CompressionStage
from ldae.training.forecast import RandomScans, ScanCounts, forecast
from ldae.training.rehearsal import Limits, Rung, _at_full_size, _part, _sizes, rehearse

SMALL = [
    "preprocessing={shape: [16, 24, 16], voxel_size_mm: 10.0, centre_mm: [0.0, -17.0, 5.0]}",
    "denoiser.model.dropout=0.2",
    "compression.optimisation.batch_size=4",
]
CPU = torch.device("cpu")


def stage_and_batch(*overrides):
    config = load_experiment("quick", [*SMALL, *overrides])
    stage = CompressionStage(config.compression, Networks(config.autoencoder).compression, 0)
    return stage, {"image": torch.rand(4, 1, *config.preprocessing.shape), "key": ["a"] * 4}


def test_a_rehearsal_changes_nothing():
    stage, batch = stage_and_batch()
    before, state = {k: v.clone() for k, v in stage.state_dict().items()}, torch.get_rng_state()
    cost = rehearse(stage, batch, device=CPU, dtype=torch.float32)
    assert cost.share == 1
    assert min(cost.seconds, cost.validation_seconds, cost.memory_gib) > 0
    assert all(torch.equal(v, before[k]) for k, v in stage.state_dict().items())
    assert all(p.grad is None for p in stage.parameters())
    assert stage.steps_done == 0
    assert all(module.training for module in stage.modules()), "what drops out in training must do so after a rehearsal"
    assert torch.equal(torch.get_rng_state(), state)


def test_what_does_not_fit_is_extrapolated():
    stage, batch = stage_and_batch()
    cost = rehearse(stage, batch, device=CPU, dtype=torch.float32, limits=Limits(memory_gib=0.0))
    assert cost.share == 0.25
    whole = rehearse(stage, batch, device=CPU, dtype=torch.float32)
    assert cost.memory_gib == pytest.approx(whole.memory_gib, rel=0.25)


def test_full_size_lies_on_the_line():
    def rungs(*shares):
        return [Rung(share, 2 + 8 * share, 0, 0, 0) for share in shares]

    assert _at_full_size(rungs(0.25, 1.0), lambda rung: rung.seconds) == 10
    assert _at_full_size(rungs(0.25, 0.5), lambda rung: rung.seconds) == pytest.approx(10)
    assert _at_full_size(rungs(0.5), lambda rung: rung.seconds) == 12, "through zero, which is on the safe side"


def test_parts_of_a_batch_grow_to_the_whole():
    batch = {"image": torch.rand(3, 1, 128, 140, 128), "key": ["a", "b", "c"]}
    sizes = _sizes(batch)
    assert [size.share for size in sizes] == sorted(size.share for size in sizes)
    assert sizes[-1].share == 1
    for size in sizes:
        part = _part(batch, size)
        assert part["image"].numel() == pytest.approx(size.share * batch["image"].numel())
        assert len(part["key"]) == size.scans
    latents = {"image": batch["image"], "latent": torch.rand(3, 2, 4, 4, 4), "key": ["a", "b", "c"]}
    assert [size.scans for size in _sizes(latents)] == [2, 3], "a batch norm learns from no less than two"


def test_a_forecast_needs_no_scans():
    config = load_experiment("quick", SMALL)
    alone = forecast(config, device="cpu", precision="fp32")
    assert [plan.stage for plan in alone.stages] == list(forecasts.STAGES)
    assert all(plan.measured == 1 and plan.train_scans == 0 for plan in alone.stages)
    assert all(plan.seconds == pytest.approx(plan.steps * plan.step_seconds) for plan in alone.stages)
    assert alone.preparation_seconds is None
    assert "--manifest" in alone.notes[0]
    assert alone.inference.measured_steps == alone.inference.steps == 4
    counted = forecast(config, ScanCounts(30, 6), stages=["denoiser"], device="cpu", precision="fp32")
    (plan,) = counted.stages
    assert (plan.train_scans, plan.validation_scans) == (30, 6)
    assert plan.seconds > plan.steps * plan.step_seconds
    assert counted.preparation_seconds > 0
    assert counted.notes == ()


def test_a_perceptual_network_that_is_not_there_is_left_out_and_said(monkeypatch):
    built = CompressionStage

    def build(config, *arguments):
        if config.loss.perceptual.kind != "none":
            msg = "the perceptual network cannot be loaded"
            raise DependencyError(msg)
        return built(config, *arguments)

    monkeypatch.setattr(forecasts, "CompressionStage", build)
    told = forecast(load_experiment("quick", SMALL), stages=["compression"], device="cpu", precision="fp32")
    assert "without its perceptual network" in told.notes[0]


def test_random_scans_hold_what_a_batch_holds():
    scans = RandomScans(3, {"image": (1, 4, 4, 4), "latent": (2, 1, 1, 1)})
    assert len(scans) == 3
    assert scans[(1, 7)]["image"].shape == (1, 4, 4, 4)
    assert isinstance(scans[0]["key"], str)


def test_plan_prints_json_and_a_table(capsys):
    from ldae.cli import main

    for form in ("json", "table"):
        arguments = ["plan", "quick", "--stage", "denoiser", "--device", "cpu", "--precision", "fp32", "--set", *SMALL]
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--format", form])
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        if form == "json":
            told = json.loads(printed)
            assert told["stages"][0]["memory_gib"] > 0
            assert told["inference"]["decode_seconds"] > 0
        else:
            assert "encode" in printed
            assert "note:" in printed


def test_checkpointing_activations_changes_no_gradient():
    gradients = []
    for wanted in ("false", "true"):
        torch.manual_seed(0)
        stage, batch = stage_and_batch(f"compression.optimisation.checkpoint_activations={wanted}")
        stage.steps_done = 5  # the discriminator plays
        generator = torch.Generator().manual_seed(1)
        stage.rehearse({**batch, "image": torch.rand(batch["image"].shape, generator=generator)})
        gradients.append([p.grad for p in stage.parameters() if p.grad is not None])
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, kept)
