"""A manifest from a BIDS data set: one T1w a session, with what the data set's tables say.

The tree is read here rather than through a BIDS library. Two light ones were tried on awkward trees, ancpbids 0.4 and
bids2table 2.3. On a sound data set they find the same images, in 0.5 s and 1.4 s for a thousand sessions, where the whole
import takes 0.6 s; but what was left out, and why, is not to be had from them. Names that break the rules are dropped or taken
without a word, a link that leads back yields one scan 41 times, links out of the data set are followed, a folder called
`study.v2` or `set[1]` is empty to one of them, and a damaged `dataset_description.json` stops the other with an AttributeError.
Neither reads the tables of sessions. pybids, which does, brings a database and eight packages more. What remains to be done
without them is to split names at `_` and `-`.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath

import pandas as pd

from ldae.data.manifest import write_manifest
from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.bids.names import BidsName, parse_name, rank, why_after
from ldae.prepare.imports.bids.tables import BidsTables, Row
from ldae.prepare.imports.columns import FIRST_SESSION
from ldae.prepare.imports.image_files import find_files, manifest_path
from ldae.prepare.imports.import_report import ImportReport, Skipped, Taken, check_out
from ldae.prepare.imports.visits import DAYS_PER_MONTH, months_of_visit

__all__ = ["import_bids"]

SUFFIX = "T1w"


@dataclass(frozen=True)
class _Scan:
    """The image chosen for a session."""

    person: str
    session: str | None
    name: BidsName
    image: Path

    @property
    def key(self) -> str:
        return f"{self.person}_{self.session or FIRST_SESSION}"


def import_bids(
    root: Path,
    out: Path,
    *,
    derivative: str | None = None,
    prefer: Sequence[str] = (),
    follow_links: bool = False,
) -> ImportReport:
    """Write a manifest of the T1w images of a BIDS data set, and a report beside it.

    Of several T1w of a session one is taken, by the rule in :data:`ldae.prepare.imports.bids.names.PREFERENCE`. Age,
    diagnosis and months come from `sub-X_sessions.tsv`. Where that has no such column, the age of `participants.tsv` counts
    as the age at baseline, and its diagnosis for all sessions; months come from the session's label (`ses-M12`) or from
    `acq_time`.

    Args:
        root: the data set, raw or derivative.
        out: the manifest to write, .tsv or .csv.
        derivative: name of a folder in `derivatives`, whose T1w images come before raw ones.
        prefer: entities that come first among several T1w, such as "acq-mprage".
        follow_links: take images behind links that lead out of the data set.

    Raises:
        CohortError: if the folder is no BIDS data set, the derivative is absent, there is no T1w at all, or `out` is
            a file that no import wrote.
        ManifestError: if the manifest's name has a wrong ending.
    """
    root, out = Path(root), Path(out)
    wishes = tuple(_wish(text) for text in prefer)
    if not root.is_dir():
        msg = f"{root}: no such folder; check the path"
        raise CohortError(msg)
    root = root.resolve()
    check_out(out, (root / "participants.tsv", *root.glob("sub-*/**/*.tsv")) if out.is_file() else ())
    people = sorted(path.name for path in root.iterdir() if path.name.startswith("sub-") and path.is_dir())
    places: list[tuple[str | None, Path]] = [(None, root)]
    if derivative is not None:
        places.append((derivative, _derivative_folder(root, derivative, follow_links=follow_links)))
    if not people and derivative is None:
        raise CohortError(_no_data_set(root))
    notes = _describe(root, derivative)
    skipped: list[Skipped] = []
    candidates: dict[tuple[str, str | None], list[tuple[BidsName, Path]]] = {}
    others: Counter[str] = Counter()
    for owner, folder in places:
        found = find_files(folder, (".nii", ".nii.gz"), follow_links=follow_links, top="sub-")
        skipped += [_below(item, folder, root) for item in found.skipped]
        for path in found.files:
            suffix = path.name.split(".")[0].rsplit("_", 1)[-1]
            if suffix.lower() != SUFFIX.lower():
                others[suffix] += 1
                continue
            relative = path.relative_to(root).as_posix()
            name = parse_name(PurePosixPath(path.relative_to(folder).as_posix()), owner)
            reason = name if isinstance(name, str) else _never(name)
            if reason:
                skipped.append(Skipped(relative, reason))
            elif isinstance(name, BidsName):
                session = f"ses-{name.entities['ses']}" if "ses" in name.entities else None
                candidates.setdefault((f"sub-{name.entities['sub']}", session), []).append((name, path))
    scans = []
    for (person, session), choices in sorted(candidates.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        ordered = sorted(choices, key=lambda choice: (rank(choice[0], wishes), str(choice[1])))
        best, image = ordered[0]
        scans.append(_Scan(person, session, best, image))
        for name, path in ordered[1:]:
            reason = f"passed over: {why_after(name, best, wishes)}"
            taken = f"taken: {image.relative_to(root).as_posix()}"
            skipped.append(Skipped(path.relative_to(root).as_posix(), reason, expected=True, detail=taken))
    if not scans:
        msg = f"{root}: no {SUFFIX} image in {len(people)} subject folder(s)" + (
            f"; {shortlist([f'{item.source}: {item.reason}' for item in skipped])}"
            if skipped
            else f" ({_counted(others)}); BIDS keeps them as sub-X[/ses-Y]/anat/sub-X[_ses-Y]_T1w.nii.gz"
        )
        raise CohortError(msg)
    tables = BidsTables(root)
    rows = _rows(scans, tables, root)
    skipped += tables.problems
    skipped += _absent(root, people, scans, set(tables.participants))
    frame = pd.DataFrame(rows, dtype=object)
    frame["image"] = [manifest_path(scan.image, out) for scan in scans]
    write_manifest(frame, out)
    if others:
        notes.append(f"other images, not looked at: {_counted(others)}")
    notes += [f"{reason}: n/a for {count} ({example})" for reason, (example, count) in tables.doubts.items()]
    report = ImportReport(
        kind="bids",
        source=root,
        manifest=out,
        taken=tuple(Taken(scan.key, scan.image.relative_to(root).as_posix(), _note(scan)) for scan in scans),
        skipped=tuple(dict.fromkeys(skipped)),
        notes=tuple(notes),
    )
    report.write()
    return report


def _rows(scans: Sequence[_Scan], tables: BidsTables, root: Path) -> list[Row]:
    """What the tables say of each scan, under the manifest's names."""
    participants = tables.participants
    by_person: dict[str, list[_Scan]] = {}
    for scan in scans:
        by_person.setdefault(scan.person, []).append(scan)
    rows = []
    for person, own in by_person.items():
        sessions = tables.sessions(person)
        months = _months(own, sessions, tables, root)
        for scan in own:
            by_session = participants.get(person, {})
            of_person = {**by_session.get(None, {}), **by_session.get(scan.session, {})}
            of_session = sessions.get(scan.session or "", {})
            # A column of the sessions' table wins even where its cell is empty: it knows of this visit.
            row: Row = {**of_person, **of_session}
            since = months[scan.session]
            if "age" in of_session or scan.session in by_session:
                age = tables.number(row.get("age"), "age", scan.key)
            else:
                age = tables.number(of_person.get("age"), "age", person)
                if age is not None and since is not None:
                    age += since / 12
                elif age is not None and len(own) > 1:
                    tables.doubt(
                        "the age at each of several sessions is not stated (give sub-X_sessions.tsv a column age, months "
                        "or acq_time, or name sessions such as ses-M12)",
                        scan.key,
                    )
                    age = None
            row["age"] = None if age is None else f"{round(age, 3):g}"
            row["months"] = None if since is None else f"{round(since, 2):g}"
            rows.append({"participant_id": person, "session_id": scan.session or FIRST_SESSION, **row})
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "acq_time"))
    return [{name: row.get(name) for name in columns} for row in rows]


