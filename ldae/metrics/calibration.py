"""Calibration: agreement of predicted probabilities and observed frequencies."""

import numpy as np
import numpy.typing as npt

__all__ = ["calibration_curve", "calibration_slope", "expected_calibration_error"]

Array = npt.NDArray[np.float64]
BINS = 10


def calibration_curve(target: Array, probability: Array) -> dict[str, list[float]]:
    """Reliability diagram with equally filled bins (Niculescu-Mizil and Caruana 2005).

    Args:
        target: 1 or 0, (N,).
        probability: of 1, (N,).

    Returns:
        `predicted`, the mean probability, `observed`, the share of positive cases, and `counts`, the number of cases, of each of
        ten bins; of fewer if there are fewer cases.
    """
    # Cases of one probability share their outcomes, so that their order has no effect; scikit-learn's bins differ here.
    _, tie = np.unique(probability, return_inverse=True)
    outcome = (np.bincount(tie, weights=target) / np.bincount(tie))[tie]
    parts = [part for part in np.array_split(np.argsort(probability, kind="stable"), BINS) if len(part)]
    return {
        "predicted": [float(probability[part].mean()) for part in parts],
        "observed": [float(outcome[part].mean()) for part in parts],
        "counts": [len(part) for part in parts],
    }


def expected_calibration_error(target: Array, probability: Array) -> float:
    """Mean distance of predicted and observed frequency over equally filled bins (Naeini et al. 2015).

    With few cases a bin it is above 0 even for true probabilities. Arguments as of :func:`calibration_curve`.
    """
    curve = calibration_curve(target, probability)
    return float(np.average(np.abs(np.subtract(curve["predicted"], curve["observed"])), weights=curve["counts"]))


def calibration_slope(target: Array, probability: Array) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of outcomes on logits (Cox 1958): 1 and 0 are perfect.

    Below 1, probabilities are too extreme. NaN for one class only. Arguments as of :func:`calibration_curve`.
    """
    from sklearn.linear_model import LogisticRegression

    if not 0 < target.mean() < 1:
        return float("nan"), float("nan")
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    logit = np.log(clipped / (1 - clipped))[:, None]
    fit = LogisticRegression(C=np.inf, max_iter=1000).fit(logit, target.astype(int))
    return float(fit.coef_[0, 0]), float(fit.intercept_[0])
