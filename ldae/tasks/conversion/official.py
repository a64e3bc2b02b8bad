"""Published weights to this package's files, strictly: every tensor of every file is accounted for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ldae.autoencoder import AutoencoderConfig, Networks, SamplingConfig
from ldae.contract import Preprocessing
from ldae.diffusion import ScheduleConfig
from ldae.errors import CheckpointError, ConfigError
from ldae.io.monai_weights import AutoencoderShape, rename_autoencoder
from ldae.io.official import DecoderShape, EncoderShape, rename_decoder, rename_encoder
from ldae.io.renaming import Renamed, check_complete
from ldae.io.weights_file import WeightsFile, read_weights_file
from ldae.models.compression import CompressionAttention, CompressionAutoencoder, CompressionConfig
from ldae.models.convnext import ConvNeXtConfig
from ldae.models.denoiser import Denoiser, DenoiserConfig
from ldae.models.semantic_encoder import SemanticEncoderConfig, SliceEncoderConfig, positional_encoding
from ldae.tasks.conversion.conversion import NetworkConversion, OfficialConversion

__all__ = ["OfficialContract", "plan_autoencoder", "plan_denoiser", "plan_official"]

PARTS = {
    "decoder": ("denoiser", "gradient_estimator"),
    "encoder": ("semantic_encoder",),
    "autoencoder": ("compression",),
}
LATENT_STATISTICS = ("compression.latent_mean", "compression.latent_std")
TIMESTEPS = 1000
TIME_GRID = "int(linspace(0, T - 1, N + 1)) for N steps"


@dataclass(frozen=True)
class OfficialContract:
    """Settings of the published model that its tensors do not hold; the defaults are the published values.

    Attributes:
        heads: of the UNet's attention.
        encoder_heads: of the semantic encoder's attention.
        stride: downsampling of the UNet along each latent axis.
        groups: of the compression network's norms.
        shape: voxels of the scans along right, anterior, superior.
        voxel_size_mm: edge of their voxels in mm.
        latent_scale: what raw latents are multiplied with.
        clamp: bound of the predicted clean latent.
        steps: of the time grid; the most of the published 50 to 100, as `configs/paper` takes: DDIM inverts the better the
            more it takes.
    """

    heads: int = 1
    encoder_heads: int = 8
    stride: tuple[int, int, int] = (1, 2, 2)
    groups: int = 32
    shape: tuple[int, int, int] = (128, 160, 128)
    voxel_size_mm: float = 1.5
    latent_scale: float = 0.8730
    clamp: float = 1.0
    steps: int = 100

    def __post_init__(self) -> None:
        counts = (self.heads, self.encoder_heads, self.groups, *self.stride, *self.shape, self.steps)
        if min(counts) < 1 or self.latent_scale <= 0 or self.clamp <= 0 or self.steps >= TIMESTEPS:
            msg = (
                f"heads, stride, groups, shape, latent scale and clamp must be positive and steps in 1..{TIMESTEPS - 1}, "
                f"got {self}"
            )
            raise ConfigError(msg)


def plan_official(
    decoder: Path,
    encoder: Path,
    autoencoder: Path,
    contract: OfficialContract | None = None,
    *,
    ignore: Sequence[str] = (),
) -> OfficialConversion:
    """Rename and check the three published checkpoints; nothing is written yet.

    Args:
        decoder: denoiser and gradient estimator.
        encoder: semantic encoder.
        autoencoder: compression autoencoder. One file may hold several of the three.
        contract: what no tensor tells.
        ignore: beginnings of names that are left out.

    Raises:
        CheckpointError: if a tensor is missing, unexpected or of another shape, or if the three do not belong together.
        ConfigError: if the contract does not suit the networks.
    """
    contract = contract or OfficialContract()
    files: dict[Path, WeightsFile] = {}
    for path in (decoder, encoder, autoencoder):
        files[path] = files.get(path) or read_weights_file(path, ignore)
    denoising, decoder_shape = rename_decoder(files[decoder])
    encoding, encoder_shape = rename_encoder(files[encoder])
    compressing, autoencoder_shape = rename_autoencoder(files[autoencoder])
    _check_together("code width", (decoder, decoder_shape.semantic_width), (encoder, encoder_shape.widths[-1]))
    _check_together(
        "latent channels",
        (decoder, decoder_shape.latent_channels),
        (autoencoder, autoencoder_shape.latent_channels),
    )
    _check_positions(encoding, encoder_shape, contract)
    config = AutoencoderConfig(
        semantic_encoder=_encoder_config(encoder_shape, contract),
        preprocessing=Preprocessing(shape=contract.shape, voxel_size_mm=contract.voxel_size_mm),
        compression=_compression_config(autoencoder_shape, contract.groups),
        # Spelled out, so that published weights keep their meaning whatever the defaults become.
        schedule=ScheduleConfig(kind="linear", timesteps=TIMESTEPS, beta_start=1e-4, beta_end=2e-2),
        denoiser=_denoiser_config(decoder_shape, contract.heads, contract.stride),
        shift="score",
        sampling=SamplingConfig(solver="ddim", steps=contract.steps, corrections=0, clamp=contract.clamp),
    )
    with torch.device("meta"):
        networks = Networks(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in networks.state_dict().items()}
    accounts = {"decoder": denoising, "encoder": encoding, "autoencoder": compressing}
    for kind, account in accounts.items():
        check_complete(account, _of(shapes, PARTS[kind]))
    return OfficialConversion(
        accounts=accounts,
        shapes=shapes,
        facts={
            "origin": "converted from published checkpoints",
            **_file_facts(accounts),
            "semantic shift": "score form: eps - sqrt(1 - alpha_bar_t) G",
            "clamp": f"predicted clean latent to [-{contract.clamp:g}, {contract.clamp:g}]",
            "time grid": TIME_GRID,
            "latent scale": f"{contract.latent_scale:g}",
            "label order": "AD = 0, CN = 1",
            "assumed, for no tensor tells": "grid, orientation and intensities of the scans, attention heads, UNet stride",
        },
        computed=_latent_statistics(autoencoder_shape.latent_channels, contract.latent_scale),
        config=config,
        parameters={name: sum(p.numel() for p in child.parameters()) for name, child in networks.named_children()},
    )


def plan_autoencoder(
    path: Path, *, groups: int = 32, latent_scale: float = 1.0, ignore: Sequence[str] = ()
) -> NetworkConversion:
    """Rename and check an AutoencoderKL's weights; nothing is written yet.

    Args:
        path: weights of MONAI, of GenerativeModels, or of a bundle of the model zoo.
        groups: of its norms, which no tensor tells.
        latent_scale: what raw latents are multiplied with to be of unit variance; 1 leaves them as they are.
        ignore: beginnings of names that are left out.

    Raises:
        CheckpointError: if a tensor is missing, unexpected or of another shape.
        ConfigError: if the widths are no multiples of the groups.
    """
    if groups < 1 or latent_scale <= 0:
        msg = f"groups and latent scale must be positive, got {groups} and {latent_scale}"
        raise ConfigError(msg)
    account, shape = rename_autoencoder(read_weights_file(path, ignore))
    config = _compression_config(shape, groups)
    with torch.device("meta"):
        network = CompressionAutoencoder(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    prefixed = {f"compression.{name}": each for name, each in shapes.items()}
    check_complete(account, _of(prefixed, PARTS["autoencoder"]))
    accounts = {"autoencoder": account}
    return NetworkConversion(
        network="compression",
        accounts=accounts,
        shapes=shapes,
        facts={
            "origin": "converted from AutoencoderKL weights",
            **_file_facts(accounts),
            "latent scale": f"{latent_scale:g}",
        },
        computed=_latent_statistics(shape.latent_channels, latent_scale),
        config=config,
    )


def plan_denoiser(
    path: Path, *, heads: int = 1, stride: tuple[int, int, int] = (1, 2, 2), ignore: Sequence[str] = ()
) -> NetworkConversion:
    """Rename and check a denoiser, as the second training stage leaves it; nothing is written yet.

    Args:
        path: the second stage's checkpoint.
        heads: of its attention, which no tensor tells.
        stride: its downsampling along each latent axis, which no tensor tells.
        ignore: beginnings of names that are left out.

    Raises:
        CheckpointError: if a tensor is missing, unexpected or of another shape.
        ConfigError: if the heads do not suit the widths.
    """
    account, shape = rename_decoder(read_weights_file(path, ignore), alone=True)
    config = _denoiser_config(shape, heads, stride)
    with torch.device("meta"):
        network = Denoiser(config, shape.latent_channels)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    check_complete(account, {f"denoiser.{name}": each for name, each in shapes.items()})
    accounts = {"denoiser": account}
    facts = {"origin": "converted from a published denoiser", **_file_facts(accounts)}
    return NetworkConversion(
        network="denoiser", accounts=accounts, shapes=shapes, facts=facts, computed={}, config=config
    )


def _denoiser_config(shape: DecoderShape, heads: int, stride: tuple[int, int, int]) -> DenoiserConfig:
    return DenoiserConfig(
        width=shape.width,
        multipliers=shape.multipliers,
        residual_blocks=shape.residual_blocks,
        attention_levels=shape.attention_levels,
        heads=heads,
        stride=stride,
        prediction="noise",
        coordinates=0,
    )


def _encoder_config(shape: EncoderShape, contract: OfficialContract) -> SemanticEncoderConfig:
    if shape.widths[-1] % contract.encoder_heads:
        msg = (
            f"the semantic encoder's width {shape.widths[-1]} is no multiple of {contract.encoder_heads} heads; "
            "set --encoder-heads"
        )
        raise ConfigError(msg)
    backbone = ConvNeXtConfig(depths=shape.depths, widths=shape.widths, stem=shape.stem)
    return SemanticEncoderConfig(slices=SliceEncoderConfig(backbone, heads=contract.encoder_heads))


def _compression_config(shape: AutoencoderShape, groups: int) -> CompressionConfig:
    attends = bool(shape.attention_levels) or shape.nonlocal_attention
    return CompressionConfig(
        channels=shape.channels,
        latent_channels=shape.latent_channels,
        residual_blocks=shape.residual_blocks,
        groups=groups,
        attention=CompressionAttention(shape.attention_levels, shape.nonlocal_attention) if attends else None,
    )


def _latent_statistics(channels: int, scale: float) -> dict[str, Tensor]:
    """Mean and std with which standardised latents are raw ones times the scale."""
    values = (torch.zeros(channels), torch.full((channels,), 1.0 / scale))
    return dict(zip(LATENT_STATISTICS, values, strict=True))


def _of(shapes: Mapping[str, tuple[int, ...]], parts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Tensors that a file must bring."""
    return {
        name: shape
        for name, shape in shapes.items()
        if name.partition(".")[0] in parts and name not in LATENT_STATISTICS
    }


