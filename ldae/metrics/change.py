"""Change metrics: how well a predicted scan carries the change since an earlier one. SSIM alone cannot tell."""

import numpy as np
import numpy.typing as npt

__all__ = ["change_correlation", "change_error"]

Image = npt.NDArray[np.float32]


def change_error(predicted: Image, target: Image, start: Image) -> float:
    """Relative error of the predicted change, inside the brain of start or target.

    || (predicted - start) - (target - start) || / || target - start ||: 0 is perfect, 1 is what copying the start scores.

    Args:
        predicted: (D, H, W) in [0, 1].
        target: the real later scan.
        start: the real earlier scan.
    """
    brain = (target > 0) | (start > 0)
    truth = target[brain].astype(np.float64) - start[brain]
    error = predicted[brain].astype(np.float64) - target[brain]
    return float(np.linalg.norm(error)) / max(float(np.linalg.norm(truth)), 1e-12)


def change_correlation(predicted: Image, target: Image, start: Image) -> float:
    """Pearson correlation of the predicted with the true change map inside the brain; 0 where nothing is predicted."""
    brain = (target > 0) | (start > 0)
    truth = target[brain].astype(np.float64) - start[brain]
    change = predicted[brain].astype(np.float64) - start[brain]
    if change.std() < 1e-9 or truth.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(change, truth)[0, 1])
