"""Files written whole or not at all, and their hashes."""

import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from ldae.errors import OutputError

__all__ = [
    "atomic_file",
    "atomic_folder",
    "check_new_folder",
    "check_writable",
    "content_hash",
    "held",
    "own_json",
    "read_json",
    "sha256_of",
    "write_bytes",
    "write_json",
    "write_text",
]


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name beside it, then rename."""
    with atomic_file(path, needs=len(content)) as temporary:
        temporary.write_bytes(content)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file, UTF-8, as :func:`write_bytes` does."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """Write JSON, indented, under a temporary name, then rename.

    Raises:
        ValueError: if the value holds NaN or infinity, which JSON has no word for.
    """
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, encoding: str = "utf-8") -> Any:
    """What a JSON file holds.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding=encoding))
    except RecursionError as error:
        msg = "nested too deeply"
        raise ValueError(msg) from error


def own_json(path: Path, *names: str) -> dict[str, Any]:
    """What this package wrote into a JSON file, by these names at least.

    Raises:
        OutputError: if something else is in it.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        found = error
    if not isinstance(found, dict) or not set(names) <= found.keys():
        reason = str(found) if isinstance(found, Exception) else f"without {' and '.join(names) or 'names'}"
        msg = (
            f"{path}: not what an earlier run wrote there ({reason}); delete the file, and give the same command again"
        )
        raise OutputError(msg)
    return found


@contextmanager
def atomic_file(path: Path, *, needs: int = 0) -> Iterator[Path]:
    """A name beside the path, with its ending, for a file that takes the path's name only when the block ends well.

    The name is new each time, so that processes may write the same file at once: the last one stays.

    Args:
        path: of the file.
        needs: bytes that will be written, where they are known.

    Raises:
        OutputError: if a folder has that name, or the disk has no room; nothing is left behind.
    """
    if path.is_dir():
        msg = f"{path} is a folder; give the name of a file"
        raise OutputError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{uuid4().hex[:12]}-{path.name}")
    try:
        if needs > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        amount = f"{needs / 2**20:,.1f} MiB are needed, " if needs else ""
        msg = f"{path}: the disk is full ({amount}{free / 2**20:,.1f} MiB are free); make room, and run the same command again"
        raise OutputError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Write a little where a file or folder is to be, before any work is done.

    Raises:
        OutputError: if nothing can be written there, or a file lies in the way.
    """
    try:
        path.resolve(strict=path.is_symlink())
        there = next(each for each in (path, *path.absolute().parents) if each.exists())
    except (OSError, RuntimeError) as error:  # a link that leads nowhere or back to itself, a name that is too long
        reason = getattr(error, "strerror", None) or "its links lead back to themselves"
        msg = f"{str(path)[:99]}: no place for output ({reason}); give another"
        raise OutputError(msg) from error
    try:
        with tempfile.TemporaryFile(dir=there, buffering=0) as file:
            file.write(bytes(4096))
    except NotADirectoryError as error:
        msg = f"{there} is a file; give a folder"
        raise OutputError(msg) from error
    except OSError as error:
        msg = f"{there}: nothing can be written there ({error.strerror}); give another place, or make room"
        raise OutputError(msg) from error


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold an output place: a second process that would write there stops at once. The hold ends with its process.

    The lock lies beside the place, so that processes of other machines and containers see it, and goes at the end.

    Raises:
        OutputError: if another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    place = path.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    # A place that is mounted may lie in a folder where nothing can be written.
    lock = place.with_name(f".{place.name}.lock") if os.access(place.parent, os.W_OK) else place / ".lock"
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.read(descriptor, 20).decode() or "another"
            os.close(descriptor)
            msg = f"{path}: process {who} is writing there; wait for it, or give another place with --out"
            raise OutputError(msg) from error
        if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
            break
        os.close(descriptor)  # its holder took it away in the meantime
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def atomic_folder(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """A new folder that takes its name, replacing a former one, only when the block ends well.

    Args:
        path: of the folder.
        keep: after an error or a kill, keep what is there, and go on with it the next time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, former = (path.with_name(f".{path.name}-{what}") for what in ("writing", "former"))
    # Of a process that was killed, perhaps between the two renames.
    if not keep:
        shutil.rmtree(temporary, ignore_errors=True)
    if former.exists() and not path.exists():
        former.rename(path)
    shutil.rmtree(former, ignore_errors=True)
    temporary.mkdir(exist_ok=keep)
    try:
        yield temporary
        if path.exists():
            path.rename(former)
        temporary.rename(path)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        if not keep:
            shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(out: Path, *, force: bool, sign: str, text: bytes = b"") -> None:
    """Check that a folder is new or empty or, if `force`, one of the same kind, which may be replaced.

    Args:
        out: the folder.
        force: replace a folder that bears the sign.
        sign: pattern of a file that every folder of this kind holds.
        text: part of that file.

    Raises:
        OutputError: if the folder holds something that must stay.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    first = next(iter(sorted(out.glob(sign))), None) if out.is_dir() else None
    same = first is not None and text in first.read_bytes()
    if not (force and same):
        also = ", or --force to replace this one" if same else ""
        msg = f"{out}: there is something already; give a new folder with --out{also}"
        raise OutputError(msg)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path) -> str:
    """Hexadecimal BLAKE2b (128 bits) of a file's content; a file is read again only once its size or time has changed."""
    status = path.stat()
    return _blake2b_of(path.absolute(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 16)
def _blake2b_of(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
