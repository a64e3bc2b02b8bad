"""The manifest's values of each scan, from the rows of tables that speak of its visit and its subject.

- **age**: from the date of birth and the date of the scan; else the age at the visit, moved by the time between visit and
  scan; else the age at baseline and the time since.
- **months**: from the column of months or the visit's code; else from days since entry or dates, counted from the subject's
  first scan. One way for all scans of a subject.
- **diagnosis**: at the visit; the one at baseline goes to scans of month 0 only. Where it is missing it is n/a, unless the
  map allows that of the nearest visit (`carry_days`); `diagnosis_gap_days` then holds the days between.
- **sex** and **date of birth** are of the subject: rows that disagree give n/a.
"""

import pandas as pd

from ldae.data.schema import MAX_AGE_YEARS
from ldae.data.text_table import shortlist
from ldae.prepare.imports.dates import DAYS_PER_YEAR, months_since_first
from ldae.prepare.imports.study_map import StudyMap
from ldae.prepare.imports.study_tables import EXTRA

__all__ = ["scan_values"]


def scan_values(
    scans: pd.DataFrame, pairs: pd.DataFrame, visits: pd.DataFrame, study: StudyMap, doubts: list[str]
) -> pd.DataFrame:
    """The manifest's columns for each scan but the image; index as in `scans`."""
    rows = pairs.join(visits, on="row")
    at_visit = rows.groupby("scan").first().reindex(scans.index)
    scans = scans.assign(
        day=scans["day"].fillna(at_visit["day"]),
        date=scans["date"].fillna(at_visit["exam_date"]),
        stated_day=scans["day"],
    )
    own = visits[visits["subject"].isin(scans["subject"])]

    def of_subject(values: pd.Series) -> pd.Series:
        return values.reindex(scans["subject"]).set_axis(scans.index)

    sex, born, entry_age = (
        of_subject(_agreed(own, column, what, doubts))
        for column, what in (("sex", "sex"), ("birth_date", "date of birth"), ("baseline_age", "age at baseline"))
    )
    rows["gap"] = _gap_days(scans, rows)
    gap_years = rows.groupby("scan")["gap"].first().reindex(scans.index).fillna(0) / DAYS_PER_YEAR
    moved_age = (rows["age"] + rows["gap"].fillna(0) / DAYS_PER_YEAR).groupby(rows["scan"]).first()
    since = at_visit["months"].fillna(scans["code_months"])
    age = (scans["date"] - born).dt.days / DAYS_PER_YEAR
    for other in (moved_age, entry_age + scans["day"] / DAYS_PER_YEAR, entry_age + since / 12 + gap_years):
        age = age.fillna(other)
    for scan in age.index[(age < 0) | (age > MAX_AGE_YEARS)]:
        doubts.append(f"age at {scans['image'][scan]} comes to {age[scan]:.1f} years, so n/a: check the dates")
    frame = scans[["participant_id", "session_id"]].assign(
        age=age.where(age.between(0, MAX_AGE_YEARS)).round(3),
        sex=sex,
        months=months_since_first(scans["subject"], since, scans["day"], scans["date"]).round(2),
    )
    anywhere = own.groupby("subject")[["site", "split", "baseline_diagnosis"]].first()
    for column in ("site", "split"):
        frame[column] = at_visit[column].fillna(of_subject(anywhere[column]))
    unkeyed = own[~own["keyed"]].groupby("subject").first()
    for column in visits.columns[visits.columns.str.startswith(EXTRA)]:
        frame[column.removeprefix(EXTRA)] = at_visit[column].fillna(of_subject(unkeyed[column]))
    frame["diagnosis"], gaps = _diagnosis(scans, rows, own, since, study, of_subject(anywhere["baseline_diagnosis"]))
    if gaps.gt(0).any():
        frame["diagnosis_gap_days"] = gaps.astype("Int64")
    return frame


def _diagnosis(
    scans: pd.DataFrame,
    rows: pd.DataFrame,
    own: pd.DataFrame,
    since: pd.Series,
    study: StudyMap,
    at_baseline: pd.Series,
) -> tuple[pd.Series, pd.Series]:
    """Diagnosis at each scan, and how many days from the scan it was made, where that is known."""
    stated = rows.dropna(subset="diagnosis").drop_duplicates("scan").set_index("scan").reindex(scans.index)
    diagnosis, gaps = stated["diagnosis"], stated["gap"].abs()
    diagnosis = diagnosis.fillna(at_baseline.where((since == 0) | (scans["stated_day"] == 0)))
    if study.diagnosis.carry_days > 0:
        missing = scans.loc[diagnosis.isna(), ["subject"]].reset_index(names="scan")
        near = missing.merge(own.dropna(subset="diagnosis"), on="subject")
        near["gap"] = _gap_days(scans, near).abs()
        near = near[near["gap"] <= study.diagnosis.carry_days].sort_values("gap", kind="stable")
        near = near.drop_duplicates("scan").set_index("scan")
        diagnosis, gaps = diagnosis.fillna(near["diagnosis"]), gaps.fillna(near["gap"])
    return diagnosis, gaps


def _gap_days(scans: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Days from each row's visit to its scan; negative where the visit came later."""
    days = rows["scan"].map(scans["day"]) - rows["day"]
    return days.fillna((rows["scan"].map(scans["date"]) - rows["exam_date"]).dt.days)


def _agreed(own: pd.DataFrame, column: str, what: str, doubts: list[str]) -> pd.Series:
    """The value of each subject whose rows agree."""
    known = own.dropna(subset=column).drop_duplicates(["subject", column])
    differing = known[known.duplicated("subject", keep=False)]
    for _, rows in differing.groupby("subject"):
        values = [f"{value} ({where})" for value, where in zip(rows[column], rows["where"], strict=True)]
        name = rows["participant_id"].iloc[0]
        doubts.append(f"{what} of {name} differs between rows, so n/a: {shortlist(values)}")
    return known.drop(index=differing.index).set_index("subject")[column]
