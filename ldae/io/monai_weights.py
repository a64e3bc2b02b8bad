"""AutoencoderKL weights of MONAI and of MONAI GenerativeModels: their names to ours, and the architecture they imply."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ldae.errors import CheckpointError
from ldae.io.renaming import Renamed, find_network
from ldae.io.weights_file import WeightsFile

__all__ = ["AutoencoderShape", "rename_autoencoder"]

PARTS = re.compile(r"(?:encoder|decoder)\.blocks\.\d+\.|(?:quant_conv_mu|quant_conv_log_sigma|post_quant_conv)\.conv\.")
LINEAR = re.compile(r"(\.blocks\.\d+)\.(to_[qkv]|proj_attn)\.(weight|bias)$")
UPSAMPLING = re.compile(r"(decoder\.blocks\.\d+)\.conv\.conv\.(weight|bias)$")

# The tensor that identifies the kind of a block.
MARKS = {
    "conv.weight": "c",
    "conv2.conv.weight": "r",
    "to_q.weight": "a",
    "attn.to_q.weight": "a",
    "conv.conv.weight": "d",
    "postconv.conv.weight": "u",
    "weight": "n",
}
LETTERS = "c convolution, r residual block, a attention, d downsampling, u upsampling, n norm"


@dataclass(frozen=True)
class AutoencoderShape:
    """Architecture of an AutoencoderKL, read from its tensors.

    Attributes:
        channels: width of each level.
        latent_channels: C.
        residual_blocks: a level.
        attention_levels: levels with self-attention after each residual block.
        nonlocal_attention: whether self-attention follows the coarsest level.
    """

    channels: tuple[int, ...]
    latent_channels: int
    residual_blocks: int
    attention_levels: tuple[int, ...]
    nonlocal_attention: bool


def rename_autoencoder(file: WeightsFile) -> tuple[Renamed, AutoencoderShape]:
    """The compression autoencoder: the account of its tensors, and the architecture.

    Args:
        file: an AutoencoderKL's weights, alone or in a Lightning checkpoint, by either package's names.

    Raises:
        CheckpointError: if the file holds no autoencoder, or one that the compression network cannot be.
    """
    inside, prefix, account = find_network(file, "autoencoder")
    for name, tensor in inside.items():
        if PARTS.match(name):
            account.add(f"compression.network.{autoencoder_name(name)}", prefix + name, tensor)
        else:
            account.unexpected.append(prefix + name)
    return account, _autoencoder_shape(file, inside)


def autoencoder_name(name: str) -> str:
    """MONAI's name of an AutoencoderKL tensor; GenerativeModels called attention and upsampling otherwise."""
    if match := LINEAR.search(name):
        layer = "out_proj" if match[2] == "proj_attn" else match[2]
        return f"{name[: match.start()]}{match[1]}.attn.{layer}.{match[3]}"
    return UPSAMPLING.sub(r"\1.postconv.conv.\2", name)


def _autoencoder_shape(file: WeightsFile, inside: Mapping[str, Tensor]) -> AutoencoderShape:
    """The architecture, read from the encoder's row of blocks."""
    row, widths = _blocks(inside, "encoder")
    # First and last convolution and the norm before the last frame the levels; strided convolutions part them.
    body = row[1:-2]
    if row[:1] != "c" or row[-2:] != "nc" or not re.fullmatch(r"[rad]+", body):
        raise CheckpointError(_unreadable(file, row))
    nonlocal_attention = body.endswith("rar")
    levels = body.split("d")
    if nonlocal_attention:
        levels[-1] = levels[-1][:-3]
    kinds = {(level.count("r"), "a" in level) for level in levels}
    counts = {count for count, _ in kinds}
    if len(counts) != 1 or any(not re.fullmatch(r"r+|(?:ra)+", level) for level in levels):
        raise CheckpointError(_unreadable(file, row))
    mirrored = "c" + "rar" * nonlocal_attention + "u".join(reversed(levels)) + "nc"
    found, _ = _blocks(inside, "decoder")
    if found != mirrored:
        msg = (
            f"{file.path}: the decoder's blocks are {found or 'none'}, where the encoder's ask for {mirrored} ({LETTERS}); a "
            "compression network attends alike in both, and does not resample by transposed convolutions"
        )
        raise CheckpointError(msg)
    first, latent = inside["encoder.blocks.0.conv.weight"], inside["quant_conv_mu.conv.weight"]
    if first.ndim != 5 or first.shape[1] != 1:
        msg = (
            f"{file.path}: its first layer has the shape {tuple(first.shape)}, but scans are three-dimensional with one channel, "
            "(width, 1, 3, 3, 3); give the weights of such an autoencoder"
        )
        raise CheckpointError(msg)
    return AutoencoderShape(
        # The first block of each level follows the first convolution or a downsampling.
        channels=tuple(widths[index + 1] for index, letter in enumerate(row) if index == 0 or letter == "d"),
        latent_channels=latent.shape[0],
        residual_blocks=counts.pop(),
        attention_levels=tuple(index for index, level in enumerate(levels) if "a" in level),
        nonlocal_attention=nonlocal_attention,
    )


def _blocks(inside: Mapping[str, Tensor], half: str) -> tuple[str, list[int]]:
    """The blocks of one half, a letter each as in :data:`LETTERS`, and their output widths."""
    row, widths, index = "", [], 0
    while found := [name for mark in MARKS if (name := f"{half}.blocks.{index}.{mark}") in inside]:
        letter = MARKS[found[0].split(".", 3)[3]]
        row += "u" if letter == "d" and half == "decoder" else letter
        widths.append(inside[found[0]].shape[0])
        index += 1
    return row, widths


def _unreadable(file: WeightsFile, row: str) -> str:
    return (
        f"{file.path}: the encoder's blocks are {row or 'none'} ({LETTERS}), which is not a row of levels with equally many "
        "residual blocks; a compression network cannot be that"
    )
