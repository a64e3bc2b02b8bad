"""A manifest from a BIDS data set: one T1w a session, with the values of the data set's tables.

The tree is read here rather than by a BIDS library. On a sound data set of 2,404 files bids2table 2.3.1 and ancpbids 0.4.10
find the same images (docs/importing.md has the times). But they drop broken names without a word, take one scan 41 times
where a link leads back, and follow links out of the data set; neither reads the tables of sessions and scans.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from ldae.base.files import read_json
from ldae.data.manifest import write_manifest
from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.bids_names import SUFFIX, BidsName, parse_name, rank, why_after
from ldae.prepare.imports.bids_tables import VISITS, BidsTables
from ldae.prepare.imports.columns import FIRST_SESSION
from ldae.prepare.imports.dates import months_of_visit, months_since_first
from ldae.prepare.imports.image_files import find_files, manifest_path
from ldae.prepare.imports.import_report import ImportReport, Skipped, Taken, check_out
from ldae.prepare.imports.scan_values import scan_values

__all__ = ["import_bids"]

NO_AGE = (
    "the age at each of several sessions is not stated (give sub-X_sessions.tsv a column age, months or acq_time, or name "
    "sessions such as ses-M12): n/a for"
)
WARPED = "in the space {}: make sure that it was reached by a rigid or affine transform, never a deformable one"


def import_bids(
    root: Path,
    out: Path,
    *,
    derivative: str | None = None,
    prefer: Sequence[str] = (),
    follow_links: bool = False,
    force: bool = False,
) -> ImportReport:
    """Write a manifest of the T1w images of a BIDS data set, and a report beside it.

    Of several T1w of a session one is taken, by the rule in :data:`ldae.prepare.imports.bids_names.PREFERENCE`. Age,
    diagnosis and months come from `sub-X_sessions.tsv`. Where that has no such column, the age of `participants.tsv` counts
    as the age at baseline, and its diagnosis for all sessions; months come from the session's label (`ses-M12`) or from
    `acq_time`.

    Args:
        root: the data set, raw or derivative.
        out: the manifest to write, .tsv or .csv.
        derivative: name of a folder in `derivatives`, whose T1w images come before raw ones.
        prefer: entities that come first among several T1w, such as "acq-mprage".
        follow_links: take images behind links that lead out of the data set.
        force: replace a file that no import wrote.

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
    check_out(out, (root / "participants.tsv", *root.glob("sub-*/**/*.tsv")) if out.is_file() else (), force=force)
    subjects = sorted(path.name for path in root.iterdir() if path.name.startswith("sub-") and path.is_dir())
    folders = [root]
    if derivative is not None:
        folders.append(_derivative_folder(root, derivative, follow_links=follow_links))
    elif not subjects:
        raise CohortError(_no_data_set(root))
    skipped: list[Skipped] = []
    candidates: dict[tuple[str, str], list[tuple[BidsName, str]]] = {}
    others: Counter[str] = Counter()
    for folder in folders:
        found = find_files(folder, (".nii", ".nii.gz"), follow_links=follow_links, top="sub-")
        above = "" if folder == root else f"derivatives/{derivative}/"
        skipped += [Skipped(above + item.source, item.reason, item.expected, item.detail) for item in found.skipped]
        for path in found.files:
            suffix = path.name.split(".")[0].rsplit("_", 1)[-1]
            if suffix.lower() != SUFFIX.lower():
                others[suffix] += 1
                continue
            name = parse_name(PurePosixPath(found.name(path)), derivative=folder != root)
            if isinstance(name, str):
                skipped.append(Skipped(above + found.name(path), name))
            else:
                key = f"sub-{name.entities['sub']}", f"ses-{name.entities['ses']}" if "ses" in name.entities else ""
                candidates.setdefault(key, []).append((name, above + found.name(path)))
    rows = []
    for (subject, session), choices in sorted(candidates.items()):
        (best, image), *passed = sorted(choices, key=lambda choice: (rank(choice[0], wishes), choice[1]))
        rows.append((subject, session or None, image, best.derivative, best.entities.get("space")))
        for name, other in passed:
            reason = f"passed over: {why_after(name, best, wishes)}"
            skipped.append(Skipped(other, reason, expected=True, detail=f"taken: {image}"))
    if not rows:
        why = shortlist([f"{item.source}: {item.reason}" for item in skipped])
        where = "BIDS keeps them as sub-X[/ses-Y]/anat/sub-X[_ses-Y]_T1w.nii.gz"
        msg = f"{root}: no {SUFFIX} image in {len(subjects)} subject folder(s)" + (
            f"; {why}" if why else f" ({_counted(others)}); {where}"
        )
        raise CohortError(msg)
    scans = pd.DataFrame(rows, columns=["subject", "visit", "image", "derivative", "space"]).astype({"visit": object})
    tables = BidsTables(root)
    doubts: list[str] = []
    frame = _values(scans, tables, doubts)
    frame["image"] = [manifest_path(root / path, out) for path in scans["image"]]
    write_manifest(frame, out)
    notes = [*_description_notes(root, derivative), *tables.unusable.notes(), *doubts]
    if others:
        notes.append(f"other images, not looked at: {_counted(others)}")
    keys = frame["participant_id"] + "_" + frame["session_id"]
    spaces = [WARPED.format(space) if isinstance(space, str) else "" for space in scans["space"]]
    skipped += [*tables.problems, *_absent(root, subjects, scans, tables.listed)]
    report = ImportReport(
        kind="bids",
        source=root,
        manifest=out,
        taken=tuple(Taken(*each) for each in zip(keys, scans["image"], spaces, strict=True)),
        skipped=tuple(dict.fromkeys(skipped)),
        notes=tuple(notes),
    )
    report.write()
    return report


