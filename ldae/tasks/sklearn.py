"""The semantic encoder as a scikit-learn transformer: scans in, features out."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from ldae.errors import TaskError, VolumeError
from ldae.hardware import Device, Precision
from ldae.volume import Volume, read_volume

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder

__all__ = ["SemanticEncoderTransformer"]

Scan = str | os.PathLike[str] | Volume


class SemanticEncoderTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Semantic codes of scans, for pipelines of one's own.

    `make_pipeline(SemanticEncoderTransformer(folder), StandardScaler(), LogisticRegression())` takes paths where others take
    a table. Nothing is fitted: the encoder was trained before, without labels. Scans of its training subjects are no test.

    Args:
        model: folder of a trained model.
        device: where it runs.
        precision: of matrix work.
        batch_size: scans at a time.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "",
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        batch_size: int = 16,
    ) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.batch_size = batch_size

    def fit(self, X: Iterable[Scan], y: Any = None) -> Self:
        """Load the model; nothing is learnt from the scans.

        Args:
            X: paths or volumes; not read.
            y: not used.

        Raises:
            CheckpointError: if the folder holds no model.
        """
        self._loaded()
        return self

    def transform(self, X: Iterable[Scan]) -> npt.NDArray[np.float64]:
        """y of each scan, (N, S).

        Args:
            X: paths of NIfTI, MGZ or NRRD files, or volumes, skull-stripped in MNI152 space as the model was trained on.

        Raises:
            VolumeError: naming a scan that cannot be read or does not fit the model.
            TaskError: if there are no scans, or they are no list of paths and volumes.
        """
        model = self._loaded()
        scans = list(X)
        strange = [scan for scan in scans if not isinstance(scan, str | os.PathLike | Volume)]
        if not scans or strange:
            found = type(strange[0]).__name__ if strange else "nothing"
            msg = f"scans must be paths or volumes, got {found}; give a list of them, one a sample"
            raise TaskError(msg)
        codes = []
        for start in range(0, len(scans), self.batch_size):
            prepared = []
            for scan in scans[start : start + self.batch_size]:
                try:
                    prepared.append(model.prepare(scan if isinstance(scan, Volume) else read_volume(scan)))
                except VolumeError as error:
                    name = "a volume" if isinstance(scan, Volume) else os.fspath(scan)
                    msg = f"{name}: {error}" if name not in str(error) else str(error)
                    raise VolumeError(msg) from error
            codes += [each.semantic.numpy() for each in model.encode_prepared(prepared, noise=False)]
        return np.stack(codes).astype(np.float64)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """y000, y001, ..., as in tables of `ldae encode`."""
        width = self._loaded().config.semantic_encoder.semantic_width
        digits = len(str(width - 1))
        return np.array([f"y{index:0{digits}d}" for index in range(width)], dtype=object)

    def _loaded(self) -> "LatentDiffusionAutoencoder":
        """The model, read once; clones and copies on other processes read it again."""
        from ldae.autoencoder import LatentDiffusionAutoencoder

        folder = os.fspath(self.model)
        key = (folder, self.device, self.precision)
        if getattr(self, "_key", None) != key:
            self._autoencoder = LatentDiffusionAutoencoder.from_pretrained(
                folder, device=self.device, precision=self.precision
            )
            self._key = key
        return self._autoencoder

    def __getstate__(self) -> dict[str, Any]:
        """Parameters alone: weights stay in their folder."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("_autoencoder", "_key")}

    def __sklearn_is_fitted__(self) -> bool:
        """Always: the encoder was trained before."""
        return True

    def __sklearn_tags__(self) -> Tags:
        """Scans are no table of numbers, and nothing is fitted."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.requires_fit = False
        tags.no_validation = True
        return tags
