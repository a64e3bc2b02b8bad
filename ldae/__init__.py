"""Latent diffusion autoencoders: representation learning on 3D medical images.

The public names load on first use, so that `import ldae` costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ldae.io.version import __version__ as __version__

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder as LatentDiffusionAutoencoder
    from ldae.codes import Codes as Codes
    from ldae.codes import interpolate as interpolate
    from ldae.codes import lerp as lerp
    from ldae.codes import slerp as slerp
    from ldae.config import load_experiment as load_experiment
    from ldae.data.manifest import Manifest as Manifest
    from ldae.data.manifest import read_manifest as read_manifest
    from ldae.data.manifest import write_manifest as write_manifest
    from ldae.data.splits import assign_splits as assign_splits
    from ldae.errors import LdaeError as LdaeError
    from ldae.report import write_report as write_report
    from ldae.report.plots.picture import show_slices as show_slices
    from ldae.tasks.native.scan import NativeScan as NativeScan
    from ldae.tasks.sklearn import SemanticEncoderTransformer as SemanticEncoderTransformer
    from ldae.tasks.study.run import run_study as run_study
    from ldae.training.experiment import Experiment as Experiment
    from ldae.training.fit import FitSettings as FitSettings
    from ldae.volume import Grid as Grid
    from ldae.volume import Volume as Volume
    from ldae.volume import read_volume as read_volume
    from ldae.volume import write_volume as write_volume

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
    "run_study": "ldae.tasks.study.run",
    "show_slices": "ldae.report.plots.picture",
    "slerp": "ldae.codes",
    "write_manifest": "ldae.data.manifest",
    "write_report": "ldae.report",
    "write_volume": "ldae.volume",
}

__all__ = [*_HOMES, "from_pretrained"]


def from_pretrained(name: str, **options: Any) -> "LatentDiffusionAutoencoder":
    """A trained model by its folder or name; see :meth:`LatentDiffusionAutoencoder.from_pretrained`.

    >>> from_pretrained("ldae-t1-3mm").config.preprocessing.voxel_size_mm
    3.0
    """
    model: LatentDiffusionAutoencoder = __getattr__("LatentDiffusionAutoencoder").from_pretrained(name, **options)
    return model


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module 'ldae' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
