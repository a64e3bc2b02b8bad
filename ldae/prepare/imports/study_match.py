"""The visit of each image, by its name and a study's tables."""

import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.columns import FIRST_SESSION, identifier_words, manifest_name, plain_name, read_numbers
from ldae.prepare.imports.dates import try_date
from ldae.prepare.imports.import_report import Skipped
from ldae.prepare.imports.study_map import StudyMap
from ldae.prepare.imports.study_tables import visit_months

__all__ = ["match_scans", "plain_image"]

EXCLUDED = "an image that the map excludes"
NO_PATTERN = "a name that no pattern of the map fits"
NO_SUBJECT = "an image of a subject who is not in the tables"
OTHER_SUBJECT = "a name whose subject differs from the table's in where its punctuation stands: one subject or two?"
NO_VISIT = "an image of a visit that is not in the tables"
WHICH_VISIT = "an image whose name states no visit, of a subject with several"
TWO_ROWS = "two rows for one visit that differ: remove one"
TIED = "several images of one visit, none of them preferred: keep one, or add to images.prefer of the map"
NOT_PREFERRED = "another image of the visit was preferred"

T1W_NAME = re.compile(r"(?<![a-z0-9])(t1w?|mprage|spgr)(?![a-z0-9])", re.IGNORECASE)
STATED = ["participant", "visit", "image_id", "day", "date"]
COMPARED = ["exam_date", "day", "age", "sex", "diagnosis", "months", "image_id"]


def match_scans(
    names: Sequence[str], visits: pd.DataFrame, study: StudyMap
) -> tuple[pd.DataFrame, pd.DataFrame, list[Skipped]]:
    """One image a visit, and the images that have no place.

    Args:
        names: images relative to their folder.
        visits: rows of the study's tables.
        study: the map.

    Returns:
        The scans: `image`, `subject`, `participant_id` and `session_id` as in the manifest, and, as the name states them,
        `visit`, `image_id`, `day` and `date`. Pairs of a `scan` and a `row` of its visit, both by index. The images left
        out.

    Raises:
        CohortError: if two subjects would have one identifier in the manifest, or, with a strict map, an image or a row has
            several partners.
    """
    stated = _by_pattern(names, study) if study.images.patterns else _by_identifier(names, visits)
    scans = pd.DataFrame(stated, index=range(len(names)), columns=STATED, dtype=object)
    scans = scans.assign(image=list(names), reason=None, detail="")
    listed = _read_names(scans, visits, study)
    pairs = _pairs(scans[scans["reason"].isna()], visits, study.images.within_days)
    _place_in_visits(scans, pairs, visits, listed)
    _prefer(scans, study)
    left_out = scans[scans["reason"].notna()]
    skipped = [
        Skipped(row.image, row.reason, row.reason in (EXCLUDED, NOT_PREFERRED), row.detail)
        for row in left_out.itertuples()
    ]
    ambiguous = left_out[left_out["reason"].isin([WHICH_VISIT, TWO_ROWS, TIED])]
    if study.strict and len(ambiguous):
        items = [f"{row.image}: {row.reason} ({row.detail})" for row in ambiguous.itertuples()]
        msg = f"{shortlist(items)}; give each scan one row, and each row one image whose name states its session"
        raise CohortError(msg)
    scans = scans[scans["reason"].isna()]
    owners = scans.drop_duplicates(["participant_id", "subject"])
    shared = owners[owners.duplicated("participant_id", keep=False)].index
    if len(shared):
        both = " and ".join(map(repr, listed["participant_id"][shared[:2]]))
        msg = (
            f"{both} would both be {scans['participant_id'][shared[0]]!r} in the manifest, which holds A to Z, digits and "
            "_ . + -; give them other identifiers in a copy of the tables"
        )
        raise CohortError(msg)
    return scans, pairs[pairs["scan"].isin(scans.index)], skipped


def plain_image(text: str) -> str:
    """The number of an image without the letters before it: "I118692" and "118692" are one."""
    return re.sub(r"^[a-z]+(?=\d)", "", plain_name(text))


def _by_pattern(names: Sequence[str], study: StudyMap) -> list[dict[str, str | None]]:
    """Subject and visit in each name, by the first of the map's patterns that fits."""
    patterns = [re.compile(text, re.IGNORECASE) for text in study.images.patterns]
    found = (next((match for pattern in patterns if (match := pattern.search(name))), None) for name in names)
    stated: list[dict[str, str | None]] = [{} if match is None else match.groupdict() for match in found]
    return [{"image_id" if key == "image" else key: text for key, text in each.items()} for each in stated]


