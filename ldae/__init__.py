"""Latent diffusion autoencoders: representation learning on 3D medical images.

The public names load on first use, so that `import ldae` costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ldae.version import __version__ as __version__

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder
    from ldae.codes import Codes, interpolate, lerp, slerp
    from ldae.config import load_experiment
    from ldae.data.manifest import Manifest, read_manifest, write_manifest
    from ldae.data.splits import assign_splits
    from ldae.errors import LdaeError
    from ldae.report import write_report
    from ldae.tasks.native.scan import NativeScan
    from ldae.tasks.sklearn import SemanticEncoderTransformer
    from ldae.tasks.study import run_study
    from ldae.training.experiment import Experiment
    from ldae.training.fit import FitSettings
    from ldae.volume import Grid, Volume, read_volume, write_volume

_HOMES = {
    "Codes": "ldae.codes",
    "Experiment": "ldae.training.experiment",
    "FitSettings": "ldae.training.fit",
    "Grid": "ldae.volume",
    "LatentDiffusionAutoencoder": "ldae.autoencoder",
    "LdaeError": "ldae.errors",
    "Manifest": "ldae.data.manifest",
    "NativeScan": "ldae.tasks.native.scan",
    "SemanticEncoderTransformer": "ldae.tasks.sklearn",
    "Volume": "ldae.volume",
    "assign_splits": "ldae.data.splits",
    "interpolate": "ldae.codes",
    "lerp": "ldae.codes",
    "load_experiment": "ldae.config",
    "read_manifest": "ldae.data.manifest",
    "read_volume": "ldae.volume",
    "run_study": "ldae.tasks.study",
    "slerp": "ldae.codes",
    "write_manifest": "ldae.data.manifest",
    "write_report": "ldae.report",
    "write_volume": "ldae.volume",
}

__all__ = [
    "Codes",
    "Experiment",
    "FitSettings",
    "Grid",
    "LatentDiffusionAutoencoder",
    "LdaeError",
    "Manifest",
    "NativeScan",
    "SemanticEncoderTransformer",
    "Volume",
    "assign_splits",
    "interpolate",
    "lerp",
    "load_experiment",
    "read_manifest",
    "read_volume",
    "run_study",
    "slerp",
    "write_manifest",
    "write_report",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module 'ldae' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
