"""Empty images and small tables, for the imports that read no voxels."""

from pathlib import Path

from ldae.prepare.imports.import_report import ImportReport
from ldae.prepare.imports.study import import_study
from ldae.prepare.imports.study_map import StudyMap


def touch(folder: Path, *names: str) -> None:
    """Empty files below a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def import_tables(folder: Path, images: list[str], study: StudyMap, *tables: str) -> ImportReport:
    """Import empty images by a map and the content of its tables, `table0.csv` and so on."""
    touch(folder / "images", *images)
    paths = [folder / f"table{i}.csv" for i in range(len(tables))]
    for path, text in zip(paths, tables, strict=True):
        path.write_text(text, encoding="utf-8")
    return import_study(paths, study, folder / "images", folder / "cohort.tsv")
