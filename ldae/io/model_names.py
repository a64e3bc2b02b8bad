"""Where a model lies: a folder, the weights in this package, or a repository of the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from ldae.errors import CheckpointError

__all__ = ["BUNDLED", "DEFAULT_MODEL", "find_direction", "find_model", "shipped_models", "upload"]

DEFAULT_MODEL = "ldae-t1-3mm"
"""Trained on rendered T1-weighted heads at 3 mm; its card says on what, and what it was checked against."""

BUNDLED = "models"
"""Folder of the model in a MONAI bundle."""


def shipped_models() -> dict[str, Path]:
    """Folders of the models in this package, by name."""
    folder = Path(str(files("ldae"))) / "weights"
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()} if folder.is_dir() else {}


def find_model(name: str | Path) -> Path:
    """The folder of a model.

    Args:
        name: a folder, or a MONAI bundle of it; the name of a model in this package; or `owner/name@revision` on the Hugging
            Face hub (extra `hub`).

    Raises:
        CheckpointError: if there is none of the three.
    """
    if (Path(name) / BUNDLED / "config.json").is_file():
        return Path(name) / BUNDLED
    if Path(name).exists():
        return Path(name)
    shipped = shipped_models()
    if str(name) in shipped:
        return shipped[str(name)]
    repository, _, revision = str(name).partition("@")
    if repository.count("/") == 1 and revision:
        with _hub(str(name), "not loaded", "the name and the network, or give a folder") as hub:
            return Path(hub.snapshot_download(repository, revision=revision))
    msg = (
        f"{name}: no such model folder; give one that 'ldae fit' or 'ldae demo' wrote, a model of this package "
        f"({', '.join(shipped) or 'none here'}), or owner/name@revision on the Hugging Face hub"
    )
    raise CheckpointError(msg)


def find_direction(name: str | Path, model: str | Path) -> Path:
    """The file of a direction: a probe, or one that came with a model, in its folder `directions`.

    Args:
        name: file, or name of a direction.
        model: see :func:`find_model`.

    Raises:
        CheckpointError: if it is neither.
    """
    if Path(name).exists():
        return Path(name)
    known = {path.stem: path for path in sorted((find_model(model) / "directions").glob("*.json"))}
    if str(name) in known:
        return known[str(name)]
    msg = (
        f"{name}: no such file, nor a direction of {model}, which has {', '.join(known) or 'none'}; give a probe's file"
    )
    raise CheckpointError(msg)


def upload(folder: Path, repository: str, *, private: bool = True) -> str:
    """Put a model folder on the Hugging Face hub, with the token that `hf auth login` keeps.

    Args:
        folder: of the model.
        repository: `owner/name`; it is made if need be.
        private: of a new repository.

    Returns:
        `owner/name@revision`, which loads exactly this model.

    Raises:
        CheckpointError: if the extra, the network or the permission is missing.
    """
    with _hub(repository, "not uploaded", "the name, the network and 'hf auth login'") as hub:
        hub.create_repo(repository, private=private, exist_ok=True)
        done = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload model")
    return f"{repository}@{done.oid}"


@contextmanager
def _hub(name: str, undone: str, remedy: str) -> Iterator[Any]:
    """The hub's client; what it raises within the block, of many kinds, becomes one error."""
    try:
        import huggingface_hub
    except ImportError as error:
        msg = f"{name.partition('@')[0]}: models of the hub need the extra 'hub': pip install 'ldae[hub]'"
        raise CheckpointError(msg) from error
    try:
        yield huggingface_hub
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        msg = f"{name}: {undone} ({reason}); check {remedy}"
        raise CheckpointError(msg) from error