def _values(scans: pd.DataFrame, tables: BidsTables, doubts: list[str]) -> pd.DataFrame:
    """The manifest's columns for each scan but the image."""
    visits = tables.visits(scans)
    left = scans[["subject", "visit"]].reset_index(names="scan")
    right = visits[["subject", "visit"]].reset_index(names="row")
    of_visit = left.dropna().merge(right.dropna(), on=["subject", "visit"])
    of_subject = left.merge(right[right["visit"].isna()], on="subject")
    pairs = pd.concat([of_visit, of_subject], ignore_index=True)[["scan", "row"]]
    stated = pairs.join(visits[["months", "exam_date"]], on="row").groupby("scan").first().reindex(scans.index)
    by_label = scans["visit"].map(months_of_visit, na_action="ignore").astype("float64")
    months = stated["months"].fillna(by_label)
    # Days count only where nothing else gives months for any scan of the subject, and one day is no time.
    days = stated["exam_date"].fillna(tables.scan_times(scans).mask(scans["derivative"]))
    usable = ~months.notna().groupby(scans["subject"]).transform("any")
    days = days.where(usable & (days.groupby(scans["subject"]).transform("count") > 1))
    scans = scans.assign(
        participant_id=scans["subject"],
        session_id=scans["visit"].fillna(FIRST_SESSION),
        day=float("nan"),
        date=pd.Series(pd.NaT, index=scans.index, dtype="datetime64[s]"),
    )
    months = months_since_first(scans["subject"], months, scans["day"], days)
    # One scan of unknown time is the baseline.
    lone = scans["subject"].map(scans["subject"].value_counts()).eq(1) & months.isna()
    alone = visits["subject"].isin(scans.loc[lone, "subject"])
    visits["age"] = visits["age"].fillna(visits["baseline_age"].where(alone))
    visits.loc[:, "exam_date"] = pd.NaT
    frame = scan_values(scans.assign(code_months=months), pairs, visits, VISITS, doubts)
    at_entry = scans["subject"].isin(visits.loc[visits["baseline_age"].notna(), "subject"])
    if lost := int((frame["age"].isna() & at_entry & months.isna()).sum()):
        doubts.append(f"{NO_AGE} {lost}")
    return frame


def _absent(root: Path, subjects: Sequence[str], scans: pd.DataFrame, listed: set[str]) -> list[Skipped]:
    """Subjects and sessions without a T1w."""
    with_image = set(scans["subject"])
    sessions = set(scans["subject"] + "/" + scans["visit"].fillna(""))
    missing = [Skipped(each, f"a subject without a usable {SUFFIX}") for each in subjects if each not in with_image]
    for folder in sorted(
        path for subject in subjects if subject in with_image for path in (root / subject).glob("ses-*/")
    ):
        name = folder.relative_to(root).as_posix()
        if name not in sessions:
            missing.append(Skipped(name, f"a session without a usable {SUFFIX}", expected=True))
    lost = sorted(listed - set(subjects) - with_image)
    return missing + [Skipped(subject, "a subject of participants.tsv without a folder") for subject in lost]


def _wish(text: str) -> tuple[str, str]:
    key, _, label = text.partition("-")
    if not key or not label:
        msg = f"--prefer takes an entity and its label, such as acq-mprage, got {text!r}"
        raise CohortError(msg)
    return key, label


def _folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _derivative_folder(root: Path, name: str, *, follow_links: bool) -> Path:
    there = _folders(root / "derivatives")
    folder = root / "derivatives" / name
    if name not in there:
        has = f"{root / 'derivatives'} has {', '.join(there)}" if there else f"{root} has no derivatives"
        msg = f"{name!r} names no derivative; {has}; give the name of a folder in derivatives, not a path"
        raise CohortError(msg)
    if not folder.resolve().is_relative_to(root) and not follow_links:
        msg = f"{folder} is a link out of the data set; follow it with --follow-links"
        raise CohortError(msg)
    return folder


def _description_notes(root: Path, derivative: str | None) -> list[str]:
    """Notes on the data set's own description."""
    notes = []
    try:
        description = read_json(root / "dataset_description.json", "utf-8-sig")
        if isinstance(description, dict) and description.get("DatasetType") == "derivative":
            notes.append("a derivative data set: its images have been processed before")
    except OSError:
        notes.append("no dataset_description.json, which BIDS requires")
    except ValueError:
        notes.append("dataset_description.json is no JSON")
    if not (root / "participants.tsv").is_file():
        notes.append("no participants.tsv: age, sex and diagnosis are n/a where sub-X_sessions.tsv has none")
    there = _folders(root / "derivatives")
    if derivative is None and there:
        notes.append(f"derivatives not looked at (--include-derivatives NAME takes one): {', '.join(there)}")
    return notes


def _no_data_set(root: Path) -> str:
    below = sorted(path.parent.name for path in root.glob("*/sub-*/"))
    if below:
        return f"{root}: no subject folder (sub-X); its folder {below[0]} has some: give that one"
    there = sorted(path.name for path in root.iterdir())
    what = f"no subject folder (sub-X), got {shortlist(there)}" if there else "an empty folder"
    return (
        f"{root}: {what}; give a BIDS data set, and images of any other names as files or in a manifest, which "
        "'ldae cohort import csv' makes of a folder"
    )


def _counted(others: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(6)) or "no other image either"
