"""Stage 3: semantic encoder and gradient estimator around the frozen denoiser."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ldae.base.ranges import checked, not_negative, share_below_one
from ldae.base.ranks import gather
from ldae.diffusion import (
    LossWeighting,
    NoiseSchedule,
    ShiftForm,
    loss_weight,
    shift_scale,
    velocity_loss,
)
from ldae.metrics.code_usage import active_dimensions, effective_rank, strangers
from ldae.models.denoiser import Denoiser
from ldae.models.gradient_estimator import GradientEstimator
from ldae.models.semantic_encoder import SemanticEncoder, SemanticEncoderConfig
from ldae.networks import denoiser_velocity
from ldae.training.denoiser import draw_noisy
from ldae.training.stage import Batch, Draws, OptimisationConfig, Stage

__all__ = ["RepresentationStage", "RepresentationStageConfig"]

log = logging.getLogger(__name__)

TOY_STEPS = 100
"""Fewer steps cannot teach a code, so an unused one is no reason to warn."""


@dataclass(frozen=True)
@checked
class RepresentationStageConfig:
    """Everything that is stage 3's own.

    Attributes:
        semantic_encoder: 2.5D (`slices`) or 3D (`volume`).
        shift: form of the semantic shift; the same trains and samples.
        weighting: of the loss over noise levels.
        image_noise: standard deviation of the noise added to the brains that the encoder is trained on.
        semantic_dropout: share of scans whose code is withheld from the gradient estimator in training, so that guidance can
            tell what the code adds (Ho and Salimans 2022); 0 is published.
        code_map: the gradient estimator also lays the code out as a latent, by a linear layer that begins as a regression.
        warm_start: begin the gradient estimator from the denoiser's decoder (False, as published, begins from chance).
        optimisation: how it is optimised.
    """

    semantic_encoder: SemanticEncoderConfig = SemanticEncoderConfig()
    shift: ShiftForm = "posterior"
    weighting: LossWeighting = "representation"
    image_noise: float = not_negative(0.0)
    semantic_dropout: float = share_below_one(0.0)
    code_map: bool = False
    warm_start: bool = False
    optimisation: OptimisationConfig = OptimisationConfig()


class RepresentationStage(Stage):
    """E[w_t || eps - (eps_theta + s_t G(z_t, Enc(x), t)) ||^2] (Zhang et al. 2022), written for velocities.

    Args:
        config: of the stage.
        denoiser: frozen.
        semantic_encoder: learns.
        gradient_estimator: learns.
        schedule: the noise schedule.
        seed: of the noise.
    """

    frozen = ("denoiser.",)

    def __init__(
        self,
        config: RepresentationStageConfig,
        denoiser: Denoiser,
        semantic_encoder: SemanticEncoder,
        gradient_estimator: GradientEstimator,
        schedule: NoiseSchedule,
        seed: int,
    ) -> None:
        super().__init__(config.optimisation, seed)
        self.config = config
        self.denoiser = denoiser.requires_grad_(False).eval()
        if config.warm_start:
            gradient_estimator.start_from(denoiser)
        self.learning = nn.ModuleDict({"semantic_encoder": semantic_encoder, "gradient_estimator": gradient_estimator})
        self.schedule = schedule
        self._codes: list[Tensor] = []
        self._shuffling_cost: list[Tensor] = []
        self._warned = False

    def averaged(self) -> nn.Module:
        """Encoder and gradient estimator."""
        return self.learning

    def called(self) -> list[nn.Module]:
        """Both halves of the denoiser, the encoder, the gradient estimator."""
        return [self.denoiser.encoder, self.denoiser.decoder, *self.learning.values()]

    def train(self, mode: bool = True) -> "RepresentationStage":
        """Train or evaluate; the frozen denoiser never drops out."""
        super().train(mode)
        self.denoiser.eval()
        return self

    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The weighted velocity error with the code and without it.

        In validation also the error with another subject's code, if the batch holds two subjects or more. Its excess over the
        loss measures how specific the code is to the scan.
        """
        noisy = draw_noisy(batch, self.schedule, draws)
        z_t, t = noisy.z_t, noisy.t
        with torch.no_grad():
            features, alone = denoiser_velocity(self.denoiser, z_t, t, self.schedule)
        image = batch["image"]
        if self.training and self.config.image_noise:  # against learning scans by heart
            # The background stays 0, or an encoder would take its noise for dark tissue.
            image = torch.where(image > 0, image + self.config.image_noise * draws.normal(image), image)
        semantic = self.learning["semantic_encoder"](image)
        keep = None
        if self.training and self.config.semantic_dropout > 0:
            keep = (draws.uniform(len(t)) >= self.config.semantic_dropout).to(semantic)
        weight = loss_weight(t, self.schedule, self.config.weighting)
        scale = shift_scale(t, z_t.ndim, self.schedule, self.config.shift)

        def error(code: Tensor) -> Tensor:
            change = scale * self.learning["gradient_estimator"](features, code, keep).float()
            return velocity_loss(alone + change, noisy.velocity, weight)

        losses = {"loss": error(semantic), "loss_without_code": velocity_loss(alone, noisy.velocity, weight)}
        if not self.training:
            self._codes.append(semantic.detach().float())
            subjects = batch.get("subject", ())
            if len(set(subjects)) > 1:
                partners = torch.from_numpy(strangers(subjects, np.random.default_rng(self.seed)))
                losses["loss_with_shuffled_code"] = error(semantic[partners.to(semantic.device)])
                self._shuffling_cost.append(len(semantic) * (losses["loss_with_shuffled_code"] - losses["loss"]))
        return losses

    def begin_validation(self) -> None:
        """Forget the codes of the last validation."""
        self._codes, self._shuffling_cost = [], []

    def end_validation(self) -> dict[str, float]:
        """Effective rank and active dimensions of the codes; warns once if other subjects' codes serve as well."""
        gathered = gather((torch.cat(self._codes).double().cpu().numpy(), float(sum(self._shuffling_cost))))
        codes = np.concatenate([each for each, _ in gathered])
        early = self.steps_done <= self.optimisation.validate_every and self.steps_done < self.optimisation.steps
        if not self._warned and not early and self.optimisation.steps >= TOY_STEPS and self._shuffling_cost:
            cost = sum(each for _, each in gathered) / len(codes)
            self._warned = cost <= 0
            if self._warned:
                log.warning(
                    "after %d steps the semantic code is not used: on validation scans the codes of other subjects serve "
                    "as well as their own (loss lower by %.2g); train longer, raise the encoder's learning rate, or set "
                    "representation.warm_start",
                    self.steps_done,
                    -cost,
                )
        return {"effective_rank": effective_rank(codes), "active_dimensions": float(active_dimensions(codes))}
