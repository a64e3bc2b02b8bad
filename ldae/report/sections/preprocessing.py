"""The page for quality control after preprocessing: the picture of every scan, worst first."""

import os
from collections.abc import Sequence
from pathlib import Path

from ldae.prepare.preprocess.derivatives import Outcome
from ldae.report.blocks import Cell, LinkedPicture, Row, Section, Table, Text
from ldae.report.wording import words

__all__ = ["failed_scans", "pictures_of_scans", "rated_scans"]

HOW_TO_LOOK = (
    "Red outlines the brain mask, blue the template's brain. The brain should be whole and upright: anterior on the left of "
    "sagittal sections, the subject's right on the left of the others (radiological convention). Red should follow the "
    "brain's surface without skull, eyes or neck. Blue should lie near red; an affine transform cannot match every brain. A "
    "mirrored header cannot be recognised in a picture."
)
SCORE = (
    "The score multiplies three values: the correlation with the template inside its brain, the share of the template's brain "
    "inside the field of view, and the overlap (Dice) of both brain masks. It orders the scans; it does not accept or reject."
)


def failed_scans(outcomes: Sequence[Outcome]) -> Section:
    """Scans that could not be preprocessed, with the reasons."""
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    if not failed:
        return Section("failed", "Failed: none", [Text(f"All {len(outcomes)} scans were preprocessed.")])
    rows = [Row(outcome.key, [words(outcome.failure)]) for outcome in failed]
    table = Table("Scans left out of the manifest", ("scan", "reason"), rows)
    return Section("failed", f"Failed: {len(failed)} of {len(outcomes)} scans", [table])


def rated_scans(outcomes: Sequence[Outcome]) -> Section:
    """Quality metrics of the scans, worst first."""
    rows = [
        Row(
            outcome.key,
            [
                *(
                    Cell(f"{each:.3f}")
                    for each in (quality.score, quality.correlation, quality.coverage, quality.overlap)
                ),
                Cell("" if outcome.brain_volume_ml is None else f"{outcome.brain_volume_ml:.0f}"),
                Cell("; ".join(outcome.warnings), prose=True),
            ],
        )
        for outcome in _worst_first(outcomes)
        if (quality := outcome.quality) is not None
    ]
    columns = ("scan", "score", "correlation", "coverage", "overlap (Dice)", "brain (ml)", "warnings")
    return Section("figures", "Metrics: worst first", [Text(SCORE), Table("Quality of each scan", columns, rows)])


def pictures_of_scans(outcomes: Sequence[Outcome], folder: Path) -> Section:
    """Pictures of the scans, worst first.

    Args:
        outcomes: of the scans.
        folder: of the page, for the links.
    """
    pictures = [
        LinkedPicture(
            path=Path(os.path.relpath(outcome.overlay, folder)).as_posix(),
            alt=f"Six sections through {outcome.key} in template space with the outlines of both brain masks",
            caption=f"{outcome.key}: {'; '.join(outcome.warnings) or 'no warnings'}",
        )
        for outcome in _worst_first(outcomes)
        if outcome.overlay is not None
    ]
    return Section("pictures", "Pictures: worst first", [Text(HOW_TO_LOOK, tone="note"), *pictures])


def _worst_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda outcome: 0.0 if outcome.quality is None else outcome.quality.score)