def _by_identifier(names: Sequence[str], visits: pd.DataFrame) -> list[dict[str, str | None]]:
    """The identifier of the tables that each name holds, the longest first, and the one of its visits that it holds."""
    codes = visits.dropna(subset="visit").groupby("participant_id")["visit"].unique()
    identifiers = sorted(visits["participant_id"].unique(), key=len, reverse=True)
    stated: list[dict[str, str | None]] = []
    for name in names:
        # Some file systems store an accent apart from its letter.
        path = unicodedata.normalize("NFC", name)
        file = path.rsplit("/", 1)[-1]
        # An identifier that the file's name starts with, else one inside it, else one in the names of its folders.
        places = (("^(?:sub-)?", file), ("", file), ("", path))
        owner = next((each for start, text in places for each in identifiers if _has_word(text, each, start)), None)
        held = [code for code in codes.get(owner, ()) if _has_word(path, code, "(?:ses-)?")]
        stated.append({"participant": owner, "visit": held[0] if len(held) == 1 else None})
    return stated


def _has_word(text: str, word: str, start: str = "") -> bool:
    """True if `word`, after the pattern `start`, stands in `text` with no letter or digit against either end."""
    pattern = rf"(?<![^\W_]){start}{re.escape(word)}(?![^\W_])"
    return word.lower() in text.lower() and re.search(pattern, text, re.IGNORECASE) is not None


def _refuse(scans: pd.DataFrame, bad: pd.Series, reason: str, detail: pd.Series | None = None) -> None:
    bad = bad & scans["reason"].isna()
    scans.loc[bad, "reason"] = reason
    if detail is not None:
        scans.loc[bad, "detail"] = detail[bad]


def _read_names(scans: pd.DataFrame, visits: pd.DataFrame, study: StudyMap) -> pd.DataFrame:
    """Give the texts that names state their types, and return the first row of each scan's subject."""
    rule = study.images
    _refuse(scans, _rank(rule.exclude, scans["image"]) < len(rule.exclude), EXCLUDED)
    if rule.patterns:
        _refuse(scans, scans["participant"].isna(), NO_PATTERN)
    words = scans["participant"].fillna("").map(identifier_words)
    scans["subject"] = words.str.replace(" ", "")
    listed = visits.drop_duplicates("subject").set_index("subject").reindex(scans["subject"]).set_index(scans.index)
    _refuse(scans, listed["words"].isna(), NO_SUBJECT, scans["participant"].fillna(""))
    scans["participant_id"] = listed["participant_id"].map(manifest_name, na_action="ignore")
    # A name may leave punctuation out ('002S0413'), or have it where the table has none.
    spaced = words.str.contains(" ") & listed["words"].fillna("").str.contains(" ")
    _refuse(scans, spaced & (words != listed["words"]), OTHER_SUBJECT, listed["participant_id"])
    days = read_numbers(scans["day"].where(scans["day"].astype("str").str.isdecimal()), float("inf"))
    _refuse(scans, scans["day"].notna() & days.isna(), "a name whose day is no whole number", scans["day"])
    dates = scans["date"].map(lambda text: try_date(text, study.dates), na_action="ignore").astype("datetime64[s]")
    _refuse(scans, scans["date"].notna() & dates.isna(), "a name whose date cannot be read", scans["date"])
    scans["day"], scans["date"] = days, dates
    months = scans["visit"].map(lambda code: visit_months(code, study), na_action="ignore")
    scans["code_months"] = months.astype("float64")
    return listed


def _pairs(scans: pd.DataFrame, visits: pd.DataFrame, within_days: int) -> pd.DataFrame:
    """Scans and the rows of their visits: by the image's number, the visit's code, or the nearest day or date."""
    scans, visits = _with_keys(scans), _with_keys(visits)
    by_image = _equal(scans, visits, "number")
    # A list of images seldom holds the values of the visit's own row in another table.
    named = by_image.join(visits[["code", "code_months"]], on="row").dropna(subset="code").drop_duplicates("scan")
    named = named.set_index("scan").join(scans["subject"])
    found = [by_image, _by_code(named, visits[visits["number"].isna()]), _by_code(scans, visits)]
    found.append(_nearest(scans, visits, "day", "day", within_days))
    found.append(_nearest(scans, visits, "date", "exam_date", pd.Timedelta(days=within_days)))
    nothing = scans[scans[["number", "code", "day", "date"]].isna().all(axis=1)]
    keyed = visits["keyed"] | ~visits.groupby("subject")["keyed"].transform("any")
    found.append(_equal(nothing.assign(own=True), visits[keyed].assign(own=True), "own"))
    return pd.concat(found, ignore_index=True).astype("int64")


def _with_keys(rows: pd.DataFrame) -> pd.DataFrame:
    """Numbers of images and codes of visits without case and punctuation."""
    code = rows["visit"].map(lambda text: identifier_words(text).replace(" ", ""), na_action="ignore")
    number = rows["image_id"].map(plain_image, na_action="ignore")
    return rows.assign(number=number.astype(object), code=code.astype(object))


def _equal(scans: pd.DataFrame, visits: pd.DataFrame, key: str) -> pd.DataFrame:
    left = scans[["subject", key]].dropna().reset_index(names="scan")
    right = visits[["subject", key]].dropna().reset_index(names="row")
    return left.merge(right, on=["subject", key])[["scan", "row"]]


