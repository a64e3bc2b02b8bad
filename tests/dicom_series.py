"""DICOM series read back by the tests, and compared."""

from pathlib import Path

import numpy as np

from ldae.dicom.headers import Series, read_folder
from ldae.dicom.read import convert_series
from ldae.volume import Volume


def only_series(folder: Path) -> Series:
    """The one series in a folder."""
    (series,) = read_folder(folder).series
    return series


def read_only(folder: Path) -> Volume:
    """The one series in a folder as a volume."""
    return convert_series(only_series(folder)).volume


def assert_same(volume: Volume, other: Volume, tolerance: float = 1e-3) -> None:
    """Both hold the same intensities at the same places, whatever the order of their axes."""
    a, b = volume.to_ras(), other.to_ras()
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-4)
    np.testing.assert_allclose(a.data, b.data, atol=tolerance)
