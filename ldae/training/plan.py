"""Expected time and memory of training and inference: counted operations over the device's measured speed."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ldae.base.hardware import GIB, Device, Precision, choose_device, choose_precision, resident_gib
from ldae.errors import DependencyError
from ldae.networks import Networks, semantic_predict
from ldae.training.compression import PerceptualConfig
from ldae.training.cost import (
    CARDS,
    EFFICIENCY,
    Card,
    Cost,
    Shapes,
    count,
    count_step,
    flops_per_second,
    measure_step,
    parameter_gib,
)
from ldae.training.recipe import STAGES, ExperimentConfig, build_stage, scan_shapes
from ldae.training.stage import Stage

__all__ = ["SIZES", "ExperimentPlan", "Place", "Plan", "plan_experiment", "plan_stage"]

SIZES = (24, 48, 80, 140)
"""Memory of common cards, in GB."""
ALLOCATOR = 1.2
"""Memory in use over the memory of the live tensors: between 1.16 and 1.23 on a CPU."""


@dataclass(frozen=True)
class Plan:
    """Size, and expected time and memory, of a training stage.

    Attributes:
        stage: its name.
        trained: parameters that learn.
        frozen: parameters that are used as they are.
        train_scans: scans in the training split; 0 where they are not known.
        validation_scans: scans in the validation split.
        steps: batches to train.
        batch_size: scans a batch.
        at_once: scans that a device takes at once.
        device: where.
        precision: of matrix work.
        step_seconds: expected, of one step, without reading its batch.
        seconds: expected, of all steps and validations.
        memory_gib: expected peak of the process on a CPU, of what is allocated on a GPU.
        measured: whether a step was run; otherwise its operations were counted.
        fits: scans that fit the memory of a card at once, by its size in GB; of named cards alone.
    """

    stage: str
    trained: int
    frozen: int
    train_scans: int
    validation_scans: int
    steps: int
    batch_size: int
    at_once: int
    device: str
    precision: str
    step_seconds: float
    seconds: float
    memory_gib: float
    measured: bool = False
    fits: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a stage will run.

    Attributes:
        device: its kind.
        dtype: of matrix work.
        devices: that share each batch.
        card: a GPU whose stated speed takes the place of a measurement; None measures the device that is here.
    """

    device: torch.device
    dtype: torch.dtype
    devices: int = 1
    card: Card | None = None

    def speed(self, width: int) -> float:
        """Operations a second of one device, for layers of a width."""
        if self.card is not None:
            return EFFICIENCY * self.card.tera * 1e12
        return flops_per_second(self.device, self.dtype, width)


@dataclass(frozen=True)
class ExperimentPlan:
    """Expected cost of an experiment.

    Attributes:
        stages: a plan for each stage.
        preparation_seconds: of encoding the cohort for stages 2 and 3, after stage 1; None without a manifest.
        parameters: of all networks.
        encode_seconds: of one scan, to both codes.
        decode_seconds: of one scan, from both codes.
        encode_gib: expected peak memory while encoding a scan whole.
        decode_gib: expected peak memory while decoding it.
        notes: what the numbers leave out.
    """

    stages: tuple[Plan, ...]
    preparation_seconds: float | None
    parameters: int
    encode_seconds: float
    decode_seconds: float
    encode_gib: float
    decode_gib: float
    notes: tuple[str, ...]


