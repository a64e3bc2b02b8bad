"""Change metrics: agreement of the predicted and the true change since an earlier scan, which SSIM does not measure."""

import numpy as np
import numpy.typing as npt

__all__ = ["change_correlation", "change_error"]

Image = npt.NDArray[np.float32]


def _changes(predicted: Image, target: Image, start: Image) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Predicted and true change inside the brain of start or target, (V,) each."""
    brain = (target > 0) | (start > 0)
    change, truth = (each[brain].astype(np.float64) - start[brain] for each in (predicted, target))
    return change, truth


def change_error(predicted: Image, target: Image, start: Image) -> float:
    """Relative error of the predicted change: 0 is perfect, 1 is a copy of the start.

    || (predicted - start) - (target - start) || / || target - start ||, inside the brain of start or target.

    Args:
        predicted: (D, H, W) in [0, 1].
        target: the real later scan.
        start: the real earlier scan.
    """
    change, truth = _changes(predicted, target, start)
    return float(np.linalg.norm(change - truth)) / max(float(np.linalg.norm(truth)), 1e-12)


def change_correlation(predicted: Image, target: Image, start: Image) -> float:
    """Pearson correlation of predicted and true change; 0 where nothing changes. Arguments as of :func:`change_error`."""
    change, truth = _changes(predicted, target, start)
    return float(np.corrcoef(change, truth)[0, 1]) if min(change.std(), truth.std()) >= 1e-9 else 0.0
