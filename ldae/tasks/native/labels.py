"""Every image that a network made says so: in its header and in a side-car."""

from pathlib import Path
from typing import Any

from ldae.base.files import write_json
from ldae.io.notice import SYNTHETIC
from ldae.io.stored import StoredScan
from ldae.io.version import __version__
from ldae.volume import Volume, sidecar_path, write_volume

__all__ = ["write_synthetic"]


def write_synthetic(volume: Volume, path: Path, kind: str, *, onto: StoredScan | None = None, **facts: Any) -> Path:
    """Write an image with its mark and a JSON side-car.

    Args:
        volume: made by a network.
        path: of the image.
        kind: what it is: a reconstruction, an edit, an interpolation, a sample.
        onto: a scan that `volume` is a change of; the file then holds the scan with that change.
        facts: how it was made, for the side-car.
    """
    description, in_template = f"{SYNTHETIC} ({kind}, ldae)", facts.get("space") == "template"
    if onto is None:
        write_volume(volume, path, description=description, mni=in_template)
    else:
        onto.write_changed(volume, path, description=description)
    software = {"name": "ldae", "version": __version__}
    bids = {"Description": description, **({"SkullStripped": True} if in_template else {})}
    plain = {"synthetic": True, "notice": SYNTHETIC, "kind": kind, **bids, **facts, "software": software}
    write_json(sidecar_path(path), plain)
    return path
