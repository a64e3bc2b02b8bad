"""The images in a folder, whatever its links do.

Links are common in imaging data (an annex keeps every file as one) and may lead in a circle, to nothing, or out of the
folder. A folder is searched once however many links lead to it. A link that leads out is followed on request only: such
files were not reviewed with the data set, and are lost when it is copied.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ldae.errors import CohortError
from ldae.prepare.imports.import_report import Skipped
from ldae.volume import SUFFIXES

__all__ = ["FoundFiles", "find_files", "find_images", "manifest_path"]

LEADS_OUT = "a link out of the folder: copy the file in, or follow such links with --follow-links"
LEADS_NOWHERE = "a link to a file that is not there: fetch it (datalad get, git annex get) or remove the link"
LEADS_BACK = "a link to a folder that is searched under its own name"
UNREADABLE = "a folder that may not be read: change its permissions"


@dataclass(frozen=True)
class FoundFiles:
    """Files below a folder.

    Attributes:
        root: the folder, absolute, links resolved.
        files: paths below it as they are named there, sorted.
        skipped: links and folders that were not followed.
    """

    root: Path
    files: tuple[Path, ...]
    skipped: tuple[Skipped, ...]

    def name(self, path: Path) -> str:
        """A path relative to the folder, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def find_files(root: Path, suffixes: tuple[str, ...], *, follow_links: bool = False, top: str = "") -> FoundFiles:
    """Files with certain endings below a folder; hidden files and folders are left alone.

    Args:
        root: the folder.
        suffixes: endings in lower case.
        follow_links: take links that lead out of the folder too.
        top: what names directly in the folder start with, to be looked at.

    Raises:
        CohortError: if there is no such folder.
    """
    if not root.is_dir():
        msg = f"{root}: no such folder of images; check the path"
        raise CohortError(msg)
    root = root.resolve()
    files: list[Path] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()

    def skip(path: Path, reason: str, *, expected: bool = False) -> None:
        skipped.append(Skipped(path.relative_to(root).as_posix(), reason, expected))

    # Folders by their own names come first, so that a link to one never hides it.
    folders: list[Path] = [root]
    links: list[Path] = []
    while folders or links:
        linked = not folders
        folder = links.pop() if linked else folders.pop()
        target = folder.resolve()
        if target in seen or target in root.parents:
            if linked:
                skip(folder, LEADS_BACK, expected=True)
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            skip(folder, UNREADABLE)
            continue
        seen.add(target)
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or (folder == root and not entry.name.startswith(top)):
                continue
            wanted = entry.name.lower().endswith(suffixes)
            if entry.is_symlink():
                end = Path(os.path.realpath(path))
                is_folder = end.is_dir()
                if not end.exists():
                    # A link to itself resolves to itself, and does not exist either.
                    if wanted:
                        skip(path, LEADS_NOWHERE)
                elif not end.is_relative_to(root) and not follow_links:
                    if wanted or is_folder:
                        skip(path, LEADS_OUT)
                elif is_folder:
                    links.append(path)
                elif wanted:
                    files.append(path)
            elif entry.is_dir():
                folders.append(path)
            elif wanted and entry.is_file():
                files.append(path)
    return FoundFiles(root, tuple(sorted(files)), tuple(sorted(skipped, key=lambda item: item.source)))


def find_images(root: Path, *, follow_links: bool = False) -> FoundFiles:
    """Images of any format that is read, below a folder.

    Raises:
        CohortError: if there is no such folder, or no image in it.
    """
    found = find_files(root, SUFFIXES, follow_links=follow_links)
    if not found.files:
        left_out = f" ({len(found.skipped)} links were not followed)" if found.skipped else ""
        msg = (
            f"{root}: no image ending in {', '.join(SUFFIXES)}{left_out}; convert DICOM first "
            "('ldae cohort import dicom') or choose another folder"
        )
        raise CohortError(msg)
    return found


def manifest_path(image: Path, manifest: Path) -> str:
    """The image's path in a manifest: relative below the manifest's folder, else absolute."""
    folder = Path(os.path.realpath(manifest.parent))
    return os.path.relpath(image, folder) if image.is_relative_to(folder) else str(image)
