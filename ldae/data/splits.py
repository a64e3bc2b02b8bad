"""Splits: each subject in train, validation or test, frozen before any filter by label."""

import math

import numpy as np
import pandas as pd

from ldae.data.manifest import Manifest
from ldae.data.schema import SPLITS
from ldae.errors import ManifestError

__all__ = ["assign_splits", "external_split", "thin_splits"]

UNKNOWN = "unknown"
FEW_SUBJECTS = 8
"""Below which metrics on a split say next to nothing."""


def assign_splits(
    manifest: Manifest,
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    overwrite: bool = False,
) -> Manifest:
    """Give every subject a split, stratified by baseline diagnosis and age tercile.

    The subjects of each stratum are shuffled and the strata laid end to end; along that line each subject goes to the
    split that is furthest behind its share. So the totals are exact, every stratum is divided in proportion as far as
    its size allows, and small strata make up for each other. The result depends on the rows, not on their order.

    Args:
        manifest: the cohort.
        fractions: shares of the subjects in train, validation and test; they sum to 1.
        seed: chooses among the equally good splits.
        overwrite: replace splits that the manifest already has.

    Returns:
        The same rows with ``split`` filled. Every split with a non-zero share has at least one subject.

    Raises:
        ManifestError: if the manifest has splits already, the fractions are impossible, or the subjects too few.
    """
    if len(fractions) != len(SPLITS) or not all(math.isfinite(f) and f >= 0 for f in fractions):
        msg = f"the fractions of {', '.join(SPLITS)} must be three numbers of at least 0, got {fractions}"
        raise ManifestError(msg)
    if abs(sum(fractions) - 1.0) > 1e-6:
        msg = f"the fractions of {', '.join(SPLITS)} must sum to 1, got {fractions} (sum {sum(fractions):g})"
        raise ManifestError(msg)
    present = int(manifest.table["split"].notna().sum())
    if present and not overwrite:
        msg = (
            f"{manifest.path}: {present} of {len(manifest)} scans already have a split; a split is frozen so that no "
            "test subject is ever trained on: keep it, or give --force and train everything anew"
        )
        raise ManifestError(msg)
    subjects = _baseline(manifest.table)
    wanted = sum(fraction > 0 for fraction in fractions)
    if len(subjects) < wanted:
        msg = (
            f"{manifest.path}: {len(subjects)} subject(s) cannot fill {wanted} splits; "
            "add subjects, or set the fraction of a split to 0"
        )
        raise ManifestError(msg)
    line = _line_up(subjects, np.random.default_rng(seed))
    split_of = dict(zip(line, _deal(len(line), fractions), strict=True))
    table = manifest.table.copy()
    table["split"] = pd.Series([split_of[subject] for subject in table["participant_id"]], dtype=object)
    return Manifest(manifest.path, table)


def thin_splits(manifest: Manifest) -> list[str]:
    """What is wrong with splits that hold few subjects, or none of a diagnosis that the cohort has."""
    found = []
    diagnoses = set(manifest.table["diagnosis"].dropna())
    for name in SPLITS:
        part = manifest.in_split(name)
        if not len(part):
            continue
        if (count := len(part.subjects)) < FEW_SUBJECTS:
            found.append(f"{name} holds {count} subject{'s' if count > 1 else ''}, fewer than {FEW_SUBJECTS}")
        if absent := sorted(diagnoses - set(part.table["diagnosis"])):
            found.append(f"{name} has no subject of diagnosis {', '.join(absent)}")
    return found


def _baseline(table: pd.DataFrame) -> pd.DataFrame:
    """One row a subject, by id: its first session by months (unknown months last), then by age and session id."""
    ordered = table.sort_values(["participant_id", "months", "age", "session_id"], na_position="last")
    return ordered.drop_duplicates("participant_id").reset_index(drop=True)


def _line_up(subjects: pd.DataFrame, generator: np.random.Generator) -> list[str]:
    """Subject ids in random order within each stratum, stratum after stratum."""
    age = subjects["age"].to_numpy(dtype=np.float64)
    known = np.isfinite(age)
    tercile = np.full(len(subjects), 3)  # unknown ages are a stratum of their own, after the oldest
    if known.any():
        tercile[known] = np.searchsorted(np.quantile(age[known], [1 / 3, 2 / 3]), age[known])
    diagnosis = subjects["diagnosis"].fillna(UNKNOWN)
    chance = generator.permutation(len(subjects))
    return [subject for *_, subject in sorted(zip(diagnosis, tercile, chance, subjects["participant_id"], strict=True))]


def _deal(n: int, fractions: tuple[float, float, float]) -> list[str]:
    """Splits for n places in a line: exact totals, each prefix as close to the shares as it can be."""
    totals = _totals(n, fractions)
    dealt = [0] * len(totals)
    names = []
    for place in range(1, n + 1):
        open_splits = [i for i in range(len(totals)) if dealt[i] < totals[i]]
        furthest_behind = max(open_splits, key=lambda i: totals[i] * place / n - dealt[i])
        dealt[furthest_behind] += 1
        names.append(SPLITS[furthest_behind])
    return names


def _totals(n: int, fractions: tuple[float, float, float]) -> list[int]:
    """Whole numbers of subjects by largest remainder; a split with a non-zero share gets at least one."""
    totals = [math.floor(n * fraction + 1e-9) for fraction in fractions]
    by_remainder = sorted(range(len(totals)), key=lambda i: totals[i] - n * fractions[i])
    for i in by_remainder[: n - sum(totals)]:
        totals[i] += 1
    for i, fraction in enumerate(fractions):
        if fraction > 0 and totals[i] == 0:
            totals[totals.index(max(totals))] -= 1
            totals[i] = 1
    return totals


def external_split(trained: Manifest, tested: Manifest) -> Manifest:
    """All rows of two cohorts, to test on all of the second what was trained on all of the first, whatever their own splits.

    Raises:
        ManifestError: if a subject is in both.
    """
    both = sorted(set(trained.subjects) & set(tested.subjects))
    if both:
        msg = (
            f"{trained.path} and {tested.path}: {len(both)} subjects are in both (first: {both[0]}); an external test needs "
            "other people: rename them if they are"
        )
        raise ManifestError(msg)
    parts = [each.table.assign(split=split) for each, split in ((trained, "train"), (tested, "test"))]
    return Manifest(trained.path, pd.concat(parts, ignore_index=True))