def _by_code(scans: pd.DataFrame, visits: pd.DataFrame) -> pd.DataFrame:
    """Rows of the same code, or else of the first code that means the same months (sc and bl, m6 and m06)."""
    exact = _equal(scans, visits, "code")
    meant = _equal(scans.drop(index=exact["scan"].unique()), visits.dropna(subset="code"), "code_months")
    code = meant["row"].map(visits["code"])
    return pd.concat([exact, meant[code == code.groupby(meant["scan"]).transform("first")]])


def _nearest(
    scans: pd.DataFrame, visits: pd.DataFrame, stated: str, listed: str, within: int | pd.Timedelta
) -> pd.DataFrame:
    """Rows of the subject's nearest day, if it is near enough."""
    visits = visits.rename(columns={listed: "near"})
    left = (
        scans[["subject", stated]].rename(columns={stated: "at"}).dropna().reset_index(names="scan").sort_values("at")
    )
    right = visits[["subject", "near"]].dropna().drop_duplicates().sort_values("near")
    right["at"] = right["near"]
    near = pd.merge_asof(left, right, on="at", by="subject", direction="nearest", tolerance=within)
    return _equal(near.set_index("scan"), visits, "near")


def _place_in_visits(scans: pd.DataFrame, pairs: pd.DataFrame, visits: pd.DataFrame, listed: pd.DataFrame) -> None:
    """Refuse scans without a visit or with rows that contradict each other; name the session of the others."""
    rows = pairs.join(visits[["visit", "day", "exam_date"]], on="row")
    distinct = rows.drop(columns="row").drop_duplicates().groupby("scan").size().reindex(scans.index, fill_value=0)
    nothing = scans[["visit", "image_id", "day", "date"]].isna().all(axis=1)
    _refuse(scans, nothing & (distinct > 1), WHICH_VISIT, listed["participant_id"])
    undated = scans["day"].isna() & scans["date"].isna()
    wanted = listed["participant_id"] + ", " + scans["visit"].fillna(scans["image_id"]).fillna("")
    _refuse(scans, (distinct == 0) & undated, NO_VISIT, wanted)
    clashes = _clashes(pairs, visits).reindex(scans.index)
    _refuse(scans, clashes.notna(), TWO_ROWS, clashes)
    known = rows.groupby("scan")[["visit", "exam_date"]].first().reindex(scans.index)
    day = scans["day"].map("d{:04.0f}".format, na_action="ignore")
    date_, exam_date = scans["date"].dt.strftime("%Y%m%d"), known["exam_date"].dt.strftime("%Y%m%d")
    choices = pd.concat([day, date_, scans["visit"], known["visit"], exam_date, scans["image_id"]], axis=1)
    scans["session_id"] = choices.bfill(axis=1).iloc[:, 0].fillna(FIRST_SESSION).map(manifest_name)


def _clashes(pairs: pd.DataFrame, visits: pd.DataFrame) -> pd.Series:
    """The scans with two rows of one table that differ in what is used of them, with lines and columns."""
    rows = pairs.join(visits[["table", "where", *COMPARED]], on="row")
    rows = rows[rows.duplicated(["scan", "table"], keep=False)]
    first = rows.drop_duplicates(["scan", "table"]).set_index(["scan", "table"])
    first = first.loc[pd.MultiIndex.from_frame(rows[["scan", "table"]])].set_index(rows.index)
    differ = (rows[COMPARED] != first[COMPARED]) & ~(rows[COMPARED].isna() & first[COMPARED].isna())
    differ = differ[differ.any(axis=1)]
    details = [
        f"{first['where'][at]}; {rows['where'][at]}: {', '.join(column for column in COMPARED if row[column])}"
        for at, row in differ.iterrows()
    ]
    found = pd.Series(details, index=rows["scan"][differ.index], dtype=object)
    return found[~found.index.duplicated()]


def _prefer(scans: pd.DataFrame, study: StudyMap) -> None:
    """Keep one image a visit."""
    files = scans["image"].str.rsplit("/", n=1).str[-1]
    place = 2 * _rank(study.images.prefer, scans["image"]) + ~files.map(lambda name: T1W_NAME.search(name) is not None)
    usable = scans[scans["reason"].isna()].assign(place=place)
    visit = usable.groupby(["subject", "session_id"])
    best = usable["place"] == visit["place"].transform("min")
    tied = best.groupby([usable["subject"], usable["session_id"]]).transform("sum") > 1
    taken = usable["image"].where(best).groupby([usable["subject"], usable["session_id"]]).transform("first")
    named = "visit " + scans["session_id"] + " of " + scans["participant_id"].astype("str")
    _refuse(scans, tied.reindex(scans.index, fill_value=False), TIED, named)
    later = (~best).reindex(scans.index, fill_value=False)
    _refuse(scans, later, NOT_PREFERRED, ("taken: " + taken).reindex(scans.index))


def _rank(patterns: Sequence[str], names: pd.Series) -> pd.Series:
    """Position of the first pattern that each name fits; their number where it fits none."""
    compiled = [re.compile(text, re.IGNORECASE) for text in patterns]
    return names.map(
        lambda name: next((i for i, each in enumerate(compiled) if each.search(name)), len(compiled))
    ).astype("int64")
