"""Plans of training: counted without computing anything, close to what a step takes."""

import json
from dataclasses import replace

import pytest
import torch

from ldae.config import load_experiment
from ldae.errors import DependencyError
from ldae.networks import Networks
from ldae.training import plan as plans
from ldae.training.cost import CARDS, count, count_step, measure_step
from ldae.training.plan import plan_experiment
from ldae.training.recipe import STAGES, build_stage, scan_shapes
from tests.command_line import run
from tests.tiny_run import FP32

SMALL = [
    "preprocessing={shape: [16, 24, 16], voxel_size_mm: 10.0, centre_mm: [0.0, -17.0, 5.0]}",
    "denoiser.model.dropout=0.2",
    "compression.optimisation.batch_size=4",
]
CPU = torch.device("cpu")


def build(name, *overrides):
    config = load_experiment("quick", [*SMALL, *overrides])
    stage = build_stage(name, config, Networks(config.autoencoder))
    return stage, scan_shapes(config, stage)


def test_a_linear_layer_has_its_closed_form():
    layer = torch.nn.Linear(8, 16, bias=False)

    def forward(twin):
        yield twin(torch.rand(4, 8)).square().sum()

    cost = count(layer, forward, torch.float32)
    assert cost.flops == 3 * 2 * 4 * 8 * 16
    # The layer keeps its input, the square its own.
    assert cost.kept_gib * 2**30 == 4 * (4 * 8 + 4 * 16)


@pytest.mark.parametrize("name", ["compression", *(pytest.param(each, marks=pytest.mark.slow) for each in STAGES[1:])])
def test_counting_changes_nothing_and_grows_with_the_batch(name):
    stage, shapes = build(name)
    before, state = {k: v.clone() for k, v in stage.state_dict().items()}, torch.get_rng_state()
    cost = count_step(stage, shapes, torch.float32, stage.optimisation.batch_size)
    assert all(torch.equal(v, before[k]) for k, v in stage.state_dict().items())
    assert all(p.grad is None for p in stage.parameters())
    assert stage.steps_done == 0
    assert torch.equal(torch.get_rng_state(), state)
    double, _ = build(name, f"{name}.optimisation.batch_size={2 * stage.optimisation.batch_size}")
    twice = count_step(double, shapes, torch.float32, double.optimisation.batch_size)
    # The embedding of the code and the noise level are the only sums that do not grow.
    assert twice.flops == pytest.approx(2 * cost.flops, rel=0.01)
    assert twice.kept_gib == pytest.approx(2 * cost.kept_gib, rel=0.2)
    half = count_step(stage, shapes, torch.bfloat16, stage.optimisation.batch_size)
    assert half.flops == pytest.approx(cost.flops, rel=0.01)
    # Weights are kept in bf16 too, which shows where activations are as small as here.
    assert half.kept_gib < (0.75 if name == "compression" else 1.25) * cost.kept_gib
    checkpointed, _ = build(name, f"{name}.optimisation.checkpoint_activations=true")
    assert count_step(checkpointed, shapes, torch.float32, stage.optimisation.batch_size).kept_gib < cost.kept_gib


def test_a_measured_step_is_real():
    stage, shapes = build("compression")
    before = next(stage.averaged().parameters()).detach().clone()
    seconds, memory = measure_step(stage, shapes, CPU, torch.float32, 4)
    assert min(seconds, memory) > 0
    assert not torch.equal(next(stage.averaged().parameters()), before)


def test_a_plan_needs_no_scans():
    config = load_experiment("quick", SMALL)
    alone = plan_experiment(config, device="cpu", precision="fp32")
    assert [plan.stage for plan in alone.stages] == list(STAGES)
    assert all(not plan.measured and plan.train_scans == 0 for plan in alone.stages)
    assert all(plan.seconds == pytest.approx(plan.steps * plan.step_seconds) for plan in alone.stages)
    assert alone.preparation_seconds is None
    assert "--manifest" in alone.notes[0]
    counted = plan_experiment(config, (30, 6), stages=["denoiser"], device="cpu", precision="fp32", measure=True)
    (plan,) = counted.stages
    assert plan.measured
    assert (plan.train_scans, plan.validation_scans) == (30, 6)
    assert plan.seconds > plan.steps * plan.step_seconds
    assert counted.preparation_seconds > 0
    assert counted.notes == ()


