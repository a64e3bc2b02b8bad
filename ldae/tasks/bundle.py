"""A model as a MONAI bundle: a folder that `monai.bundle` verifies and runs, with the semantic encoder as its network.

Layout and metadata follow https://docs.monai.io/en/stable/mb_specification.html.
"""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import atomic_folder, check_new_folder, write_json
from ldae.errors import OutputError
from ldae.io.model_names import BUNDLED, find_model
from ldae.io.version import __version__

__all__ = ["SemanticNetwork", "export_bundle"]

METADATA = "configs/metadata.json"
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
INFERENCE = {
    "imports": ["$from ldae.cli.main import main"],
    "bundle_root": ".",
    "model": f"$@bundle_root + '/{BUNDLED}'",
    "network_def": {"_target_": "ldae.tasks.bundle.SemanticNetwork", "model": "@model"},
    "scans": [],
    "output": "codes.parquet",
    "run": ["$main(['encode', *@scans, '--model', @model, '--out', @output])"],
}
"""Runs with `python -m monai.bundle run --config_file configs/inference.json --scans "['head.nii.gz']"`."""


class SemanticNetwork(nn.Module):
    """The semantic encoder of a model as a network of its own.

    Args:
        model: folder or name of the model.
    """

    def __init__(self, model: str | Path) -> None:
        super().__init__()
        self._model = LatentDiffusionAutoencoder.from_pretrained(model, device="cpu", precision="fp32")
        self.networks = self._model.networks

    def forward(self, images: Tensor) -> Tensor:
        """y of prepared scans, (B, 1, D, H, W) in [0, 1]: (B, S) on their device, where the network must be too."""
        self._model.device = images.device
        return self._model.semantic(images).to(images.device)


def export_bundle(model: str | Path, out: Path, *, force: bool = False) -> Path:
    """Write a model as a MONAI bundle, which :meth:`LatentDiffusionAutoencoder.from_pretrained` reads too.

    Args:
        model: its folder or name.
        out: folder of the bundle.
        force: replace a bundle that was exported before.

    Raises:
        CheckpointError: if the model cannot be loaded.
        OutputError: if the folder holds something else, or lies in the model's.
    """
    check_new_folder(out, force=force, sign=METADATA)
    source = find_model(model).resolve()
    if source in (out.resolve(), *out.resolve().parents):
        msg = f"{out} lies in the model's own folder; give another with --out"
        raise OutputError(msg)
    loaded = LatentDiffusionAutoencoder.from_pretrained(source, device="cpu")
    with atomic_folder(out) as folder:
        shutil.copytree(source, folder / BUNDLED)
        (folder / "docs").mkdir()
        shutil.copyfile(source / "README.md", folder / "docs" / "README.md")
        (folder / METADATA).parent.mkdir()
        write_json(folder / METADATA, _metadata(loaded, Path(str(model).partition("@")[0]).resolve().name))
        write_json(folder / "configs" / "inference.json", INFERENCE)
    return out


def _metadata(model: LatentDiffusionAutoencoder, name: str) -> dict[str, Any]:
    contract, numbers = model.config.preprocessing, model.config.semantic_encoder.semantic_width
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": 1,
        "spatial_shape": list(contract.shape),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {"0": contract.modality},
    }
    code = {
        "type": "feature",
        "format": "vector",
        "num_channels": numbers,
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {},
    }
    return {
        "schema": SCHEMA,
        "version": __version__,
        "changelog": {__version__: f"exported from weights {model.fingerprint()[:12]}"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"ldae": __version__},
        "name": name,
        "task": "Representation of 3D brain MRI",
        "description": "Semantic encoder of a latent diffusion autoencoder; images, edits and samples with the package ldae",
        "authors": "see docs/README.md",
        "copyright": "see docs/README.md",
        "intended_use": "Research. Not a medical device; decoded images are synthetic and not for diagnosis.",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": code}},
    }
