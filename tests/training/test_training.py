import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_text
from ldae.contract import LEFT_RIGHT
from ldae.data.datasets import LatentDataset
from ldae.errors import DependencyError, TrainingError
from ldae.models.convnext import ConvNeXt, ConvNeXtConfig
from ldae.report.run_folder import read_history
from ldae.training.batches import StageDataModule, StepBatchSampler
from ldae.training.callbacks import ExponentialMovingAverage, ResumeCheckpoint, SliceImages, slice_sheet
from ldae.training.compression import PerceptualConfig, build_perceptual
from ldae.training.experiment import STAGES
from ldae.training.fit import FitSettings, start_stage
from ldae.training.loop import CHECK_EVERY, StageLoop, build_scheduler
from ldae.training.stage import Draws, OptimisationConfig, Stage


def test_batches_and_noise_are_a_function_of_seed_and_step():
    whole = list(StepBatchSampler(5, batch_size=3, steps=7, seed=1))
    resumed = list(StepBatchSampler(5, batch_size=3, steps=7, seed=1, start=4))
    assert whole[4:] == resumed
    first_epoch = [index for batch in whole for index, _ in batch][:5]
    assert sorted(first_epoch) == list(range(5))
    assert list(StepBatchSampler(5, batch_size=3, steps=7, seed=2)) != whole
    one, again, other = (Draws(0, step).normal(torch.zeros(3)) for step in (4, 4, 5))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_mirrored_latents_are_items_of_their_scans():
    dataset = LatentDataset(torch.arange(6.0).reshape(6, 1, 1, 1, 1), list("abc"))
    items = [dataset[i] for i in range(len(dataset))]
    assert [(item["latent"].item(), item["key"]) for item in items] == list(enumerate("abcabc"))


class Quadratic(Stage):
    """Pulls one parameter toward the latents' mean."""

    def __init__(self, optimisation, poison=None):
        super().__init__(optimisation, seed=0)
        self.weights = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.weights.weight)
        self.poison = poison

    def averaged(self):
        return self.weights

    def losses(self, batch, generator):
        loss = (self.weights.weight - batch["latent"].mean()).square().sum()
        if self.poison in batch["key"]:
            loss = loss * float("nan")
        return {"loss": loss}


KEYS = ["sub-a_ses-1", "sub-b_ses-1"]


def train(stage, folder, steps=20):
    from ldae.training.fit import fit_stage

    folder.mkdir(exist_ok=True)
    dataset = LatentDataset(torch.ones(len(KEYS), 1, 1, 1, 1), KEYS)
    data = StageDataModule(dataset, dataset, batch_size=1, steps=steps, seed=0)
    settings = FitSettings(folder, device="cpu", precision="fp32")
    return fit_stage("quadratic", stage, data, folder, settings, finish=stage.weights.state_dict)


@pytest.mark.parametrize(("steps", "checkpoint_every"), [(20, 1000), (CHECK_EVERY + 10, 1000), (20, 1)])
def test_a_loss_that_is_not_finite_names_the_scan_and_reaches_no_checkpoint(tmp_path, steps, checkpoint_every):
    config = OptimisationConfig(steps=steps, batch_size=1, checkpoint_every=checkpoint_every)
    stage = Quadratic(config, poison="sub-b_ses-1")
    with pytest.raises(TrainingError, match=r"is not finite at step [01] on the scans sub-b_ses-1"):
        train(stage, tmp_path / "run", steps)
    assert not (tmp_path / "run" / "stage.json").exists()
    assert stage.steps_done == min(steps, CHECK_EVERY) or checkpoint_every == 1
    for path in tmp_path.rglob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values())


def test_losses_are_read_from_the_device_once_in_a_while(tmp_path, monkeypatch):
    read, check = [], StageLoop.check_finite

    def count(loop):
        read.append(loop.stage.steps_done)
        check(loop)

    monkeypatch.setattr(StageLoop, "check_finite", count)
    steps = 2 * CHECK_EVERY + 10
    train(Quadratic(OptimisationConfig(steps=steps, batch_size=1)), tmp_path / "run", steps)
    assert read == [CHECK_EVERY, 2 * CHECK_EVERY, steps]


def test_the_logged_gradient_norm_is_of_before_clipping(tmp_path):
    stage = Quadratic(OptimisationConfig(steps=20, batch_size=1, gradient_clip=1e-3))
    train(stage, tmp_path / "run")
    # The gradient of (w - 1)^2 at w = 0 is 2.
    assert read_history(tmp_path / "run")["train/gradient_norm"].dropna().iloc[0] == pytest.approx(2, rel=0.01)


