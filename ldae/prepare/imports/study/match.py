"""Which image belongs to which visit of a study's tables, as a map says."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.columns import FIRST_SESSION, identifier_parts, plain_identifier
from ldae.prepare.imports.csv_table import T1W_NAME
from ldae.prepare.imports.dates import read_date
from ldae.prepare.imports.import_report import Skipped
from ldae.prepare.imports.study.column_map import StudyMap
from ldae.prepare.imports.study.table import StudyTables, Visit, plain_image
from ldae.prepare.imports.visits import manifest_name, months_of_visit

__all__ = ["Match", "match_images"]

EXCLUDED = "an image that the map excludes"
NO_PATTERN = "a name that no pattern of the map fits"
NO_PERSON = "an image of a person who is not in the table"
OTHER_PERSON = "a name whose person differs from the table's in where its punctuation stands: one person or two?"
NO_VISIT = "an image of a visit that is not in the table"
WHICH_VISIT = "an image whose name states no visit, of a person with several"
TWO_ROWS = "two rows for one visit that differ: remove one"
TIED = "several images of one visit, none of them preferred: keep one, or add to images.prefer of the map"
NOT_PREFERRED = "another image of the visit was preferred"


@dataclass(frozen=True)
class Match:
    """An image and what its name and the tables know of its visit.

    Attributes:
        image: name relative to the folder of images.
        person: the identifier without case and punctuation.
        participant_id: as the table writes it, made fit for a manifest.
        session_id: as the manifest will have it.
        rows: of the visit; none where a scan that states its day or date has no visit near.
        day: of the scan, since entry.
        scan_date: of the scan.
        code: of the visit, as the name states it.
        image_id: as the name states it.
    """

    image: str
    person: str
    participant_id: str
    session_id: str
    rows: tuple[Visit, ...]
    day: int | None = None
    scan_date: date | None = None
    code: str | None = None
    image_id: str | None = None


def match_images(names: Sequence[str], tables: StudyTables, study: StudyMap) -> tuple[list[Match], list[Skipped]]:
    """One image a visit, and the images that have no place.

    Args:
        names: images relative to their folder.
        tables: rows by person.
        study: the map.

    Raises:
        CohortError: if two people would have one identifier in the manifest.
    """
    patterns = [re.compile(text, re.IGNORECASE) for text in study.images.patterns]
    exclude = [re.compile(text, re.IGNORECASE) for text in study.images.exclude]
    prefer = [re.compile(text, re.IGNORECASE) for text in study.images.prefer]
    skipped: list[Skipped] = []
    by_session: dict[tuple[str, str], list[Match]] = {}
    for name in names:
        if any(pattern.search(name) for pattern in exclude):
            skipped.append(Skipped(name, EXCLUDED, expected=True))
            continue
        found = next((match for pattern in patterns if (match := pattern.search(name))), None)
        if found is None:
            skipped.append(Skipped(name, NO_PATTERN))
            continue
        outcome = _find_visit(name, found.groupdict(), tables, study)
        if isinstance(outcome, Skipped):
            skipped.append(outcome)
        else:
            by_session.setdefault((outcome.person, outcome.session_id), []).append(outcome)

    def place(match: Match) -> tuple[int, bool]:
        fits = (i for i, pattern in enumerate(prefer) if pattern.search(match.image))
        return next(fits, len(prefer)), T1W_NAME.search(match.image.rsplit("/", 1)[-1]) is None

    matches = []
    for choices in by_session.values():
        best, *rest = sorted(choices, key=place)
        if rest and place(rest[0]) == place(best):
            detail = f"visit {best.session_id} of {best.participant_id}"
            skipped += [Skipped(match.image, TIED, detail=detail) for match in choices]
            continue
        matches.append(best)
        skipped += [Skipped(match.image, NOT_PREFERRED, expected=True, detail=f"taken: {best.image}") for match in rest]
    owners: dict[str, Match] = {}
    for each in matches:
        other = owners.setdefault(each.participant_id, each)
        if other.person != each.person:
            both = " and ".join(repr(tables.people[one.person][0].participant_id) for one in (other, each))
            msg = (
                f"{both} would both be {each.participant_id!r} in the manifest, which holds A to Z, digits and _ . + -; "
                "give them other identifiers in a copy of the tables"
            )
            raise CohortError(msg)
    return matches, skipped


def _find_visit(name: str, stated: dict[str, str | None], tables: StudyTables, study: StudyMap) -> Match | Skipped:
    person = plain_identifier(stated["participant"] or "")
    if person not in tables.people:
        return Skipped(name, NO_PERSON, detail=stated["participant"] or "")
    rows = tables.people[person]
    parts, listed_parts = identifier_parts(stated["participant"] or ""), identifier_parts(rows[0].participant_id)
    # A name may leave punctuation out ('002S0413'), or have it where the table has none.
    if parts != listed_parts and len(parts) > 1 and len(listed_parts) > 1:
        return Skipped(name, OTHER_PERSON, detail=rows[0].participant_id)
    visits = [row for row in rows if row.keyed]
    day: int | None = None
    scan_date: date | None = None
    code, image = stated.get("visit"), stated.get("image")
    session: str | None = None
    if (text := stated.get("day")) is not None:
        if not text.isdecimal():
            return Skipped(name, "a name whose day is no whole number", detail=text)
        day = int(text)
        session = f"d{day:04d}"
        chosen = _nearest(visits, lambda row: None if row.day is None else row.day - day, study.images.within_days)
    elif (text := stated.get("date")) is not None:
        try:
            scan_date = read_date(text, study.dates)
        except CohortError as error:
            return Skipped(name, "a name whose date cannot be read", detail=str(error))
        session = f"{scan_date:%Y%m%d}"
        then = scan_date
        chosen = _nearest(
            visits, lambda row: None if row.exam_date is None else (row.exam_date - then).days, study.images.within_days
        )
    elif image is not None:
        chosen = [row for row in visits if row.image_id is not None and plain_image(row.image_id) == plain_image(image)]
        # A list of images seldom holds what the visit's own row in another table does.
        listed = next((row.code for row in chosen if row.code is not None), None)
        if listed is not None:
            chosen += _of_code([row for row in visits if row.image_id is None], listed, study)
    elif code is not None:
        chosen = _of_code(visits, code, study)
    else:
        chosen = visits or list(rows)
        if len({(row.code, row.day, row.exam_date) for row in chosen}) > 1:
            return Skipped(name, WHICH_VISIT, detail=rows[0].participant_id)
    if not chosen and day is None and scan_date is None:
        return Skipped(name, NO_VISIT, detail=f"{rows[0].participant_id}, {code or image}")
    if (clash := _clash(chosen)) is not None:
        return Skipped(name, TWO_ROWS, detail=clash)
    if session is None:
        stated_code = next((row.code for row in chosen if row.code is not None), None)
        dated = next((row.exam_date for row in chosen if row.exam_date is not None), None)
        session = manifest_name(code or stated_code or (f"{dated:%Y%m%d}" if dated else "") or image or FIRST_SESSION)
    return Match(
        name,
        person,
        manifest_name(rows[0].participant_id),
        session,
        tuple(chosen),
        day,
        scan_date,
        code=code,
        image_id=image,
    )


def _of_code(visits: Sequence[Visit], code: str, study: StudyMap) -> list[Visit]:
    """Rows of a visit: by its code, or else by the months that both codes mean (sc and bl, m6 and m06)."""
    same = [row for row in visits if row.code is not None and plain_identifier(row.code) == plain_identifier(code)]
    if same:
        return same
    months = months_of_visit(code, {key.lower(): value for key, value in study.visits.items()})
    if months is None:
        return []
    meant = [row for row in visits if row.code is not None and _code_months(row, study) == months]
    first = meant[0].code if meant else None
    return [row for row in meant if row.code == first]


def _code_months(row: Visit, study: StudyMap) -> float | None:
    return months_of_visit(row.code or "", {key.lower(): value for key, value in study.visits.items()})


def _nearest(visits: Sequence[Visit], gap: Callable[[Visit], int | None], within: int) -> list[Visit]:
    gaps = [(abs(distance), i) for i, row in enumerate(visits) if (distance := gap(row)) is not None]
    if not gaps or min(gaps)[0] > within:
        return []
    # Of two visits as far away the earlier row counts, together with the rows of its own day.
    first = visits[min(gaps)[1]]
    return [row for row in visits if gap(row) == gap(first)]


def _clash(rows: Sequence[Visit]) -> str | None:
    """Two rows of one table for one visit that differ in what is used of them."""
    seen: dict[str, Visit] = {}
    for row in rows:
        other = seen.setdefault(row.table, row)
        differing = [
            name
            for name in ("exam_date", "day", "age", "sex", "diagnosis", "months", "image_id")
            if getattr(other, name) != getattr(row, name)
        ]
        if differing:
            return f"{row.table}, lines {shortlist([str(other.line), str(row.line)])}: {', '.join(differing)}"
    return None