def _months(
    scans: Sequence[_Scan], sessions: dict[str, Row], tables: BidsTables, root: Path
) -> dict[str | None, float | None]:
    """Months of each session of one person: as a table says, else as its session's label does, else by acquisition time."""
    months: dict[str | None, float | None] = {}
    days: dict[str | None, date | None] = {}
    for scan in scans:
        row = sessions.get(scan.session or "", {})
        months[scan.session] = tables.number(row.get("months"), "months", scan.key)
        if scan.session is not None and "months" not in row:
            months[scan.session] = months_of_visit(scan.session)
        time = row.get("acq_time")
        if time is None and scan.name.derivative is None:
            folder = root / scan.person / (scan.session or "")
            stem = f"{scan.person}_{scan.session}" if scan.session else scan.person
            time = tables.scan_times(folder, stem).get(scan.name.path.as_posix())
        days[scan.session] = tables.day(time, scan.key)
    dated = [day for day in days.values() if day is not None]
    # One clock a person: days count only where nothing else gives months for any of the scans.
    if any(value is not None for value in months.values()) or len(dated) < 2:
        return months
    first = min(dated)
    return {session: None if day is None else (day - first).days / DAYS_PER_MONTH for session, day in days.items()}


def _absent(root: Path, people: Sequence[str], scans: Sequence[_Scan], listed: set[str]) -> list[Skipped]:
    """People and sessions without a T1w."""
    with_image = {scan.person for scan in scans}
    sessions = {(scan.person, scan.session) for scan in scans}
    missing = []
    for person in people:
        if person not in with_image:
            missing.append(Skipped(person, f"a subject without a usable {SUFFIX}"))
            continue
        for folder in sorted((root / person).glob("ses-*")):
            if folder.is_dir() and (person, folder.name) not in sessions:
                name = folder.relative_to(root).as_posix()
                missing.append(Skipped(name, f"a session without a usable {SUFFIX}", expected=True))
    for person in sorted(listed - set(people) - with_image):
        missing.append(Skipped(person, "a person of participants.tsv without a folder"))
    return missing


