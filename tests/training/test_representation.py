"""Use of the code, as validation of the representation stage logs it."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from ldae.metrics.code_usage import effective_rank, strangers
from ldae.networks import Networks
from ldae.report.run_folder import read_history
from ldae.training.batches import StageDataModule
from ldae.training.fit import FitSettings, fit_stage
from ldae.training.representation import TOY_STEPS, RepresentationStage, RepresentationStageConfig
from ldae.training.stage import Draws, OptimisationConfig

SUBJECTS = ["a", "a", "b", "c"]


@pytest.fixture
def stage(tiny_config, tiny_model):
    """The representation stage around networks whose zero-initialised layers are alive."""
    networks: Networks = tiny_model.networks
    config = RepresentationStageConfig(
        semantic_encoder=tiny_config.semantic_encoder,
        shift="velocity",
        weighting="velocity",
        optimisation=OptimisationConfig(steps=4, batch_size=2, validate_every=2, checkpoint_every=2),
    )
    stage = RepresentationStage(
        config, networks.denoiser, networks.semantic_encoder, networks.gradient_estimator, networks.schedule, seed=3
    )
    stage.learning.requires_grad_(True)
    return stage.eval()


@pytest.fixture
def items():
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "latent": torch.randn(2, 4, 6, 4, generator=generator),
            "image": torch.rand(1, 16, 24, 16, generator=generator),
            "key": f"{subject}_{row}",
            "subject": subject,
        }
        for row, subject in enumerate(SUBJECTS)
    ]


@pytest.fixture
def batch(items):
    return torch.utils.data.default_collate(items)


class Scans(list):
    """Items, found by index or by index and number of the draw."""

    def __getitem__(self, index):
        return super().__getitem__(index[0] if isinstance(index, tuple) else index)


@torch.no_grad()
def test_shuffled_codes_are_the_codes_of_other_peoples_scans(stage, batch):
    # Training pays nothing for it.
    stage.train()
    assert stage.losses(batch, Draws(0, 0)).keys() == {"loss", "loss_without_code"}
    assert not stage._codes
    stage.eval()
    partners = strangers(batch["subject"], np.random.default_rng(stage.seed))
    losses = stage.losses(batch, Draws(0, 0))
    swapped = stage.losses({**batch, "image": batch["image"][partners]}, Draws(0, 0))
    torch.testing.assert_close(losses["loss_with_shuffled_code"], swapped["loss"])
    assert losses["loss_with_shuffled_code"] != losses["loss"]
    # What is logged besides does not depend on it.
    alone = stage.losses({**batch, "subject": ["a"] * 4}, Draws(0, 0))
    assert "loss_with_shuffled_code" not in alone
    assert alone["loss"] == losses["loss"]


def test_noise_disturbs_the_brain_and_leaves_the_background_at_zero(stage, batch):
    stage.train()
    stage.config = replace(stage.config, image_noise=0.1)
    batch["image"][:, :, :8] = 0.0
    seen = []
    stage.learning["semantic_encoder"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stage.losses(batch, Draws(0, 0))
    assert (seen[0][:, :, :8] == 0).all()
    assert (seen[0] - batch["image"])[:, :, 8:].std() == pytest.approx(0.1, rel=0.05)


def validate(stage, caplog, steps, *costs):
    """The warnings of a validation whose batches of four codes lose `costs` by shuffling."""
    stage.optimisation = replace(stage.optimisation, steps=steps)
    stage.steps_done = steps
    stage.begin_validation()
    stage._codes = [torch.randn(4, 3)]
    stage._shuffling_cost = [torch.tensor(cost) for cost in costs]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        stage.end_validation()
    return caplog.text.count("the semantic code is not used")


def test_an_unused_code_is_reported_once(stage, caplog):
    assert validate(stage, caplog, TOY_STEPS) == 0, "nothing could be compared"
    assert validate(stage, caplog, TOY_STEPS, 0.5, -0.1) == 0
    assert validate(stage, caplog, TOY_STEPS - 1, -0.1) == 0, "so few steps cannot teach a code"
    assert validate(stage, caplog, TOY_STEPS, 0.0) == 1
    assert validate(stage, caplog, TOY_STEPS, 0.0) == 0


def test_validation_logs_how_far_codes_spread(stage, items, tmp_path):
    stage.train()
    data = StageDataModule(Scans(items), Scans(items), batch_size=2, steps=4, seed=0)
    settings = FitSettings(tmp_path, device="cpu", precision="fp32")
    record = fit_stage("representation", stage, data, tmp_path, settings, finish=stage.learning.state_dict)
    history = read_history(tmp_path)
    for name in ("loss", "loss_without_code", "loss_with_shuffled_code", "effective_rank", "active_dimensions"):
        assert history[f"validation/{name}"].notna().sum() == 2
        assert np.isfinite(record.losses[f"validation/{name}"])
    assert history.loc[history["validation/loss"].notna(), "step"].tolist() == [2, 4]
    # The averaged weights, which are in place now, were validated last, on all scans.
    with torch.no_grad():
        codes = stage.learning["semantic_encoder"](torch.stack([item["image"] for item in items]))
    assert record.losses["validation/effective_rank"] == pytest.approx(effective_rank(codes.double().numpy()), rel=1e-3)
