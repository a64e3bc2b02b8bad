"""Parts of a study, each done once: a study that was interrupted goes on with the part that it was in."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import content_hash, own_json, write_json
from ldae.data.manifest import Manifest
from ldae.errors import TaskError
from ldae.image_files import Reading
from ldae.io.version import __version__
from ldae.tasks.probe.embeddings import Embeddings
from ldae.volume import Volume

__all__ = ["Parts", "study_key"]


class Parts:
    """Results of finished parts, a file each.

    Args:
        folder: of the results, named after all that they depend on.
        written: folder that parts write files to; a part of which one is missing or changed is not finished.

    Attributes:
        skipped: reason of each part that the cohort cannot answer, by name.
    """

    def __init__(self, folder: Path, written: Path) -> None:
        self.folder, self.written = folder, written
        self.skipped: dict[str, str] = {}

    def result(self, name: str, compute: Callable[[], Any]) -> Any:
        """Plain values of a part, read if it is finished, else computed; None if the cohort cannot answer it.

        Args:
            name: of the part.
            compute: gives plain values, or raises TaskError.
        """
        path = self.folder / f"{name}.json"
        if path.is_file():
            kept = own_json(path, "files", "result")
            if kept["files"].items() <= self._hashes().items():
                return kept["result"]
        before = self._times()
        try:
            result = compute()
        except TaskError as error:
            self.skipped[name] = str(error)
            return None
        now = self._hashes()
        files = {file: now[file] for file, time in self._times().items() if before.get(file) != time}
        write_json(path, {"result": result, "files": files})
        return json.loads(json.dumps(result))

    def _times(self) -> dict[str, int]:
        """When each file was written."""
        return {path.name: path.stat().st_mtime_ns for path in self.written.glob("*.*")}

    def _hashes(self) -> dict[str, str]:
        """What each file holds."""
        return {path.name: content_hash(path) for path in self.written.glob("*.*")}


def study_key(
    model: LatentDiffusionAutoencoder,
    manifest: Manifest,
    baselines: Mapping[str, Embeddings],
    effect: Volume | None,
    seed: int,
) -> str:
    """Hash of all that a study's results depend on, apart from the program's own text; of images, what the files hold."""
    known = [__version__, model.fingerprint(), model.config, model.dtype, Reading.current().geometry, seed]
    digest = hashlib.sha256(repr(known).encode())
    digest.update(manifest.table.to_csv(index=False).encode())
    for record in manifest.records:
        digest.update(record.content_hash.encode())
    for name, each in sorted(baselines.items()):
        digest.update(f"{name} {each.components} {each.keys.to_csv(index=False)}".encode())
        digest.update(each.values.tobytes())
    if effect is not None:
        digest.update(effect.data.tobytes() + effect.affine.tobytes())
    return digest.hexdigest()[:16]
