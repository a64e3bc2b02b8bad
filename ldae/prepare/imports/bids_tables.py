"""The rows of a BIDS data set's tables that speak of its scans.

A table that cannot be read never stops an import: it is reported, and its values are missing. Values that a manifest has
no room for (an age of "89+", a sex that is neither F nor M) become n/a and are counted.
"""

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ldae.base.files import read_json
from ldae.errors import CohortError, ManifestError
from ldae.prepare.imports.columns import SEX_WORDS, SYNONYMS, Unusable, recognise
from ldae.prepare.imports.dates import try_date
from ldae.prepare.imports.import_report import Skipped
from ldae.prepare.imports.study_map import EVERY_COLUMN, StudyMap
from ldae.prepare.imports.study_tables import read_rows, typed_rows

__all__ = ["BidsTables"]

VISITS = StudyMap("tables of sessions", {**SYNONYMS, "exam_date": ("acq_time",)}, keep=(EVERY_COLUMN,))
# The age of a subject without sessions in the table is that at baseline.
SUBJECTS = StudyMap(
    "participants.tsv",
    {"baseline_age" if name == "age" else name: names for name, names in SYNONYMS.items() if name != "months"},
    keep=(EVERY_COLUMN,),
)
NO_ROWS = pd.DataFrame(columns=["participant_id"], index=pd.Index([], dtype=object), dtype=object)
NOT_USED = "a table that cannot be used"
CLASH = "two rows of a table that differ: neither is used; remove one"


class BidsTables:
    """The tables of one data set, and what was wrong with them.

    Args:
        root: the data set.

    Attributes:
        problems: tables and rows that could not be used.
        unusable: values that became n/a.
        listed: subjects of participants.tsv.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[Skipped] = []
        self.unusable = Unusable()
        text = self._text("participants.tsv")
        study = VISITS if "visit" in recognise(text.columns.tolist()) else SUBJECTS
        self._subjects = self._typed(text, study, "participants")
        self.listed = set(self._subjects["subject"])

    def visits(self, scans: pd.DataFrame) -> pd.DataFrame:
        """Rows as of :func:`ldae.prepare.imports.study_tables.typed_rows` of the scans' subjects, those of visits first.

        Args:
            scans: with a column `subject` ("sub-01"); the rows name visits likewise ("ses-1"), or none where they speak of
                the subject as a whole.
        """
        names = {subject: f"{subject}/{subject}_sessions.tsv" for subject in scans["subject"].unique()}
        tables = {subject: self._text(name) for subject, name in names.items() if (self.root / name).is_file()}
        text = [rows.assign(participant_id=subject) for subject, rows in tables.items()]
        visits = self._typed(pd.concat([NO_ROWS, *text]), VISITS, "sessions")
        for where in visits.loc[visits["visit"].isna(), "where"]:
            self.problems.append(Skipped(where, "a row without a session_id"))
        # A table of sessions with diagnoses knows of each visit, even where its cell is empty.
        knows = {subject for subject, rows in tables.items() if "diagnosis" in recognise(rows.columns.tolist())}
        subjects = self._subjects.assign(
            diagnosis=self._subjects["diagnosis"].mask(self._subjects["subject"].isin(knows), None)
        )
        rows = pd.concat([visits[visits["visit"].notna()], subjects], ignore_index=True)
        keys = ["table", "subject", "visit"]
        rows = rows.loc[~rows.drop(columns="where").astype("str").duplicated()]
        clash = rows.duplicated(keys, keep=False)
        for (_, subject, _), group in rows[clash].groupby(keys, dropna=False):
            self.problems.append(Skipped(subject, CLASH, detail="; ".join(group["where"])))
        return rows[~clash].reset_index(drop=True)

    def scan_times(self, scans: pd.DataFrame) -> pd.Series:
        """Day of each raw scan (`image`, relative to the data set) by the `acq_time` in its table of scans."""
        times: dict[str, str] = {}
        for subject, session in scans[["subject", "visit"]].drop_duplicates().itertuples(index=False):
            parts = [subject] if pd.isna(session) else [subject, session]
            name = f"{'/'.join(parts)}/{'_'.join(parts)}_scans.tsv"
            if not (self.root / name).is_file():
                continue
            rows = self._text(name).reindex(columns=["filename", "acq_time"])
            for where, file, time in rows.dropna().itertuples():
                path = posixpath.normpath(posixpath.join("/".join(parts), file))
                if path.startswith(("..", "/")):
                    self.problems.append(Skipped(where, "names a file outside the data set", detail=file))
                times[path] = time
        text = scans["image"].map(times).astype(object)
        days = text.map(try_date, na_action="ignore").astype("datetime64[s]")
        reason = "acq_time is no date as BIDS writes it (YYYY-MM-DDThh:mm:ss), so n/a"
        return self.unusable.check(reason, text, days, scans["image"])

    def _text(self, name: str) -> pd.DataFrame:
        """The cells of a table; no rows where it cannot be read."""
        if (self.root / name).is_file():
            try:
                return read_rows(self.root / name, name, self.problems)
            except ManifestError as error:
                reason = str(error).removeprefix(f"{self.root / name}: ")
                self.problems.append(Skipped(name, NOT_USED, detail=reason))
        return NO_ROWS

    def _typed(self, text: pd.DataFrame, study: StudyMap, kind: str) -> pd.DataFrame:
        """Rows with their types, with the prefixes that BIDS gives identifiers whether the table writes them or not."""
        described = self._descriptions(f"{kind}.json")
        source = recognise(text.columns.tolist())
        unit = str(_field(described, source.get("age")).get("Units", "years"))
        if "age" in source and not unit.lower().startswith(("y", "a")):
            text = text.drop(columns=source["age"])
            self.problems.append(
                Skipped(f"{kind}.tsv", f"ages in {unit}, not years: not used", detail="give a column in years")
            )
        levels = _field(described, source.get("sex")).get("Levels")
        codes = dict(SEX_WORDS)
        for code, meaning in (levels if isinstance(levels, Mapping) else {}).items():
            word = meaning.get("Description", code) if isinstance(meaning, Mapping) else meaning
            if letter := SEX_WORDS.get(str(word).strip().lower()):
                codes[code.lower()] = letter
        try:
            rows = typed_rows(text, study, self.problems, self.unusable, sex_codes=codes, refuse_dates=False)
        except CohortError as error:
            self.problems.append(Skipped(f"{kind}.tsv", NOT_USED, detail=str(error)))
            return self._typed(NO_ROWS, study, "")
        rows = rows.drop(columns="extra: source_split", errors="ignore").assign(split=None)
        return rows.assign(
            subject=_with_prefix(rows["participant_id"], "sub-"), visit=_with_prefix(rows["visit"], "ses-")
        )

    def _descriptions(self, name: str) -> Mapping[str, Any]:
        try:
            content = read_json(self.root / name, "utf-8-sig")
        except FileNotFoundError:
            return {}
        except (ValueError, OSError):
            self.problems.append(Skipped(name, "a description that is no JSON: it is not used"))
            return {}
        return content if isinstance(content, Mapping) else {}


def _field(described: Mapping[str, Any], column: str | None) -> Mapping[str, Any]:
    entry = described.get(column or "", {})
    return entry if isinstance(entry, Mapping) else {}


def _with_prefix(text: pd.Series, prefix: str) -> pd.Series:
    return text.map(lambda cell: prefix + cell.removeprefix(prefix), na_action="ignore").astype(object)