def _never(name: BidsName) -> str:
    """Why an image is no candidate at all; empty if it is one."""
    if name.suffix != SUFFIX:
        return f"the suffix is written {SUFFIX}: rename it"
    if name.entities.get("part", "mag") != "mag":
        return "not a magnitude image (part-phase, part-real or part-imag)"
    if "chunk" in name.entities:
        return "a part of the head only (chunk-)"
    return ""


def _note(scan: _Scan) -> str:
    space = scan.name.entities.get("space")
    if space is None:
        return ""
    return f"in the space {space}: make sure that it was reached by a rigid or affine transform, never a deformable one"


def _wish(text: str) -> tuple[str, str]:
    key, dash, label = text.partition("-")
    if not key or not dash or not label:
        msg = f"--prefer takes an entity and its label, such as acq-mprage, got {text!r}"
        raise CohortError(msg)
    return key, label


def _derivative_folder(root: Path, name: str, *, follow_links: bool) -> Path:
    parent = root / "derivatives"
    folder = parent / name
    there = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    if name not in there:
        has = f"{parent} has {', '.join(there)}" if there else f"{root} has no derivatives"
        msg = f"{name!r} names no derivative; {has}; give the name of a folder in derivatives, not a path"
        raise CohortError(msg)
    if not folder.resolve().is_relative_to(root) and not follow_links:
        msg = f"{folder} is a link out of the data set; follow it with --follow-links"
        raise CohortError(msg)
    return folder


def _describe(root: Path, derivative: str | None) -> list[str]:
    """What the data set's own description lets one expect."""
    notes = []
    path = root / "dataset_description.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(description, dict) and description.get("DatasetType") == "derivative":
            notes.append("a derivative data set: its images have been processed before")
    except OSError:
        notes.append("no dataset_description.json, which BIDS asks for")
    except ValueError:
        notes.append("dataset_description.json is no JSON")
    if not (root / "participants.tsv").is_file():
        notes.append("no participants.tsv: age, sex and diagnosis are n/a where sub-X_sessions.tsv has none")
    parent = root / "derivatives"
    if derivative is None and parent.is_dir():
        there = sorted(path.name for path in parent.iterdir() if path.is_dir())
        if there:
            notes.append(f"derivatives not looked at (--include-derivatives NAME takes one): {', '.join(there)}")
    return notes


def _no_data_set(root: Path) -> str:
    below = sorted(path.parent.name for path in root.glob("*/sub-*") if path.is_dir())
    if below:
        return f"{root}: no subject folder (sub-X); its folder {below[0]} has some: give that one"
    there = sorted(path.name for path in root.iterdir())
    return (
        f"{root}: no subject folder (sub-X), so no BIDS data set, got {shortlist(there) if there else 'an empty folder'}; "
        "give the folder that holds dataset_description.json, or import a plain folder with 'ldae cohort import csv'"
    )


def _below(item: Skipped, folder: Path, root: Path) -> Skipped:
    return Skipped(os.path.relpath(folder / item.source, root), item.reason, item.expected, item.detail)


def _counted(others: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(6)) or "no other image either"
