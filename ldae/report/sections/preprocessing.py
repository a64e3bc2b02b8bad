"""The page to look through after preprocessing: every scan's picture, worst first."""

import os
from collections.abc import Sequence
from pathlib import Path

from ldae.prepare.preprocess.derivatives import Outcome
from ldae.report.blocks import Cell, LinkedPicture, Row, Section, Table, Text

__all__ = ["failed_scans", "pictures_of_scans", "rated_scans"]

HOW_TO_LOOK = (
    "Red is the outline of the brain mask, blue that of the template's brain. The brain should be whole and the right way up: "
    "forehead at the left of the sagittal sections, cerebellum at the back, the subject's right at the left of the others. Red "
    "should follow the brain's surface without bits of skull, eyes or neck; blue should lie about where red does, though an "
    "affine transform cannot match every brain. A mirrored header cannot be recognised from a picture."
)
SCORE = (
    "Score: correlation with the template inside its brain, times the share of the template's brain inside the field of view, "
    "times the overlap (Dice) of the brain mask with the template's brain. It orders; it does not decide."
)


def failed_scans(outcomes: Sequence[Outcome]) -> Section:
    """What could not be preprocessed, and why."""
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    if not failed:
        return Section("failed", "Failed: none", (Text(f"All {len(outcomes)} scans were preprocessed."),))
    table = Table(
        "Left out of the manifest.",
        ("scan", "reason"),
        [Row(outcome.key, [Cell(outcome.failure or "", prose=True)]) for outcome in failed],
    )
    return Section("failed", f"Failed: {len(failed)} of {len(outcomes)} scans", (table,))


def rated_scans(outcomes: Sequence[Outcome]) -> Section:
    """The scans' figures, worst first."""
    rows = [
        Row(
            outcome.key,
            [
                Cell(f"{quality.score:.3f}"),
                Cell(f"{quality.correlation:.3f}"),
                Cell(f"{quality.coverage:.3f}"),
                Cell(f"{quality.overlap:.3f}"),
                Cell("" if outcome.brain_volume_ml is None else f"{outcome.brain_volume_ml:.0f}"),
                Cell("; ".join(outcome.warnings), prose=True),
            ],
        )
        for outcome in _worst_first(outcomes)
        if (quality := outcome.quality) is not None
    ]
    columns = ("scan", "score", "correlation", "coverage", "overlap", "brain, ml", "look at")
    return Section("figures", "Figures: worst first", (Text(SCORE), Table("", columns, rows)))


def pictures_of_scans(outcomes: Sequence[Outcome], folder: Path) -> Section:
    """The scans' pictures, worst first.

    Args:
        outcomes: of the scans.
        folder: where the page will lie, for the links.
    """
    pictures = [
        LinkedPicture(
            path=Path(os.path.relpath(outcome.overlay, folder)).as_posix(),
            alt=f"Six sections through {outcome.key} in template space with the outlines of both brain masks",
            caption=f"{outcome.key}: {'; '.join(outcome.warnings) or 'nothing to report'}",
        )
        for outcome in _worst_first(outcomes)
        if outcome.overlay is not None
    ]
    return Section("pictures", "Pictures: worst first", (Text(HOW_TO_LOOK, tone="note"), *pictures))


def _worst_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda outcome: 0.0 if outcome.quality is None else outcome.quality.score)
