"""Probe: the linear model on codes that a file keeps, that manipulation follows, and that predicts for other scans."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression

from ldae.base.files import read_json, write_json, write_text
from ldae.codes import Origin, check_origin
from ldae.errors import TaskError
from ldae.tasks.probe.models import FittedProbe

__all__ = ["LinearProbe", "predict", "write_predictions"]

Array = npt.NDArray[np.float64]

LARGEST, SMALLEST = float(np.finfo(np.float64).max), float(np.finfo(np.float64).tiny)
VECTORS = ("mean", "scale", "weights")
NUMBERS = {
    "mean": ("a list of finite numbers", -LARGEST),
    "scale": ("a list of finite numbers above 0", SMALLEST),
    "weights": ("a list of finite numbers", -LARGEST),
    "intercept": ("a finite number", -LARGEST),
    "spread": ("a finite number from 0 on", 0),
    "penalty": ("a finite number above 0", SMALLEST),
}
"""What a saved probe holds, and the least that it may be."""
OUTSIDE_SD = 4.0
"""A scan whose codes lie so many standard deviations from the training mean, in the root mean square, is unlike them."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted linear model w . (y - mean) / scale + intercept, on standardised features.

    Attributes:
        mean: of the training features, (S,).
        scale: their standard deviation, (S,).
        weights: w, (S,).
        intercept: of the model.
        spread: standard deviation of the training features along w / norm(w), in standardised units; the unit of a
            manipulation's step.
        logistic: whether the value is a logit.
        penalty: chosen on training subjects; None where it is not known, as of converted classifiers.
        origin: the model whose codes it was trained on, if known.
    """

    mean: Array
    scale: Array
    weights: Array
    intercept: float
    spread: float
    logistic: bool
    penalty: float | None = None
    origin: Origin | None = None

    @classmethod
    def of(cls, fitted: FittedProbe, features: Array, origin: Origin | None = None) -> "LinearProbe | None":
        """The linear probe inside a pipeline that was trained on features, (N, S), of a model.

        None if it is no binary or numeric linear model of the features alone.
        """
        steps = fitted.pipeline.named_steps
        linear = steps["model"]
        if (
            set(steps) != {"standardise", "model"}
            or np.ndim(np.squeeze(getattr(linear, "coef_", np.zeros((2, 2))))) != 1
        ):
            return None
        # However features were scaled for the fit, here each has a standard deviation of 1: so steps follow how they vary.
        mean, scale = steps["standardise"].mean_, features.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        weights = np.ravel(linear.coef_).astype(np.float64) / steps["standardise"].scale_ * scale
        direction = weights / max(float(np.linalg.norm(weights)), 1e-12)
        return cls(
            mean=mean,
            scale=scale,
            weights=weights,
            intercept=float(np.ravel(linear.intercept_)[0]),
            spread=float(np.std((features - mean) / scale @ direction)),
            logistic=isinstance(linear, LogisticRegression),
            penalty=fitted.penalty,
            origin=origin,
        )

    def value(self, features: Array) -> Array:
        """Logit or years, (N,)."""
        return (features - self.mean) / self.scale @ self.weights + self.intercept

    def predict(self, features: Array) -> Array:
        """Probability of the positive class, or years, (N,)."""
        value = self.value(features)
        return 1.0 / (1.0 + np.exp(-value)) if self.logistic else value

    @property
    def step(self) -> Array:
        """The change of y that moves it by one standard deviation of the training cohort along the probe, (S,)."""
        return self.spread * self.scale * self.weights / np.linalg.norm(self.weights)

    def save(self, path: Path) -> Path:
        """Write as JSON."""
        return write_json(path, {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()})

    @classmethod
    def load(cls, path: Path) -> "LinearProbe":
        """Read what :meth:`save` wrote.

        Raises:
            TaskError: if it is no probe, naming the field that is wrong.
        """
        try:
            plain, names = read_json(path), [each.name for each in fields(cls)]
            if not isinstance(plain, dict) or {*plain, "origin"} != set(names):
                got = ", ".join(plain) if isinstance(plain, dict) else str(plain)[:99]
                msg = f"it must hold {', '.join(names)}, got {got}"
                raise ValueError(msg)
            numbers: dict[str, Any] = {
                name: _numbers(name, plain[name]) for name in NUMBERS if name != "penalty" or plain[name] is not None
            }
            sizes = [len(numbers[name]) for name in VECTORS]
            if len(set(sizes)) > 1:
                msg = f"{', '.join(VECTORS)} must be of one length, got {sizes}"
                raise ValueError(msg)
            if not isinstance(plain["logistic"], bool):
                msg = f"logistic must be true or false, got {repr(plain['logistic'])[:99]}"
                raise ValueError(msg)
            origin = None if plain.get("origin") is None else Origin.of(plain["origin"])
            probe = cls(**numbers, logistic=plain["logistic"], origin=origin)
        except (OSError, ValueError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
            msg = (
                f"{path}: not a saved probe ({reason}); give probe_TARGET_model.json, which 'ldae probe' writes for the frozen "
                "split"
            )
            raise TaskError(msg) from error
        if origin is None:
            warnings.warn(
                f"{path}: names no model, so nothing tells if it suits the codes; train it again", stacklevel=2
            )
        return probe


def _numbers(name: str, plain: Any) -> Array | float:
    """The numbers, (S,), or the number of a field of a saved probe; ValueError if they are none, or out of range."""
    takes, lowest = NUMBERS[name]
    items = plain if name in VECTORS and isinstance(plain, list) else [plain]
    wrong = [each for each in items if type(each) not in (int, float) or not lowest <= each <= LARGEST]
    if wrong or not items or (name in VECTORS) != isinstance(plain, list):
        msg = f"{name} must be {takes}, got {repr((wrong or [plain])[0])[:99]}"
        raise ValueError(msg)
    return np.asarray(plain, dtype=np.float64) if name in VECTORS else float(plain)


def predict(probe: LinearProbe, keys: pd.DataFrame, codes: Array, origin: Origin | None = None) -> pd.DataFrame:
    """What a probe says of scans with these keys and codes, (N, S), of a model if it is known.

    Returns:
        A row a scan: its keys, `prediction` (probability of the positive class, or the number), and `distance`: root mean
        square of the standardised codes, about 1 for scans like those that the probe was trained on.

    Raises:
        TaskError: if the codes are of another model than the probe's, or have another width.
    """
    check_origin("the probe", probe.origin, origin)
    if codes.ndim != 2 or codes.shape[1] != len(probe.mean):
        msg = f"the probe reads {len(probe.mean)} features, the codes are {codes.shape}; encode with the probe's model"
        raise TaskError(msg)
    distance = np.sqrt(np.square((codes - probe.mean) / probe.scale).mean(axis=1))
    return keys.assign(prediction=probe.predict(codes), distance=distance)


def write_predictions(path: Path, table: pd.DataFrame) -> Sequence[str]:
    """Write the table as CSV or TSV; returns the keys of scans that are unlike the training scans."""
    separator = "\t" if path.suffix == ".tsv" else ","
    write_text(path, table.to_csv(sep=separator, index=False, float_format="%.6g"))
    far = table[table["distance"] > OUTSIDE_SD]
    return [str(key) for key in far["participant_id"]]
