"""What two folders of cohorts are compared by."""

from pathlib import Path


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Content of every file by its path in the folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
