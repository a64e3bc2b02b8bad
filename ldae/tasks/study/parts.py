"""Parts of a study, each done once: a study that was interrupted goes on with the part that it was in."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_json
from ldae.data.manifest import Manifest
from ldae.errors import TaskError
from ldae.io.version import __version__
from ldae.tasks.probe.embeddings import Embeddings
from ldae.volume import Volume

__all__ = ["Parts", "study_key"]


class Parts:
    """Results of finished parts, a file each.

    Args:
        folder: of the files, named after all that the results depend on.

    Attributes:
        skipped: reason of each part that the cohort cannot answer, by name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.skipped: dict[str, str] = {}

    def result(self, name: str, compute: Callable[[], Any]) -> Any:
        """Plain values of a part, read if it is finished, else computed; None if the cohort cannot answer it.

        Args:
            name: of the part.
            compute: gives plain values, or raises TaskError.
        """
        path = self.folder / f"{name}.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
        else:
            try:
                found = {"result": compute()}
            except TaskError as error:
                found = {"skipped": str(error)}
            write_json(path, found)
        if "skipped" in found:
            self.skipped[name] = found["skipped"]
        return found.get("result")


def study_key(
    model: LatentDiffusionAutoencoder,
    manifest: Manifest,
    baselines: Mapping[str, Embeddings],
    effect: Volume | None,
    seed: int,
) -> str:
    """Hash of all that a study's results depend on; of images, what the files hold."""
    digest = hashlib.sha256(repr([__version__, model.fingerprint(), model.config, model.dtype, seed]).encode())
    digest.update(manifest.table.to_csv(index=False).encode())
    for record in manifest.records:
        digest.update(record.content_hash.encode())
    for name, each in sorted(baselines.items()):
        digest.update(f"{name} {each.components} {each.keys.to_csv(index=False)}".encode())
        digest.update(each.values.tobytes())
    if effect is not None:
        digest.update(effect.data.tobytes() + effect.affine.tobytes())
    return digest.hexdigest()[:16]
