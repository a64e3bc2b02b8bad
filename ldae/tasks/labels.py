"""Every image that a network made says so: in its header and in a side-car."""

from pathlib import Path
from typing import Any

from ldae.io.files import write_json
from ldae.io.notice import SYNTHETIC
from ldae.volume import Volume, volume_suffix, write_volume

__all__ = ["write_synthetic"]


def write_synthetic(volume: Volume, path: Path, kind: str, **facts: Any) -> Path:
    """Write an image with its mark and a JSON side-car.

    Args:
        volume: made by a network.
        path: of the image.
        kind: what it is: a reconstruction, an edit, an interpolation, a sample.
        facts: how it was made, for the side-car.
    """
    write_volume(volume, path, description=f"{SYNTHETIC} ({kind}, ldae)")
    sidecar = path.with_name(path.name[: -len(volume_suffix(path))] + ".json")
    write_json(sidecar, {"synthetic": True, "notice": SYNTHETIC, "kind": kind, **facts})
    return path
