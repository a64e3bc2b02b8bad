"""The published checkpoints: their names to ours, and the architecture that the shapes of their tensors imply."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ldae.errors import CheckpointError
from ldae.io.renaming import Renamed, find_network
from ldae.io.weights_file import WeightsFile

__all__ = ["DecoderShape", "EncoderShape", "rename_decoder", "rename_encoder"]

BLOCK = {
    "in_layers.0": "norm_in",
    "in_layers.2": "conv_in",
    "emb_layers.1": "time_projection",
    "emb_z_layers.1": "semantic_projection",
    "out_layers.0": "norm_out",
    "out_layers.3": "conv_out",
    "skip_connection": "skip",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "projection"}
HEAD = {"0": "norm", "2": "head"}
OUTSIDE_BLOCKS = {
    "time_embed.0": "denoiser.time_embedding.0",
    "time_embed.2": "denoiser.time_embedding.2",
    "label_emb": "gradient_estimator.semantic_embedding",
    "input_blocks.0.0": "denoiser.encoder.stem",
}
MIDDLE = {"0": "middle_in.block", "1": "middle_in.attention", "2": "middle_out"}
ENCODER = {
    "backbone.backbone.": "backbone.",
    "soft_attention.linear.": "slice_score.",
    "query_projection.": "query.",
    "key_projection.": "key.",
    "value_projection.": "value.",
    "cross_attention.": "cross_attention.",
    "layer_norm_after_attention.": "norm.",
}
SECOND_BACKBONE = "slice_distributed.module.backbone."
POSITIONS = "positional_encoding.pe"
CODE_LAYER = "label_emb.weight"


@dataclass(frozen=True)
class DecoderShape:
    """Architecture of a published decoder.

    Attributes:
        latent_channels: C.
        width: channels of the finest level.
        multipliers: width of each level relative to the first.
        residual_blocks: a level on the way down.
        attention_levels: levels with self-attention.
        semantic_width: S, of the code that it takes; 0 of a denoiser alone.
    """

    latent_channels: int
    width: int
    multipliers: tuple[int, ...]
    residual_blocks: int
    attention_levels: tuple[int, ...]
    semantic_width: int


@dataclass(frozen=True)
class EncoderShape:
    """Architecture of a published semantic encoder.

    Attributes:
        depths: residual blocks of each stage of the backbone.
        widths: channels of each stage.
        stem: patch size of the first layer, pixels.
        slices: axial slices that have a position.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: int
    slices: int


def rename_decoder(file: WeightsFile, *, alone: bool = False) -> tuple[Renamed, DecoderShape]:
    """The denoiser and, unless it is alone, the gradient estimator: the account of their tensors, and the architecture.

    Args:
        file: a published decoder, alone or in a Lightning checkpoint.
        alone: whether it is a denoiser without a gradient estimator, as the second stage leaves it.

    Raises:
        CheckpointError: if the file holds no decoder, or one whose architecture cannot be read.
    """
    inside, prefix, account = find_network(file, "decoder")
    shape = _decoder_shape(file, inside, alone)
    for name, tensor in inside.items():
        ours = decoder_name(name)
        if ours is None:
            account.unexpected.append(prefix + name)
        else:
            # Queries, keys, values and the projection are convolutions of size 1 there, linear layers here.
            linear = ".attention." in ours and tensor.ndim == 3 and tensor.shape[-1] == 1
            account.add(ours, prefix + name, tensor[..., 0] if linear else tensor)
    return account, shape


def decoder_name(name: str) -> str | None:
    """Our name of a tensor of the published decoder, or None."""
    place, _, parameter = name.rpartition(".")
    if parameter not in ("weight", "bias"):
        return None
    if place in OUTSIDE_BLOCKS:
        return f"{OUTSIDE_BLOCKS[place]}.{parameter}"
    network = "gradient_estimator" if place.startswith("shift_") else "denoiser"
    ours = None
    match place.removeprefix("shift_").split("."):
        case ["out", layer]:
            ours = HEAD.get(layer)
        case ["middle_block", position, *layer] if position in MIDDLE:
            ours = _inside(MIDDLE[position], ATTENTION if position == "1" else BLOCK, layer)
        case ["input_blocks", index, ("0" | "1") as position, *layer] if index.isdecimal() and network == "denoiser":
            kind, table = (("block", BLOCK), ("attention", ATTENTION))[int(position)]
            ours = _inside(f"stages.{int(index) - 1}.{kind}", table, layer) if index != "0" else None
            return None if ours is None else f"denoiser.encoder.{ours}.{parameter}"
        case ["output_blocks", index, position, *layer] if index.isdecimal():
            attends = position != "0" and ".".join(layer) in ATTENTION
            kind = "block" if position == "0" else "attention" if attends else "up"
            ours = _inside(f"stages.{index}.{kind}", ATTENTION if attends else BLOCK, layer)
    return None if ours is None else f"{network}.decoder.{ours}.{parameter}"


def _inside(prefix: str, table: Mapping[str, str], layer: list[str]) -> str | None:
    """Our name of a layer inside a block or an attention."""
    ours = table.get(".".join(layer))
    return None if ours is None else f"{prefix}.{ours}"


