"""One probe's file: its target and metrics, and table cells with pointers to where each number stands."""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from ldae.report.blocks import Cell
from ldae.report.source import Source, pointer, value_of
from ldae.report.wording import baseline_name, short_name

__all__ = ["CODES", "METRICS", "ProbeFile"]

CODES = "codes"

METRICS = {
    "auc": ("AUC", "Area under the ROC curve (AUC)", 3),
    "balanced_accuracy": ("Balanced accuracy", "Balanced accuracy (mean sensitivity of the classes)", 3),
    "sensitivity": ("Sensitivity", "Sensitivity (at a probability of 0.5)", 3),
    "specificity": ("Specificity", "Specificity (at a probability of 0.5)", 3),
    "brier": ("Brier score", "Brier score (0 is perfect, 0.25 a constant probability of 0.5)", 3),
    "log_loss": ("Log loss", "Log loss (0 is perfect)", 3),
    "mae": ("MAE", "Mean absolute error", 2),
    "rmse": ("RMSE", "Root mean squared error (large errors weigh more)", 2),
    "r2": ("R\u00b2", "R\u00b2 (1 is perfect, 0 is predicting the mean)", 2),
    "r": ("r", "Correlation of predicted and true values", 2),
    "concordance": ("Concordance", "Concordance (0.5 is chance, 1 is the true order of conversions)", 3),
}
"""Short name, long name and digits of each metric."""
UNITS = {"age": " years"}


class ProbeFile:
    """One probe's file; what is missing raises a KeyError.

    Args:
        document: content of probe_TARGET.json.
        source: its path, as cells name it.
        own: name of the embeddings under test.
    """

    def __init__(self, document: Mapping[str, Any], source: str, own: str) -> None:
        self.document = document
        self.own = own
        self.name = str(document["target"]["name"])
        self.kind = str(document["target"]["kind"])
        self.classes = [str(each) for each in document["target"]["classes"]]
        self.scored: Mapping[str, Any] = document["scored"]
        self.primary = str(document["primary"])
        self.higher_is_better = bool(document["higher_is_better"])
        self.digits = METRICS[self.primary][2]
        self.unit = UNITS.get(self.name, "")
        at = Source(source, document)
        self.cell, self.estimate, self.p_value = at.cell, at.estimate, at.p_value
        self.pointer = partial(pointer, source)

    @cached_property
    def values(self) -> dict[str, float]:
        """The primary metric of every kind of features."""
        return {name: value_of(each, "metrics")[self.primary]["value"] for name, each in self.scored.items()}

    def metric(self, *keys: str | int, metric: str, best: bool = False) -> list[Cell]:
        """A metric and its interval."""
        return self.estimate(*keys, metric, digits=METRICS[metric][2], best=best)

    def called(self, features: str) -> str:
        """Long name of a kind of features."""
        return self.own if features == CODES else baseline_name(features)

    def briefly(self, features: str) -> str:
        """Short name of a kind of features."""
        return self.own if features == CODES else short_name(features)