def _check_together(what: str, one: tuple[Path, int], other: tuple[Path, int]) -> None:
    if one[1] != other[1]:
        msg = f"{what}: {one[1]} in {one[0]}, {other[1]} in {other[0]}; these are not files of one model"
        raise CheckpointError(msg)


def _check_positions(account: Renamed, shape: EncoderShape, contract: OfficialContract) -> None:
    """Compare stored slice positions with the formula that this package computes them from."""
    if shape.slices != contract.shape[2]:
        msg = (
            f"{account.file.path}: positions of {shape.slices} axial slices, but scans of {contract.shape} voxels have "
            f"{contract.shape[2]}; set --shape to the grid of that model"
        )
        raise CheckpointError(msg)
    expected = positional_encoding(shape.slices, shape.widths[-1])
    for name, stored in account.recomputed.items():
        tolerance = 1e-4 if stored.dtype == torch.float32 else 1e-2
        same = stored.shape == expected.shape and torch.allclose(stored.float(), expected, rtol=0.0, atol=tolerance)
        if not same:
            msg = (
                f"{account.file.path}: {name} is not the sinusoidal encoding of the slice positions that this encoder computes; "
                "this encoder is of another design"
            )
            raise CheckpointError(msg)


def _file_facts(accounts: Mapping[str, Renamed]) -> dict[str, str]:
    facts = {}
    for kind, account in accounts.items():
        widened = ", ".join(f"{count} tensors widened from {name}" for name, count in account.widened.items())
        facts[f"{kind} file"] = f"{account.file.path.name}, SHA-256 {account.file.sha256}" + (
            f", {widened} to float32" if widened else ""
        )
    return facts