def test_losses_that_were_logged_before_a_kill_are_not_forgotten(tmp_path):
    before, after = (ResumeCheckpoint(tmp_path / "resume.ckpt", 2, 4) for _ in range(2))
    before.on_train_end(
        SimpleNamespace(logged_metrics={"train/loss": torch.tensor(3.0), "adversarial": 0.5, "step": 4}), None
    )
    after.load_state_dict(before.state_dict())
    after.on_train_end(SimpleNamespace(logged_metrics={"train/loss": torch.tensor(2.0)}), None)
    assert after.losses == {"train/loss": 2.0, "adversarial": 0.5}


def test_the_average_lags_behind_and_is_what_is_kept(tmp_path):
    stage = Quadratic(OptimisationConfig(steps=20, batch_size=1, learning_rate=0.02, ema_decay=0.9, gradient_clip=100))
    record = train(stage, tmp_path / "run")
    assert record.steps == 20
    history = read_history(tmp_path / "run")
    assert history["train/loss"].dropna().is_monotonic_decreasing
    last = float(history["train/loss"].dropna().iloc[-1])
    assert (float(stage.weights.weight) - 1) ** 2 > last, "the average is older than the last step"


def test_the_average_of_constant_weights_is_those_weights():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average, before = ExponentialMovingAverage(module, 0.9), {k: v.clone() for k, v in module.state_dict().items()}
    average.on_fit_start(None, None)
    for _ in range(5):
        average.on_train_batch_end(None, None)
    average.keep()
    torch.testing.assert_close(dict(module.state_dict()), before)


def test_buffers_are_averaged_with_the_weights():
    module = nn.BatchNorm1d(2)
    average = ExponentialMovingAverage(module, 0.5)
    average.on_fit_start(None, None)
    module.running_mean.fill_(1.0)
    module.num_batches_tracked.fill_(7)
    average.on_train_batch_end(None, None)  # the first decay is 2 / 11
    average.on_validation_start(None, None)
    torch.testing.assert_close(module.running_mean, torch.full((2,), 9 / 11))
    assert module.num_batches_tracked == 7
    average.on_validation_end(None, None)
    assert module.running_mean.eq(1).all()


def test_pictures_show_the_averaged_weights():
    stage = Quadratic(OptimisationConfig())
    average, seen = ExponentialMovingAverage(stage.weights, 0.5), []

    def draw():
        seen.append(float(stage.weights.weight))
        return torch.zeros(1, 1, 4, 4, 4)

    writer = SimpleNamespace(add_image=lambda *_: None)
    trainer = SimpleNamespace(sanity_checking=False, loggers=[SimpleNamespace(experiment=writer)])
    average.on_fit_start(None, None)
    nn.init.ones_(stage.weights.weight)
    for hook in ("on_validation_start", "on_validation_epoch_end", "on_validation_end"):
        for callback in (average, SliceImages(draw)):
            getattr(callback, hook)(trainer, StageLoop(stage))
    assert seen == [0.0], "the average is as old as its start"


def test_schedules_rise_and_fall():
    for kind in ("constant", "one_cycle"):
        config = OptimisationConfig(steps=100, learning_rate=1.0, schedule=kind, warmup=0.1)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler, rates = build_scheduler(optimizer, config), []
        for _ in range(100):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert max(rates) == pytest.approx(1.0, rel=1e-2)
        assert rates[0] < 0.2
        assert rates[-1] == pytest.approx(1.0 if kind == "constant" else 0.0, abs=1e-2)


def test_a_run_trains_and_is_trained_once_and_as_it_was_begun(cohort, tmp_path, fit, monkeypatch):
    plans = []
    experiment, records = fit(cohort, tmp_path / "run", announce=plans.append)
    assert [plan.stage for plan in plans] == list(STAGES)
    assert all(plan.trained > 0 and plan.seconds > 0 and plan.memory_gib > 0 for plan in plans)
    assert all(np.isfinite(list(record.losses.values())).all() for record in records.values())
    model = LatentDiffusionAutoencoder.from_pretrained(
        experiment.model().save_pretrained(tmp_path / "model"), device="cpu", precision="fp32"
    )
    cached = dataclasses.replace(model.latent_cache(tmp_path / "run" / "cache"), read=None, compress=None)
    latents = cached.means(experiment.records["train"])
    compressed = model.compress(experiment._dataset("train").images(range(4)))
    torch.testing.assert_close(latents, compressed, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3, 4)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3, 4)), torch.ones(3), atol=1e-3, rtol=0)
    begun = tmp_path / "run" / "representation" / "inputs.json"
    former = json.loads(begun.read_text())
    assert former["stage"]["semantic_encoder"].pop("whitening_of") == "all", "which a former version did not note"
    begun.write_text(json.dumps(former))
    again, unchanged = fit(cohort, tmp_path / "run", announce=plans.append)
    assert len(plans) == 3, "nothing was trained again"
    assert unchanged == records
    assert again.model().fingerprint() == experiment.model().fingerprint()
    with pytest.raises(TrainingError, match=r"started otherwise \(changed: stage\)"):
        fit(cohort, tmp_path / "run", "compression.optimisation.learning_rate=0.5")
    with pytest.raises(TrainingError, match="validation split is empty"):
        fit(cohort.select((cohort.table["split"] != "validation").to_numpy(dtype=bool)), tmp_path / "none")
    encoder = "representation.semantic_encoder"
    with pytest.raises(TrainingError, match="needs subjects with several training scans"):
        fit(cohort, tmp_path / "none", f"{encoder}.whitening=1", f"{encoder}.whitening_of=within")
    provenance = json.loads((tmp_path / "run" / "run.json").read_text())
    assert provenance["manifest"]["sha256"] == cohort.sha256
    assert (tmp_path / "run" / "compression" / "tensorboard").is_dir()
    monkeypatch.setattr(again, "_compress", None)
    torch.testing.assert_close(again._latents("train").latents, compressed, atol=1e-4, rtol=1e-4)
    shutil.copy(cohort.records[1].image, cohort.records[0].image)
    with pytest.raises(TrainingError, match=r"started otherwise \(changed: images\)"):
        fit(cohort, tmp_path / "run")


