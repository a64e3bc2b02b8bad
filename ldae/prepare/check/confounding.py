"""Confounding: diagnoses that age, sex or site predict, which a probe would then learn instead of disease."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from ldae.head.findings import WARNING, Finding
from ldae.metrics.statistics import holm

__all__ = ["check_confounding"]

# Of three tests, after Holm's correction.
SIGNIFICANCE = 0.05
# Cohen's medium effects: 6 % of the variance; a contingency of 0.3.
MIN_ETA_SQUARED, MIN_CRAMER_V = 0.06, 0.3
MIN_PER_CLASS = 3
# A site of fewer subjects than this may have one diagnosis by chance.
MIN_AT_SITE = 5


def check_confounding(table: pd.DataFrame) -> list[Finding]:
    """Tests of diagnosis with age (analysis of variance), sex and site (chi-squared), one row a subject.

    Args:
        table: canonical columns; the first row of each subject counts.
    """
    subjects = table.drop_duplicates("participant_id").dropna(subset=["diagnosis"])
    counts = subjects["diagnosis"].value_counts()
    subjects = subjects[subjects["diagnosis"].isin(counts.index[counts >= MIN_PER_CLASS])]
    if subjects["diagnosis"].nunique() < 2:
        return []
    tests = [*_test_age(subjects), *_test_categories(subjects)]
    adjusted = holm([p for _, p, _, _ in tests]) if tests else []
    found = []
    for (column, _, large, words), p in zip(tests, adjusted, strict=True):
        if p < SIGNIFICANCE and large:
            message = f"diagnosis depends on {column}: {words}, p = {p:.2g} after Holm"
            remedy = (
                f"control for it ('ldae probe --confounds {column} --control match', or residualise) and report results "
                f"by {column} ('--by {column}')"
            )
            found.append(Finding(WARNING, f"confounded-{column}", message, remedy))
    return found + _sites_of_one_kind(subjects)


def _test_age(subjects: pd.DataFrame) -> Iterator[tuple[str, float, bool, str]]:
    """Column, p, a sufficient effect, and the effect in words."""
    groups = {
        str(name): ages.to_numpy()
        for name, ages in subjects.dropna(subset=["age"]).groupby("diagnosis")["age"]
        if len(ages) >= MIN_PER_CLASS
    }
    everyone = np.concatenate(list(groups.values())) if groups else np.empty(0)
    if len(groups) < 2 or np.ptp(everyone) == 0:
        return
    p = float(stats.f_oneway(*groups.values()).pvalue)
    between = sum(len(ages) * (ages.mean() - everyone.mean()) ** 2 for ages in groups.values())
    eta_squared = float(between / ((everyone - everyone.mean()) ** 2).sum())
    means = ", ".join(f"{name} {ages.mean():.1f}" for name, ages in groups.items())
    words = f"{means} years, eta squared {eta_squared:.2f}"
    yield "age", 0.0 if np.isnan(p) else p, eta_squared >= MIN_ETA_SQUARED, words


def _test_categories(subjects: pd.DataFrame) -> Iterator[tuple[str, float, bool, str]]:
    for column in ("sex", "site"):
        known = subjects.dropna(subset=[column])
        contingency = pd.crosstab(known["diagnosis"], known[column])
        if min(contingency.shape) > 1:
            v = _cramer_v(contingency.to_numpy())
            words = f"Cramer's V {v:.2f} over {len(known)} subjects"
            yield column, float(stats.chi2_contingency(contingency).pvalue), v >= MIN_CRAMER_V, words


def _cramer_v(contingency: np.ndarray) -> float:
    """Cramer's V with Bergsma's correction (2013): without it, small tables look associated by chance."""
    n = int(contingency.sum())
    rows, columns = contingency.shape
    phi_squared = float(stats.chi2_contingency(contingency, correction=False).statistic) / n
    corrected = max(0.0, phi_squared - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1))
    return float(np.sqrt(corrected / max(smaller - 1, 1e-12)))


def _sites_of_one_kind(subjects: pd.DataFrame) -> list[Finding]:
    sites = subjects.dropna(subset=["site"]).groupby("site")["diagnosis"].agg(["nunique", "size", "first"])
    alone = sites[(sites["nunique"] == 1) & (sites["size"] >= MIN_AT_SITE)]
    if len(alone) == 0:
        return []
    words = ", ".join(f"{site} ({row['size']} subjects, all {row['first']})" for site, row in alone.iterrows())
    message = f"sites with one diagnosis only: {words}"
    remedy = "leave them out of comparisons of diagnoses: the difference may be the scanner's"
    return [Finding(WARNING, "site-of-one-diagnosis", message, remedy)]
