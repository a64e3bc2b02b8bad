"""One probe's file, read with pointers to where each number stands."""

from collections.abc import Mapping
from typing import Any

from ldae.report.blocks import Cell
from ldae.report.run_folder import pointer
from ldae.report.wording import baseline_name, fixed

__all__ = ["CODES", "FIGURES", "ProbeFile"]

CODES = "codes"

FIGURES = {
    "auc": ("AUC", "Area under the ROC curve (AUC)", 3),
    "balanced_accuracy": ("Balanced accuracy", "Balanced accuracy (mean over classes of the share found)", 3),
    "sensitivity": ("Sensitivity", "Sensitivity (positive scans found, at a probability of 0.5)", 3),
    "specificity": ("Specificity", "Specificity (negative scans left alone, at a probability of 0.5)", 3),
    "brier": ("Brier score", "Brier score (squared error of the probability; 0 is perfect, 0.25 a coin)", 3),
    "log_loss": ("Log loss", "Log loss (0 is perfect)", 3),
    "mae": ("MAE", "Mean absolute error", 2),
    "rmse": ("RMSE", "Root mean squared error (large errors weigh more)", 2),
    "r2": ("R\u00b2", "R\u00b2 (1 is perfect, 0 is guessing the mean)", 2),
    "r": ("r", "Correlation of predicted and true values", 2),
    "concordance": ("Concordance", "Concordance (who converts first had the higher risk; 0.5 is chance)", 3),
}
UNITS = {"age": " years"}


class ProbeFile:
    """One probe's file, read with pointers to where each number stands.

    Args:
        document: content of probe_TARGET.json.
        source: its path, as cells name it.
        own: what the embeddings under test are called.
    """

    def __init__(self, document: Mapping[str, Any], source: str, own: str) -> None:
        self.document = document
        self.source = source
        self.own = own
        self.name = str(document["target"]["name"])
        self.kind = str(document["target"]["kind"])
        self.classes = [str(each) for each in document["target"]["classes"]]
        self.scored: Mapping[str, Any] = document["scored"]
        self.primary = str(document["primary"])
        self.others = [name for name in self.scored if name != CODES]
        self.digits = FIGURES[self.primary][2]
        self.unit = UNITS.get(self.name, "")

    def value(self, *keys: str | int) -> Any:
        """A value of the file."""
        found: Any = self.document
        for key in keys:
            found = found[key]
        return found

    def cell(self, *keys: str | int, digits: int = 3, best: bool = False) -> Cell:
        """A number of the file."""
        return Cell(fixed(self.value(*keys), digits), (pointer(self.source, *keys),), best)

    def interval(self, *keys: str | int, digits: int = 3) -> Cell:
        """Low and high end of an interval of the file."""
        interval = self.value(*keys)
        text = f"{fixed(interval['low'], digits)} to {fixed(interval['high'], digits)}"
        return Cell(text, tuple(pointer(self.source, *keys, end) for end in ("low", "high")))

    def p_value(self, *keys: str | int) -> Cell:
        """A p value, or that it is too small to be told in three decimals."""
        value = self.value(*keys)
        cell = self.cell(*keys)
        return Cell("below one in a thousand", cell.sources, prose=True) if value < 0.001 else cell

    def called(self, features: str) -> str:
        """A kind of features in words."""
        return self.own if features == CODES else baseline_name(features)
