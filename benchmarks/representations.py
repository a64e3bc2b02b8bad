"""Stage 3 in variants: what the encoder sees, how it reads, how its code is held together, what the denoiser is asked.

    python benchmarks/representations.py RUN --people MANIFEST --out DIR [--variants default masked ...] [--seeds 0 1 2]

RUN is a run folder of `ldae fit all --config demo`: all variants share its compression and its denoiser, and train stage 3
alone, for the same number of steps. Probes are trained on the codes of RUN's training and validation people and tested on the
people of MANIFEST, who are there to choose by: no figure of a variant is a test. What a code says of a scan by itself is
measured on RUN's validation people. A variant that is measured already is read from DIR, and not trained again.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from monai.transforms import Compose, RandAdjustContrast, RandAffine, RandBiasField, RandCoarseDropout
from torch import Tensor, nn

from ldae.config import load_experiment
from ldae.contract import LEFT_RIGHT
from ldae.data.datasets import LatentDataset
from ldae.data.manifest import Manifest, read_manifest
from ldae.diffusion import NoiseSchedule
from ldae.metrics.images import compare_images
from ldae.metrics.scores import PRIMARY, Predictions, compare_predictions, score_predictions
from ldae.models.semantic_encoder import VolumeEncoder, VolumeEncoderConfig
from ldae.tasks.probe.embeddings import Embeddings
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.result import CODES, ProbeSettings
from ldae.tasks.probe.targets import choose_target
from ldae.training import recipe, representation
from ldae.training.experiment import Experiment
from ldae.training.fit import FitSettings
from ldae.training.recipe import ExperimentConfig
from ldae.training.representation import RepresentationStage
from ldae.training.stage import Batch, Draws

ENCODER = "representation.semantic_encoder.volume."
SHOWN = 60
"""Validation scans that are decoded from their code alone."""


def variance_covariance(code: Tensor, _: Draws) -> Tensor:
    """VICReg's two terms (Bardes et al. 2022): no number below a standard deviation of 1, no two numbers alike."""
    code = code - code.mean(dim=0)
    spread = nn.functional.relu(1 - (code.var(dim=0) + 1e-4).sqrt()).mean()
    covariance = code.T @ code / (len(code) - 1)
    return spread + (covariance - covariance.diag().diag()).square().sum() / code.shape[1]


def isotropic_gaussian(code: Tensor, draws: Draws) -> Tensor:
    """SIGReg (Balestriero and LeCun 2025): Epps and Pulley's distance to a standard normal along 64 random directions."""
    directions = nn.functional.normalize(torch.randn(code.shape[1], 64, generator=draws.generator), dim=0)
    points = torch.linspace(-4, 4, 17)
    angles = (code @ directions)[..., None] * points
    normal = (-points.square() / 2).exp()
    distance = (angles.cos().mean(dim=0) - normal).square() + angles.sin().mean(dim=0).square()
    return len(code) * torch.trapezoid(distance * normal, points).mean()