def plan_stage(
    name: str,
    stage: Stage,
    shapes: Shapes,
    scans: tuple[int, int],
    place: Place,
    *,
    measure: bool = False,
) -> Plan:
    """Expected cost of a stage.

    Args:
        name: of the stage.
        stage: to be trained, on the CPU or on no device (`meta`); it is left as it is unless a step is measured.
        shapes: of a scan's tensors.
        scans: to train and to validate on.
        place: where it will run.
        measure: run a step, which changes the weights.
    """
    optimisation, device, dtype = stage.optimisation, place.device, place.dtype
    rows = max(1, optimisation.batch_size // (place.devices * optimisation.accumulate))
    trained = sum(p.numel() for p in stage.parameters() if p.requires_grad)
    copy = trained * 4 / GIB
    if measure:
        seconds, memory = measure_step(stage, shapes, device, dtype, rows)
        memory += copy  # the average of the weights
        activations = 0.0
    else:
        step = count_step(stage, shapes, dtype, rows)
        seconds = step.flops / place.speed(step.width)
        # Gradients, two moments of Adam and the average of the weights.
        memory, activations = 4 * copy, ALLOCATOR * step.kept_gib
        if device.type == "cpu":
            memory += resident_gib()
        if device.type != "cpu" or any(p.is_meta for p in stage.parameters()):
            memory += parameter_gib(stage)
    seconds *= optimisation.accumulate
    fits = {size: max(0, int((size * 1e9 / GIB - memory) * rows / activations)) for size in SIZES if place.card}
    memory += activations
    # A validation is a forward pass, a third of a step.
    validations = optimisation.steps // min(optimisation.validate_every, optimisation.steps)
    validating = validations * scans[1] / optimisation.batch_size * seconds / 3
    return Plan(
        stage=name,
        trained=trained,
        frozen=sum(p.numel() for p in stage.parameters()) - trained,
        train_scans=scans[0],
        validation_scans=scans[1],
        steps=optimisation.steps,
        batch_size=optimisation.batch_size,
        at_once=rows,
        device=place.card.name if place.card else str(device),
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        step_seconds=seconds,
        seconds=optimisation.steps * seconds + validating,
        memory_gib=memory,
        measured=measure,
        fits=fits,
    )


def _stage(name: str, config: ExperimentConfig, networks: Networks, notes: list[str]) -> Stage:
    """A stage to plan; its losses are without a pretrained network, whose loader would download it, and a note says so."""
    loss, why = config.compression.loss, ""
    kind = loss.perceptual.kind
    if name != "compression" or kind not in ("medicalnet", "lpips") or loss.perceptual.weight <= 0:
        try:
            return build_stage(name, config, networks)
        except DependencyError as error:
            why = f": {error}"
    notes.append(f"compression is planned without its perceptual network, {kind}, which costs extra{why}")
    without = replace(config.compression, loss=replace(loss, perceptual=PerceptualConfig()))
    return build_stage(name, replace(config, compression=without), networks)


def plan_experiment(
    config: ExperimentConfig,
    scans: tuple[int, int] | None = None,
    *,
    stages: Sequence[str] = STAGES,
    device: Device = "auto",
    precision: Precision = "auto",
    devices: int = 1,
    gpu: str | None = None,
    measure: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ExperimentPlan:
    """Expected cost of each stage and of the trained model; no scan is read.

    Args:
        config: of the experiment.
        scans: to train and to validate on, if the cohort is known.
        stages: to plan.
        device: where it will run.
        precision: of matrix work.
        devices: that share each batch.
        gpu: a key of `CARDS`: plan for that card, in bfloat16, instead of a device that is here.
        measure: run a step of each stage on random scans.
        progress: receives what is planned next.
    """
    if gpu is None:
        here = choose_device(device)
        place = Place(here, choose_precision(precision, here), devices)
    else:
        place, measure = Place(torch.device("cuda"), torch.bfloat16, devices, CARDS[gpu]), False
    notes = [] if scans else ["without --manifest, validation and the encoding of the cohort are left out"]
    with nullcontext() if measure else torch.device("meta"):
        networks = Networks(config.autoencoder)
    # Cached scans lie in the process's memory.
    in_memory = config.data.cache == "memory" and place.device.type == "cpu"
    cached = sum(scans or ()) * int(np.prod(config.preprocessing.shape)) * 4 / GIB if in_memory else 0.0
    plans = []
    for name in stages:
        if name == "compression" and not config.compression.trains:
            notes.append("compression is not trained: it is fitted in closed form, frozen, or absent")
            continue
        if name == "denoiser" and config.denoiser.frozen:
            notes.append("the denoiser is not trained: it is frozen")
            continue
        progress(name)
        with nullcontext() if measure else torch.device("meta"):
            stage = _stage(name, config, networks, notes)
        shapes = scan_shapes(config, stage)
        plan = plan_stage(name, stage, shapes, scans or (0, 0), place, measure=measure)
        plans.append(replace(plan, memory_gib=plan.memory_gib + cached))
        if place.card is not None and plan.memory_gib > place.card.gb * 1e9 / GIB:
            notes.append(_remedy(plan, config, place.card))
    progress("inference")
    return _with_inference(config, networks, scans, place, tuple(plans), tuple(notes))


def _remedy(plan: Plan, config: ExperimentConfig, card: Card) -> str:
    """What makes a stage fit a card."""
    most = max((count for size, count in plan.fits.items() if size <= card.gb), default=0)
    accumulate = getattr(config, plan.stage).optimisation.accumulate
    parts = [n for n in range(1, plan.at_once + 1) if plan.at_once % n == 0 and plan.at_once // n <= most]
    key = f"{plan.stage}.optimisation"
    remedy = f"{key}.accumulate={accumulate * parts[0]}" if parts else f"{key}.checkpoint_activations=true"
    return f"{plan.stage} takes {plan.memory_gib:.0f} GiB with {plan.at_once} scans at once; set {remedy}"


def _with_inference(
    config: ExperimentConfig,
    networks: Networks,
    scans: tuple[int, int] | None,
    place: Place,
    plans: tuple[Plan, ...],
    notes: tuple[str, ...],
) -> ExperimentPlan:
    shape = config.preprocessing.shape
    latent = config.compression.model.latent_shape(shape)
    networks.eval().requires_grad_(False)

    def cost(function: Callable[[Networks], object]) -> Cost:
        with torch.no_grad():
            return count(networks, lambda twin: [function(twin)], place.dtype)

    def predict(twin: Networks) -> object:
        code = torch.rand(1, config.representation.semantic_encoder.semantic_width)
        return semantic_predict(twin, code, config.autoencoder)(torch.rand(1, *latent), torch.zeros(1).long())

    compressed = cost(lambda twin: twin.compression.encode(torch.rand(1, 1, *shape)).mean)
    described = cost(lambda twin: twin.semantic_encoder(torch.rand(1, 1, *shape)))
    decompressed = cost(lambda twin: twin.compression.decode(torch.rand(1, *latent), shape))
    predicted = cost(predict)

    def seconds(part: Cost) -> float:
        return part.flops / place.speed(part.width)

    def memory(*parts: Cost) -> float:
        # A layer's input and output, and what it computes with.
        return resident + ALLOCATOR * 3 * max(part.largest_gib for part in parts)

    walk = config.sampling.steps * seconds(predicted)
    compressing = seconds(compressed)
    resident = parameter_gib(networks) + (resident_gib() if place.device.type == "cpu" else 0.0)
    preparing = None
    if scans is not None:
        # Once for the latents and their statistics, and once for those of mirror images.
        preparing = compressing * ((2 if config.mirror_latents else 1) * scans[0] + scans[1])
    return ExperimentPlan(
        stages=plans,
        preparation_seconds=preparing,
        parameters=sum(p.numel() for p in networks.parameters()),
        encode_seconds=compressing + seconds(described) + walk,
        decode_seconds=seconds(decompressed) + walk,
        encode_gib=memory(compressed, described, predicted),
        decode_gib=memory(decompressed, predicted),
        notes=notes,
    )
