"""The semantic encoder as a scikit-learn transformer: scans in, features out."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from ldae.base.files import atomic_file, sha256_of
from ldae.base.hardware import Device, Precision
from ldae.data.inputs import ScanLike
from ldae.errors import TaskError
from ldae.head.intake import Preprocess
from ldae.io.model_names import DEFAULT_MODEL
from ldae.tasks.probe.embeddings import feature_names

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder

__all__ = ["SemanticEncoderTransformer"]


class SemanticEncoderTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Semantic codes of scans, for pipelines of one's own.

    `make_pipeline(SemanticEncoderTransformer(), StandardScaler(), Ridge())` takes paths where others take a table. Nothing is
    fitted: the encoder was trained before, without labels. Scans of its training subjects are no test.

    Args:
        model: folder or name of a trained model.
        preprocess: whether scans are preprocessed: `auto` finds out which are raw, True always does, False never.
        cache: folder that keeps the code of every file, under the file's content and the model; None keeps none.
        device: where it runs.
        precision: of matrix work.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        preprocess: Preprocess = "auto",
        cache: str | os.PathLike[str] | None = None,
        device: Device = "auto",
        precision: Precision = "auto",
    ) -> None:
        self.model = model
        self.preprocess = preprocess
        self.cache = cache
        self.device = device
        self.precision = precision

    def fit(self, X: Iterable[ScanLike], y: Any = None) -> Self:
        """Load the model; nothing is learnt from the scans, which are not read.

        Raises:
            CheckpointError: if there is no such model.
        """
        self._loaded()
        return self

    def transform(self, X: Iterable[ScanLike]) -> npt.NDArray[np.float64]:
        """y of each scan, (N, S).

        Args:
            X: files, volumes, or what else `model.encode` takes.

        Raises:
            VolumeError: naming a scan that cannot be read or does not fit the model.
            TaskError: if there are no scans.
        """
        model, scans = self._loaded(), list(X)
        if not scans:
            msg = "no scans were given; give a list of them, one a sample"
            raise TaskError(msg)
        places = [self._place(scan, model) for scan in scans]
        missing = [row for row, place in enumerate(places) if place is None or not place.is_file()]
        found = model.encode([scans[row] for row in missing], preprocess=self.preprocess, noise=False)
        codes = {row: each.numpy() for row, each in zip(missing, found, strict=True)}
        for row, place in enumerate(places):
            if place is not None and row in codes:
                with atomic_file(place) as temporary:
                    np.save(temporary, codes[row], allow_pickle=False)
            elif place is not None:
                codes[row] = np.load(place, allow_pickle=False)
        return np.stack([codes[row] for row in range(len(scans))]).astype(np.float64)

    def _place(self, scan: ScanLike, model: "LatentDiffusionAutoencoder") -> Path | None:
        """File that keeps a code; None for what is no file, or without a cache."""
        if self.cache is None or not isinstance(scan, str | os.PathLike) or not Path(scan).is_file():
            return None
        return Path(self.cache) / f"{sha256_of(Path(scan))[:24]}-{model.fingerprint()[:12]}-{self.preprocess}.npy"

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """y000, y001, ..., as in tables of `ldae encode`."""
        return np.array(feature_names(self._loaded().config.semantic_encoder.semantic_width), dtype=object)

    def _loaded(self) -> "LatentDiffusionAutoencoder":
        """The model, read once; clones and copies on other processes read it again."""
        from ldae.autoencoder import LatentDiffusionAutoencoder

        folder = os.fspath(self.model)
        key = (folder, self.device, self.precision)
        if getattr(self, "_key", None) != key:
            self._autoencoder = LatentDiffusionAutoencoder.from_pretrained(
                folder, device=self.device, precision=self.precision, semantic_only=True
            )
            self._key = key
        return self._autoencoder

    def __getstate__(self) -> dict[str, Any]:
        """Parameters alone: weights stay in their folder."""
        return {name: value for name, value in super().__getstate__().items() if name not in ("_autoencoder", "_key")}

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