class Tokens(nn.Module):
    """Patches of the view as tokens with a learned position, each through the same layers, side by side: no pooling.

    Args:
        channels: of the view.
        shape: of the view, (D, H, W).
    """

    def __init__(self, channels: int, shape: Sequence[int], patch: int = 4, width: int = 64, kept: int = 8) -> None:
        super().__init__()
        self.embed = nn.Conv3d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, width, *(n // patch for n in shape)))
        layers = [nn.Conv3d(width, 2 * width, 1), nn.GELU(), nn.Conv3d(2 * width, width, 1)]
        self.inner, self.norm, self.out = nn.Sequential(*layers), nn.GroupNorm(1, width), nn.Conv3d(width, kept, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, kept, D / patch, H / patch, W / patch)."""
        x = self.embed(x) + self.position
        found: Tensor = self.out(x + self.inner(self.norm(x)))
        return found


@dataclass(frozen=True)
class Variant:
    """One way to train stage 3.

    Attributes:
        settings: of the configuration, beside the demo's.
        view: transform of the scan that the encoder is trained on; the denoiser is asked for the scan itself.
        other_session: the encoder is trained on another session of the same person where there is one.
        held: further loss of the codes of a batch, and its weight.
        high_noise: weigh the loss toward high noise, as an error of z_0.
        tokens: patches as tokens and a flat read-out, in place of the convolutions.
    """

    settings: tuple[str, ...] = ()
    view: Callable[[], Compose] | None = None
    other_session: bool = False
    held: Callable[[Tensor, Draws], Tensor] | None = None
    weight: float = 0.0
    high_noise: bool = False
    tokens: bool = False


def contrast() -> Compose:
    """Gamma and bias field."""
    return Compose(
        [RandAdjustContrast(prob=0.8, gamma=(0.6, 1.6)), RandBiasField(prob=0.8, degree=2, coeff_range=(0.0, 0.2))]
    )


def masked(share: float) -> Compose:
    """Blocks of 24 mm set to 0, until about this share of the grid is hidden."""
    holes = round(-np.log(1 - share) * 64 * 80 * 64 / 8**3)
    return Compose([RandCoarseDropout(holes=holes, spatial_size=8, fill_value=0.0, prob=1.0)])


def moved() -> Compose:
    """Turned, shifted and scaled, as registration leaves heads."""
    turn, size = np.deg2rad(2.0), 0.02
    affine = {"rotate_range": [turn] * 3, "translate_range": [1.0] * 3, "scale_range": [size] * 3}
    return Compose([RandAffine(prob=1.0, padding_mode="zeros", mode="bilinear", **affine)])


VARIANTS: dict[str, Variant] = {
    "default": Variant(),
    "intensities": Variant((f"{ENCODER}view=scan",)),
    "intensities, contrast varied": Variant((f"{ENCODER}view=scan",), view=contrast),
    "contrast varied": Variant(view=contrast),
    "25 % masked": Variant(view=functools.partial(masked, 0.25)),
    "50 % masked": Variant(view=functools.partial(masked, 0.5)),
    "moved": Variant(view=moved),
    "noise 0.1": Variant(("representation.image_noise=0.1",)),
    "other session": Variant(other_session=True),
    "variance and covariance": Variant(held=variance_covariance, weight=0.1),
    "isotropic Gaussian": Variant(held=isotropic_gaussian, weight=0.1),
    "high noise": Variant(high_noise=True),
    "64 numbers": Variant((f"{ENCODER}semantic_width=64",)),
    "256 numbers": Variant((f"{ENCODER}semantic_width=256",)),
    "both sides": Variant((f"{ENCODER}symmetric=false",)),
    "convolutions alone": Variant((f"{ENCODER}linear=0", f"{ENCODER}layer_norm=true")),
    "tokens, flat": Variant((f"{ENCODER}linear=0", f"{ENCODER}layer_norm=true"), tokens=True),
    "other session, moved, 25 % masked": Variant(
        other_session=True, view=lambda: Compose([*moved().transforms, *masked(0.25).transforms])
    ),
}


class VariedStage(RepresentationStage):
    """Stage 3 with another view for the encoder and a further loss of its codes; validation is as ever.

    Args:
        variant: what is tried.
        sessions: of each training scan's key, the scans of the same person's other sessions.
        scans: the training scans.
    """

    def __init__(self, variant: Variant, sessions: dict[str, list[int]], scans: Any, *stage: Any) -> None:
        super().__init__(*stage)
        self.variant, self.sessions, self.scans = variant, sessions, scans
        self.view = None if variant.view is None else variant.view()
        self.learning["semantic_encoder"].register_forward_hook(self._keep)
        self._code: Tensor | None = None

    def _keep(self, _: nn.Module, __: Any, code: Tensor) -> None:
        self._code = code

    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Those of the stage; the further loss is in `loss` alone."""
        counted = batch["image"].is_meta  # what a step costs is counted without numbers
        if self.training and not counted and (self.variant.other_session or self.view is not None):
            seed = int(draws.integers(2**31, 1))
            batch = {**batch, "image": self._seen(batch, np.random.default_rng(seed))}
        found = super().losses(batch, draws)
        if self.training and not counted and self.variant.held is not None and self._code is not None:
            found["loss"] = found["loss"] + self.variant.weight * self.variant.held(self._code, draws)
        return found

    def _seen(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        images = list(batch["image"])
        if self.variant.other_session:  # the encoder is symmetric, so that it does not matter if the scan is mirrored
            others = [self.sessions[key] for key in batch["key"]]
            images = [
                self.scans.images([rng.choice(each)])[0] if each else own
                for each, own in zip(others, images, strict=True)
            ]
        if self.view is None:
            return torch.stack(images)
        brains = [image > 0 for image in images]
        self.view.set_random_state(seed=int(rng.integers(2**31)))
        views = [torch.as_tensor(self.view(image)) for image in images]
        if self.variant.view is contrast:  # which leaves the background alone
            views = [torch.where(brain, view.clamp(1e-3, 1), 0.0) for view, brain in zip(views, brains, strict=True)]
        return torch.stack(views).clamp(0, 1)


def z_0_weight(t: Tensor, schedule: NoiseSchedule, _: str) -> Tensor:
    """An error of z_0 is sigma^2 times that of the velocity; scaled to 1 on average over the noise levels."""
    weight = schedule.sigma.square()
    return (weight / weight.mean())[t]


@dataclass(eq=False)
class Ground:
    """What all variants share.

    Attributes:
        base: the run, with its scans.
        known: its people.
        people: whom the probes are tested on.
        images: of those, (N, 1, D, H, W), float16.
    """

    base: Experiment
    known: Manifest
    people: Manifest
    images: Tensor

    def scans(self, split: str, rows: Tensor) -> Tensor:
        """Scans of `train`, `validation` or `people`, (B, 1, D, H, W)."""
        return self.images[rows].float() if split == "people" else self.base._dataset(split).images(rows)

    @functools.cache  # noqa: B019
    def views(self, split: str, view: str) -> Tensor:
        """What an encoder reads of them, (N, C, d, h, w), float16: it is computed once for all variants."""
        encoder = VolumeEncoder(VolumeEncoderConfig(view=view, average=2, widths=(1,)), (64, 80, 64))  # type: ignore[arg-type]
        count = len(self.images) if split == "people" else len(self.base._dataset(split))
        with torch.no_grad():
            return torch.cat([encoder.view(self.scans(split, rows)).half() for rows in torch.arange(count).split(32)])

    @classmethod
    def of(cls, run: Path, people: Path) -> "Ground":
        """Read everything once."""
        manifest = read_manifest(run / "manifest.tsv")
        base = Experiment(load_experiment("demo", []), manifest, FitSettings(run=run))
        base.fit("denoiser")
        asked = read_manifest(people)
        asked.table["split"], asked.table["participant_id"] = "test", "other-" + asked.table["participant_id"]
        model = base.model()
        images = [torch.from_numpy(model.prepare_record(record).data).half()[None] for record in asked.records]
        return cls(base, manifest, asked, torch.stack(images))


class Tried(Experiment):
    """Stage 3 of a variant: clean scans are read from the views that all variants share.

    Args:
        ground: what they share.
        config: of the experiment.
        run: its folder.
    """

    def __init__(self, ground: Ground, config: ExperimentConfig, run: Path) -> None:
        super().__init__(config, ground.known, FitSettings(run=run))
        self.ground, self._scans = ground, ground.base._scans
        for network in (self.networks.compression, self.networks.denoiser):
            name = next(each for each, child in self.networks.named_children() if child is network)
            network.load_state_dict(ground.base.networks.get_submodule(name).state_dict())
        encoder = self.networks.semantic_encoder
        assert isinstance(encoder, VolumeEncoder)
        self.encoder, self.view = encoder, config.representation.semantic_encoder.volume.view  # type: ignore[union-attr]

    @torch.no_grad()
    def codes_of(self, split: str) -> Tensor:
        """Codes of `train`, `validation` or `people`, (N, S)."""
        encoder, view = self.encoder.eval(), self.encoder.view
        parts = []
        try:
            encoder.view = nn.Sequential()
            for rows in torch.arange(len(self.ground.views(split, self.view))).split(32):
                parts.append(encoder(self.ground.views(split, self.view)[rows].float()))
        finally:
            encoder.view = view
        return torch.cat(parts)

    def _codes(self, scans: LatentDataset) -> Tensor:
        codes = self.codes_of(
            "train" if list(scans.keys) == [each.key for each in self.records["train"]] else "validation"
        )
        if len(codes) == len(scans):
            return codes
        if self.encoder.symmetric:
            return codes.repeat(2, 1)
        return super()._codes(scans)

    def _begin_linear_path(self) -> None:
        path = self.encoder.linear
        if path is None:
            return
        views = self.ground.views("train", self.view).split(32)
        both = [(path.averaged(part.float()), path.averaged(part.flip(LEFT_RIGHT).float())) for part in views]
        own, mirrored = (torch.cat(each) for each in zip(*both, strict=True))
        path.begin_from(
            (own + mirrored) / 2 if self.encoder.symmetric else torch.cat([own, mirrored]), self.encoder.linear_spread
        )


def train(name: str, seed: int, steps: int, ground: Ground, out: Path) -> Tried:
    """Train stage 3 of a variant."""
    variant = VARIANTS[name]
    run = out / f"{name.replace(' ', '_').replace('%', 'percent').replace(',', '')}_{seed}"
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "cache").exists():
        (run / "cache").symlink_to((ground.base.settings.run / "cache").resolve(), target_is_directory=True)
    optimisation = [
        f"representation.optimisation.{each}={steps}" for each in ("steps", "validate_every", "checkpoint_every")
    ]
    config = load_experiment("demo", [*variant.settings, *optimisation, f"seed={seed}"])
    experiment = Tried(ground, config, run)
    encoder = experiment.encoder
    if variant.tokens:
        shape = [n // config.representation.semantic_encoder.chosen.average for n in config.preprocessing.shape]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder.features, encoder.pool = nn.Sequential(Tokens(3, shape)), nn.Identity()
            count = 8 * int(np.prod([n // 4 for n in shape]))
            encoder.standardise = nn.BatchNorm1d(count, affine=False, momentum=0.05)
            encoder.projection = nn.Linear(count, encoder.projection.out_features)
    records = experiment.records["train"]
    sessions = {
        record.key: [
            i for i, each in enumerate(records) if each.participant_id == record.participant_id and each is not record
        ]
        for record in records
    }
    scans = experiment._dataset("train")
    stage = functools.partial(VariedStage, variant, sessions, scans)
    weight = z_0_weight if variant.high_noise else representation.loss_weight
    with (
        mock.patch.object(recipe, "RepresentationStage", stage),
        mock.patch.object(representation, "loss_weight", weight),
    ):
        experiment.fit_representation()
    return experiment


def measure(experiment: Tried, ground: Ground) -> dict[str, Any]:
    """Predictions for the people that are asked, and what the code says of validation scans by itself."""
    model = experiment.model()
    codes = {split: experiment.codes_of(split) for split in ("train", "validation", "people")}
    keys = [*experiment.records["train"], *experiment.records["validation"], *ground.people.records]
    table = pd.DataFrame(
        {"participant_id": [r.participant_id for r in keys], "session_id": [r.session_id for r in keys]}
    )
    embeddings = Embeddings(table, torch.cat(list(codes.values())).double().numpy())
    rows = pd.concat([ground.known.table.query("split != 'test'"), ground.people.table], ignore_index=True)
    manifest = Manifest(ground.known.path, rows)
    found: dict[str, Any] = {}
    for target in ("diagnosis", "age"):
        report = evaluate_probe(choose_target(manifest, target), embeddings, settings=ProbeSettings(permutations=0))
        found[target] = {each: report.table[each].tolist() for each in ("participant_id", "target", CODES)}
    shown = experiment._dataset("validation").images(range(SHOWN))
    semantic = codes["validation"][:SHOWN]
    noise = model.draw_noise(len(shown), torch.Generator().manual_seed(0))
    expected = model.decompress(model.expected_latents(noise, semantic))
    return found | {"ssim_brain": compare_images(expected, shown[:, 0].numpy()).ssim_brain.tolist()}


def one(name: str, seed: int, steps: int, ground: Ground, out: Path) -> dict[str, Any]:
    """Train and measure a variant, unless that is done."""
    record = out / "measured" / f"{name}_{seed}.json"
    if not record.is_file():
        start = time.perf_counter()
        experiment = train(name, seed, steps, ground, out)
        losses = json.loads((experiment.settings.run / "representation" / "stage.json").read_text())["losses"]
        found = measure(experiment, ground)
        found |= {"explained": 1 - losses["validation/loss"] / losses["validation/loss_without_code"]}
        found |= {"seconds": time.perf_counter() - start}
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps(found))
    return dict(json.loads(record.read_text()))


def predictions(found: list[dict[str, Any]], target: str) -> Predictions:
    """Of all trainings of a variant."""
    kind = "binary" if target == "diagnosis" else "regression"
    values: npt.NDArray[np.float64] = np.array([each[target][CODES] for each in found])
    return Predictions(kind, np.array(found[0][target]["target"]), values, tuple(found[0][target]["participant_id"]))


def table(measured: dict[str, list[dict[str, Any]]]) -> str:
    """Means over trainings and their differences to the default's, with 95 % intervals over people, as Markdown."""
    lines = [
        "| variant | AUC | minus default | age error, years | minus default | explained | code alone, SSIM in the brain |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for name, found in measured.items():
        cells = [name]
        for target in ("diagnosis", "age"):
            own, default = predictions(found, target), predictions(measured["default"][: len(found)], target)
            metric = PRIMARY[own.kind]
            digits = 3 if target == "diagnosis" else 2
            each = [score_predictions(predictions([one], target), (metric,))[metric].value for one in found]
            cells.append(f"{np.mean(each):.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in each)})")
            gap = compare_predictions(own, default, metric)
            apart = f"{gap.value:+.{digits}f} [{gap.ends[0]:.{digits}f}, {gap.ends[1]:.{digits}f}]"
            cells.append("" if name == "default" else f"**{apart}**" if gap.ends[0] * gap.ends[1] > 0 else apart)
        cells.append(f"{np.mean([each['explained'] for each in found]):.3f}")
        cells.append(f"{np.mean([each['ssim_brain'] for each in found]):.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--people", type=Path, required=True, help="manifest of people to choose by")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    ground = Ground.of(options.run, options.people)
    measured: dict[str, list[dict[str, Any]]] = {}
    for seed in options.seeds:
        for name in options.variants:
            found = one(name, seed, options.steps, ground, options.out)
            measured.setdefault(name, []).append(found)
            print(f"{name}, seed {seed}: {found['seconds']:.0f} s, explained {found['explained']:.3f}", flush=True)
    print(table(measured))


if __name__ == "__main__":
    main()
