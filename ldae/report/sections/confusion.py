"""What scans of each class are taken for, of a probe that tells several classes apart."""

import numpy as np

from ldae.report.blocks import Cell, Row, Table
from ldae.report.probe_file import CODES, ProbeFile
from ldae.report.run_folder import pointer
from ldae.report.wording import fixed

__all__ = ["confusion"]


def confusion(probe: ProbeFile) -> list[Table]:
    """The confusion matrix of the code's most probable classes; none for other targets."""
    if probe.kind != "multiclass":
        return []
    from sklearn.metrics import confusion_matrix

    predictions = probe.document["predictions"]
    names = [f"{CODES}_{label}" for label in probe.classes]
    said = np.argmax([predictions[name] for name in names], axis=0)
    truth = np.asarray(predictions["target"], dtype=int)
    sources = tuple(pointer(probe.source, "predictions", name) for name in ("target", *names))
    rows = []
    for label, counts in zip(
        probe.classes, confusion_matrix(truth, said, labels=range(len(probe.classes))), strict=True
    ):
        total = int(counts.sum())
        shown = [f"{n} ({fixed(100 * n / total, 0)} %)" if total else "none" for n in counts.tolist()]
        rows.append(
            Row(f"{label}, {total} {'scan' if total == 1 else 'scans'}", [Cell(text, sources) for text in shown])
        )
    caption = (
        f"What scans of each class are taken for by the {probe.own}: counts, and shares of the row. Right on the diagonal; the "
        "most probable class, of predictions averaged over the repeats."
    )
    return [Table(caption, ("True class", *(f"taken for {label}" for label in probe.classes)), rows)]