def test_a_named_card_is_planned_for_without_one():
    config = load_experiment("quick", [*SMALL, "compression.optimisation.batch_size=8"])
    stages = {"stages": ["compression"], "gpu": "a100"}
    one, two = (plan_experiment(config, devices=n, **stages).stages[0] for n in (1, 2))
    assert (one.device, one.precision, one.at_once, two.at_once) == ("A100 SXM 80 GB", "bf16", 8, 4)
    assert two.step_seconds == pytest.approx(one.step_seconds / 2, rel=0.01)
    assert list(one.fits) == [24, 48, 80, 140]
    assert one.fits[48] > 2 * one.fits[24]  # the weights are there once
    parts = load_experiment("quick", [*SMALL, "compression.optimisation={batch_size: 8, accumulate: 4, steps: 20}"])
    (smaller,) = plan_experiment(parts, **stages).stages
    assert smaller.at_once == 2
    assert smaller.memory_gib < one.memory_gib
    assert smaller.step_seconds == pytest.approx(one.step_seconds, rel=0.01)
    faster = plan_experiment(config, stages=["compression"], gpu="h100").stages[0]
    assert faster.step_seconds == pytest.approx(one.step_seconds * CARDS["a100"].tera / CARDS["h100"].tera)


def test_what_does_not_fit_a_card_is_told_with_a_remedy(monkeypatch):
    config = load_experiment("quick", [*SMALL, "compression.optimisation.batch_size=12"])
    (plan,) = plan_experiment(config, stages=["compression"], gpu="a100").stages
    # A card with room for five of the twelve scans, and so for parts of four.
    small = CARDS["a100"].gb * plan.memory_gib / 2 / (80e9 / 2**30)
    monkeypatch.setitem(CARDS, "a100", replace(CARDS["a100"], gb=small))
    monkeypatch.setattr(plans, "SIZES", (small,))
    found = plan_experiment(config, stages=["compression"], gpu="a100")
    most = found.stages[0].fits[small]
    assert 1 <= most < 12
    parts = next(n for n in (1, 2, 3, 4, 6, 12) if 12 // n <= most)
    assert found.notes[-1].endswith(f"set compression.optimisation.accumulate={parts}")


def test_encoding_walks_the_time_grid_as_often_as_decoding(monkeypatch):
    monkeypatch.setattr(plans, "flops_per_second", lambda *_: 1e9)
    few, many = (
        plan_experiment(load_experiment("quick", [*SMALL, f"sampling.steps={steps}"]), stages=[], device="cpu")
        for steps in (5, 20)
    )
    assert many.encode_seconds - few.encode_seconds == pytest.approx(many.decode_seconds - few.decode_seconds)


def test_a_missing_perceptual_network_is_noted(monkeypatch):
    built = plans.build_stage

    def build_without(name, config, networks):
        if config.compression.loss.perceptual.kind != "none":
            msg = "the perceptual network cannot be loaded"
            raise DependencyError(msg)
        return built(name, config, networks)

    monkeypatch.setattr(plans, "build_stage", build_without)
    found = plan_experiment(load_experiment("quick", SMALL), stages=["compression"], device="cpu", precision="fp32")
    assert "without its perceptual network" in found.notes[1]


def test_plan_neither_builds_nor_downloads_a_pretrained_network(capsys, monkeypatch):
    def built(*_, **__):
        pytest.fail("the perceptual network was built")

    monkeypatch.setattr("ldae.training.compression.PerceptualLoss", built)
    wanted = [*SMALL, "compression.loss.perceptual.kind=medicalnet"]
    assert run("plan", "quick", "--stage", "compression", *FP32, "--set", *wanted) == 0
    assert "without its perceptual network, medicalnet" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["json", "table"])
def test_plan_prints_json_or_a_table(capsys, form):
    assert run("plan", "quick", "--stage", "denoiser", *FP32, "--set", *SMALL, "--format", form) == 0
    printed = capsys.readouterr().out
    if form == "json":
        found = json.loads(printed)
        assert min(found["stages"][0]["memory_gib"], found["decode_seconds"]) > 0
    else:
        assert "encode" in printed
        assert "note:" in printed


def test_checkpointing_activations_changes_no_gradient():
    gradients = []
    for wanted in ("false", "true"):
        torch.manual_seed(0)
        stage, shapes = build("compression", f"compression.optimisation.checkpoint_activations={wanted}")
        stage.steps_done = 5  # the discriminator plays
        generator = torch.Generator().manual_seed(1)
        for loss, _ in stage.passes({"image": torch.rand(4, *shapes["image"], generator=generator)}):
            loss.backward()
        gradients.append([p.grad for p in stage.parameters() if p.grad is not None])
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, kept)