def _decoder_shape(file: WeightsFile, inside: Mapping[str, Tensor], alone: bool) -> DecoderShape:
    def shape_of(name: str) -> tuple[int, ...]:
        if name in inside:
            return tuple(inside[name].shape)
        msg = f"{file.path}: the decoder lacks {name}; the file is incomplete or of another version: download it again"
        if name == CODE_LAYER:
            msg = (
                f"{file.path}: a denoiser without a gradient estimator (no {name}), as the second training stage leaves it; "
                "give the decoder of the third stage, or train that stage: 'ldae convert denoiser' reads this file"
            )
        raise CheckpointError(msg)

    stem = shape_of("input_blocks.0.0.weight")
    if len(stem) != 5:
        msg = f"{file.path}: a network of {len(stem) - 2} spatial dimensions, only 3 are supported; give the 3D checkpoint"
        raise CheckpointError(msg)
    # On the way up, a level is `residual_blocks` + 1 blocks, and all but the finest end in a block that resamples.
    blocks = len(list(_counted(inside, "output_blocks.{}.0.in_layers.0.weight")))
    widths, ends, attends = [], [], []
    for index in range(blocks):
        widths.append(shape_of(f"output_blocks.{index}.0.out_layers.3.weight")[0])
        attends.append(f"output_blocks.{index}.1.qkv.weight" in inside)
        if any(f"output_blocks.{index}.{place}.in_layers.0.weight" in inside for place in (1, 2)):
            ends.append(index)
    levels = len(ends) + 1
    size = blocks // levels
    if size < 2 or blocks % levels or ends != [size * (level + 1) - 1 for level in range(levels - 1)]:
        msg = (
            f"{file.path}: {blocks} output blocks with resampling after blocks {ends} do not make levels of equal depth; "
            "this UNet is of another design"
        )
        raise CheckpointError(msg)
    finest_first = [widths[start] for start in range(0, blocks, size)][::-1]
    attention = [attends[start] for start in range(0, blocks, size)][::-1]
    width = stem[0]
    if any(each % width for each in finest_first):
        msg = f"{file.path}: level widths {finest_first} are not multiples of {width}; this UNet is of another design"
        raise CheckpointError(msg)
    return DecoderShape(
        latent_channels=stem[1],
        width=width,
        multipliers=tuple(each // width for each in finest_first),
        residual_blocks=size - 1,
        attention_levels=tuple(level for level, attends_here in enumerate(attention) if attends_here),
        semantic_width=0 if alone else shape_of(CODE_LAYER)[-1],
    )


def _counted(inside: Mapping[str, Tensor], pattern: str) -> Iterator[Tensor]:
    """Tensors whose names count up from 0."""
    index = 0
    while (name := pattern.format(index)) in inside:
        yield inside[name]
        index += 1


def rename_encoder(file: WeightsFile) -> tuple[Renamed, EncoderShape]:
    """The semantic encoder: the account of its tensors, and the architecture. Its backbone is stored twice.

    Args:
        file: a published encoder, alone or in a Lightning checkpoint.

    Raises:
        CheckpointError: if the file holds no encoder, one whose architecture cannot be read, or two different backbones.
    """
    inside, prefix, account = find_network(file, "encoder")
    for name, tensor in inside.items():
        old = next((old for old in ENCODER if name.startswith(old)), None)
        if name == POSITIONS:
            account.recomputed[prefix + name] = tensor
        elif old is not None:
            account.add("semantic_encoder." + ENCODER[old] + name.removeprefix(old), prefix + name, tensor)
        elif not name.startswith(SECOND_BACKBONE):
            account.unexpected.append(prefix + name)
    for name, tensor in inside.items():
        if not name.startswith(SECOND_BACKBONE):
            continue
        ours = f"semantic_encoder.backbone.{name.removeprefix(SECOND_BACKBONE)}"
        # A writer that knows of shared tensors keeps either of the two names.
        if ours not in account.tensors:
            account.add(ours, prefix + name, tensor)
        elif torch.equal(account.tensors[ours], tensor):
            account.equal.append(prefix + name)
        else:
            msg = (
                f"{file.path}: the backbone is stored twice, and {prefix + name} differs from {account.sources[ours]}; "
                "which one was used cannot be known: take another checkpoint"
            )
            raise CheckpointError(msg)
    return account, _encoder_shape(account, inside.get(POSITIONS))


def _encoder_shape(account: Renamed, positions: Tensor | None) -> EncoderShape:
    features = "semantic_encoder.backbone.features"
    stem = account.tensors.get(f"{features}.0.0.weight")
    if stem is None or stem.ndim != 4 or stem.shape[1] != 1:
        shape = "missing" if stem is None else str(tuple(stem.shape))
        msg = (
            f"{account.file.path}: the first layer of a backbone over slices of one channel is expected, "
            f"(width, 1, patch, patch), and is {shape}; this encoder is of another design"
        )
        raise CheckpointError(msg)
    depths: list[int] = []
    widths: list[int] = []
    # Stages of residual blocks are layers 1, 3, 5, ..., with downsampling between them.
    while stage := list(_counted(account.tensors, f"{features}.{2 * len(depths) + 1}.{{}}.layer_scale")):
        depths.append(len(stage))
        widths.append(stage[0].shape[0])
    if positions is None or positions.ndim != 3 or not depths:
        msg = f"{account.file.path}: no slice positions ({POSITIONS}) or no backbone; this encoder is of another design"
        raise CheckpointError(msg)
    return EncoderShape(tuple(depths), tuple(widths), stem.shape[2], positions.shape[1])