def test_a_stage_with_other_inputs_is_replaced_by_force_alone(tmp_path):
    start_stage(tmp_path / "stage", {"seed": 1})
    write_text(tmp_path / "stage" / "weights", "old")
    with pytest.raises(TrainingError, match=r"changed: seed.*--force"):
        start_stage(tmp_path / "stage", {"seed": 2})
    start_stage(tmp_path / "stage", {"seed": 1}, force=True)
    assert (tmp_path / "stage" / "weights").is_file()
    start_stage(tmp_path / "stage", {"seed": 2}, force=True)
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["inputs.json"]


@pytest.mark.slow
def test_ctrl_c_is_an_interruption_from_which_the_run_goes_on(cohort, tmp_path, fit):
    def interrupt(stage, done, total, losses):
        if done == 5:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(cohort, tmp_path / "run", progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "run" / "compression" / "resume.ckpt").is_file()
    _, records = fit(cohort, tmp_path / "run", until="compression")
    assert records["compression"].steps == 8


@pytest.mark.slow
def test_a_run_killed_in_every_stage_resumes_to_the_same_weights(cohort, tmp_path, fit, overrides):
    """SIGKILL in each stage in turn; the same command must reach the weights of a run that was never killed, bit for bit."""
    whole, records = fit(cohort, tmp_path / "whole")
    command = [
        sys.executable, "-m", "ldae", "fit", "all", "--config", "quick", "--manifest", str(cohort.path),
        "--out", str(tmp_path / "killed"), "--device", "cpu", "--precision", "fp32", "--set", *overrides,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for stage in STAGES:
        folder = tmp_path / "killed" / stage
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        deadline = time.monotonic() + 240
        while not (folder / "resume.ckpt").is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
        assert not (folder / "stage.json").is_file(), "killed too late to prove anything"
    resumed, again = fit(cohort, tmp_path / "killed")
    # The stated tolerance is none at all: the same number of threads gives the same bits.
    for stage in STAGES:
        assert again[stage].losses == records[stage].losses
        assert again[stage].steps == records[stage].steps == 8
    assert resumed.model().fingerprint() == whole.model().fingerprint()


def test_a_stage_begun_when_encoders_could_read_latents_goes_on_if_it_read_none(tmp_path):
    def inputs(reads, noise):
        return {"stage": {"semantic_encoder": {"volume": {"linear": 2, **reads}, "whitening_of": "all"}, **noise}}

    start_stage(tmp_path / "scan", inputs({"linear_reads": "scan"}, {"latent_noise": 0.0}))
    start_stage(tmp_path / "scan", inputs({}, {}))
    assert json.loads((tmp_path / "scan" / "inputs.json").read_text()) == inputs({}, {})
    start_stage(tmp_path / "latent", inputs({"linear_reads": "latent"}, {"latent_noise": 0.1}))
    with pytest.raises(TrainingError, match=r"started otherwise \(changed: stage\)"):
        start_stage(tmp_path / "latent", inputs({}, {}))


@pytest.mark.slow
def test_whitening_changes_codes_and_not_what_they_decode_to(cohort, tmp_path, fit):
    """With a symmetric encoder; the runs train alike, so that whitening is all they differ by."""
    encoder = "volume: {widths: [4, 8], semantic_width: 8, linear: 1, symmetric: true}"
    models = {}
    for degree in (0.0, 0.75):
        if models:
            for stage in STAGES[:2]:
                shutil.copytree(tmp_path / "0.0" / stage, tmp_path / str(degree) / stage)
        whitened = f"representation.semantic_encoder={{{encoder}, whitening: {degree}}}"
        experiment, _ = fit(cohort, tmp_path / str(degree), whitened)
        models[degree] = experiment.model()
    images = experiment._dataset("train").images(range(4))
    codes = {degree: model.semantic(images) for degree, model in models.items()}
    assert (codes[0.0] - codes[0.75]).abs().max() > 0.1
    assert codes[0.75].var(dim=0, correction=0).mean() == pytest.approx(1, rel=1e-3)
    mirrored = models[0.75].semantic(images.flip(LEFT_RIGHT))
    torch.testing.assert_close(codes[0.75], mirrored, msg="a symmetric encoder tells sides apart")
    noise = torch.randn(4, *models[0.0].compress(images).shape[1:], generator=torch.Generator().manual_seed(0))
    decoded = [model.generate(noise, codes[degree]) for degree, model in models.items()]
    np.testing.assert_allclose(*decoded, atol=1e-4)
    assert np.abs(decoded[0] - models[0.0].generate(noise, codes[0.0].flip(0))).max() > 1e-4, "the code says something"


def test_slice_sheet_puts_anterior_and_superior_up():
    volume = torch.zeros(1, 1, 4, 6, 5)
    volume[0, 0, :, -1, :] = 1.0  # the front
    sheet = slice_sheet(volume)
    assert sheet.shape == (1, 6, 18)
    axial, coronal, sagittal = sheet[0].split(6, dim=1)
    assert axial[0].sum() == 4
    assert axial[1:].sum() == 0
    assert coronal.sum() == 0
    assert sagittal[:, -1].sum() == 5


def test_perceptual_terms_work_offline_or_say_what_to_do(monkeypatch):
    assert build_perceptual(PerceptualConfig()) is None
    spectral = build_perceptual(PerceptualConfig(kind="spectral"))
    x = torch.rand(1, 1, 8, 8, 8)
    assert float(spectral(x, x)) == pytest.approx(0.0, abs=1e-6)
    assert float(spectral(x, 1 - x)) > 0
    with pytest.raises(DependencyError, match=r"ldae\[lpips\]"):
        build_perceptual(PerceptualConfig(kind="lpips"))

    def unreachable(*_, **__):
        msg = "no route to host"
        raise OSError(msg)

    monkeypatch.setattr(torch.hub, "load", unreachable)
    with pytest.raises(DependencyError, match="weights, a local file"):
        build_perceptual(PerceptualConfig(kind="medicalnet"))


def test_convnext_small_has_torchvisions_parameter_names():
    with torch.device("meta"):
        names = set(ConvNeXt(ConvNeXtConfig()).state_dict())
    features = {"features.0.0.weight", "features.1.0.block.5.bias", "features.7.2.layer_scale"}
    assert features | {"classifier.0.weight"} <= names


@pytest.mark.parametrize("checkpoint_every", [1, 4])
@pytest.mark.parametrize(
    "killed_at", [(3, "training_step"), (4, "validation_step"), (4, "training_step"), (8, "validation_step")]
)
def test_no_validation_is_lost_or_made_twice_by_a_kill(tmp_path, monkeypatch, killed_at, checkpoint_every):
    """A kill before, in and after a validation; the record must be that of a run that was never killed."""
    config = OptimisationConfig(steps=8, batch_size=1, validate_every=4, checkpoint_every=checkpoint_every, patience=3)
    whole = train(Quadratic(config), tmp_path / "whole", 8)
    step, hook = killed_at
    validated = []
    validate, run = StageLoop.validation_step, getattr(StageLoop, hook)

    def die(loop, batch, index):
        if loop.stage.steps_done == step:
            raise MemoryError
        return run(loop, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(StageLoop, hook, die)
        with pytest.raises(MemoryError):
            train(Quadratic(config), tmp_path / "killed", 8)
    if step > 4:
        kept = torch.load(tmp_path / "killed" / "resume.ckpt", weights_only=True)["callbacks"]
        (stopping,) = (state for name, state in kept.items() if name.startswith("EarlyStopping"))
        assert stopping["best_score"] == pytest.approx(kept["ResumeCheckpoint"]["losses"]["validation/loss"])

    def count(loop, batch, index):
        validated.append(loop.stage.steps_done)
        return validate(loop, batch, index)

    monkeypatch.setattr(StageLoop, "validation_step", count)
    again = train(Quadratic(config), tmp_path / "killed", 8)
    assert (again.losses, again.fingerprint) == (whole.losses, whole.fingerprint)
    done = step > 4 or (step, hook) == (4, "training_step")
    assert validated == [4, 4, 8, 8][2 * done :], "two batches each"
