"""Stage 3: semantic encoder and gradient estimator around the frozen denoiser."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
from ldae.training.stage import Batch, OptimisationConfig, Stage

__all__ = ["RepresentationStage", "RepresentationStageConfig"]

log = logging.getLogger(__name__)

TOY_STEPS = 100
"""Fewer steps cannot teach a code, so an unused one is no reason to warn."""


@dataclass(frozen=True)
class RepresentationStageConfig:
    """Everything that is stage 3's own.

    Attributes:
        semantic_encoder: 2.5D (`slices`) or 3D (`volume`).
        shift: form of the semantic shift; the same trains and samples.
        weighting: of the loss over noise levels.
        image_noise: standard deviation of the noise added to the scans that the encoder is trained on.
        latent_noise: the same for the latents, in units of their standard deviation, where the encoder reads those.
        semantic_dropout: share of scans whose code is withheld from the gradient estimator in training, so that guidance can
            tell what the code adds (Ho and Salimans 2022); 0 is published.
        warm_start: begin the gradient estimator from the denoiser's decoder (False, as published, begins from chance).
        optimisation: how it is optimised.
    """

    semantic_encoder: SemanticEncoderConfig = SemanticEncoderConfig()
    shift: ShiftForm = "posterior"
    weighting: LossWeighting = "representation"
    image_noise: float = 0.0
    latent_noise: float = 0.0
    semantic_dropout: float = 0.0
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
        self.denoiser = denoiser.requires_grad_(False)
        if config.warm_start:
            gradient_estimator.start_from(denoiser)
        self.learning = nn.ModuleDict({"semantic_encoder": semantic_encoder, "gradient_estimator": gradient_estimator})
        self.schedule = schedule
        self._codes: list[Tensor] = []
        self._shuffling_cost: list[Tensor] = []
        self._warned = False

    @property
    def reads_mirrored_latent(self) -> bool:
        """True if the encoder reads the latents of the mirrored scans too."""
        return bool(self.learning["semantic_encoder"].reads_mirrored_latent)

    def averaged(self) -> nn.Module:
        """Encoder and gradient estimator."""
        return self.learning

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen denoiser out: stage 2 has saved it."""
        super().on_save_checkpoint(checkpoint)
        for name in list(checkpoint["state_dict"]):
            if name.startswith("denoiser."):
                del checkpoint["state_dict"][name]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the frozen denoiser back, so that the rest loads strictly."""
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"].update(
            {f"denoiser.{name}": tensor for name, tensor in self.denoiser.state_dict().items()}
        )

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """The frozen denoiser never drops out."""
        self.denoiser.eval()

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The weighted velocity error with the code and without it.

        In validation also the error with another subject's code, if the batch holds two subjects or more. Its excess over the
        loss measures how specific the code is to the scan.
        """
        noisy = draw_noisy(batch, self.schedule, generator)
        z_t, t = noisy.z_t, noisy.t
        with torch.no_grad():
            features, alone = denoiser_velocity(self.denoiser, z_t, t, self.schedule)
        image = self._disturbed(batch["image"], self.config.image_noise, generator)
        mirrored = batch.get("mirrored_latent")
        semantic = self.learning["semantic_encoder"](
            image,
            self._disturbed(batch["latent"], self.config.latent_noise, generator),
            None if mirrored is None else self._disturbed(mirrored, self.config.latent_noise, generator),
        )
        keep = None
        if self.training and self.config.semantic_dropout > 0:
            drawn = torch.rand(t.shape, generator=generator, device=generator.device)
            keep = (drawn >= self.config.semantic_dropout).to(semantic)
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

    def _disturbed(self, x: Tensor, noise: float, generator: torch.Generator) -> Tensor:
        """With noise added in training, against learning scans by heart."""
        if not self.training or noise == 0:
            return x
        return x + noise * torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)

    def on_validation_epoch_start(self) -> None:
        """Forget the codes of the last validation."""
        self._codes, self._shuffling_cost = [], []

    def on_validation_epoch_end(self) -> None:
        """Log effective rank and active dimensions of the codes; warn once if other subjects' codes serve as well."""
        codes = torch.cat(self._codes).double().cpu().numpy()
        values = {"effective_rank": effective_rank(codes), "active_dimensions": float(active_dimensions(codes))}
        self._log_at_step({f"validation/{name}": torch.tensor(value) for name, value in values.items()})
        early = self.steps_done <= self.optimisation.validate_every and self.steps_done < self.optimisation.steps
        if self._warned or early or self.optimisation.steps < TOY_STEPS or not self._shuffling_cost:
            return
        cost = float(torch.stack(self._shuffling_cost).sum()) / len(codes)
        if cost <= 0:
            self._warned = True
            log.warning(
                "after %d steps the semantic code is not used: on validation scans the codes of other subjects serve as "
                "well as their own (loss lower by %.2g); train longer, raise the encoder's learning rate, or set "
                "representation.warm_start",
                self.steps_done,
                -cost,
            )
