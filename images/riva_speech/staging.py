"""Changing a model repository: all models of a deployment appear in it, or none.

    .deploying-<token>/models/<name>   what a running deployment writes; thrown away if that dies
    .moving-in-<token>/models/<name>   complete: whoever comes next moves in what is still here

Renaming the first to the second is the moment that decides. A running deployment holds a lock on
its staging folder; creating, sweeping and moving in hold one on the repository, and so does whoever
reads it. The kernel gives up the locks of a process that dies, so nothing has to be remembered.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from riva_speech.errors import SpeechError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

# What a staging folder holds: the models to be moved in, and those that they took the place of.
MODELS = "models"
_REPLACED = "replaced"
_RUNNING, _COMPLETE = ".deploying-", ".moving-in-"
# File systems of networks may know no locks on folders.
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """Give an empty folder on a repository's disk, and remove it with what is left there.

    What dead deployments left is swept before.
    """
    with _locked(repository, fcntl.LOCK_EX):
        _sweep(repository)
    folder = repository / f"{_RUNNING}{secrets.token_hex(4)}"
    # In this order, so that an interruption at any point finds the folder's removal prepared.
    try:
        with _created(repository, folder):
            (folder / MODELS).mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _created(repository: Path, folder: Path) -> Iterator[None]:
    """Create a staging folder and hold its lock; nobody sees it without."""
    with _locked(repository, fcntl.LOCK_EX):
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY)
        _lock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def seen(repository: Path, names: Collection[str]) -> dict[str, int | None]:
    """Return what stands under each name now: a number that no other folder has, or None."""
    return {name: _identity(repository / name) for name in names}


def _identity(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def move_in(folder: Path, repository: Path, expected: dict[str, int | None]) -> None:
    """Put a staging folder's models into the repository, in place of those of the same names.

    Links among them stand for models that stay.

    Args:
        folder: What ``staging`` gave.
        repository: The one that it was made in.
        expected: What ``seen`` told before the models were made.

    Raises:
        SpeechError: Another deployment has changed one of those meanwhile; nothing is moved.
    """
    complete = folder.with_name(folder.name.replace(_RUNNING, _COMPLETE))
    for path in (folder / MODELS).iterdir():
        if path.is_symlink():
            path.unlink()
    with _locked(repository, fcntl.LOCK_EX):
        changed = [
            name for name, one in seen(repository, expected).items() if one != expected[name]
        ]
        if changed:
            raise SpeechError(
                f"another riva-deploy has changed {', '.join(changed)} in {repository} meanwhile",
                hint="run this one again",
            )
        folder.rename(complete)
        _finish(complete, repository)


def _finish(complete: Path, repository: Path) -> None:
    """Move in what is still in a complete staging folder; being killed here only delays it."""
    replaced = complete / _REPLACED
    replaced.mkdir(exist_ok=True)
    for staged in sorted((complete / MODELS).glob("*")):
        target = repository / staged.name
        if target.exists():
            target.rename(replaced / staged.name)
        staged.rename(target)
    shutil.rmtree(complete, ignore_errors=True)


@contextmanager
def reading(repository: Path) -> Iterator[None]:
    """Keep a repository as it is while its files are opened.

    A deployment that died while it moved its models in is brought to its end before. A repository
    that does not exist is left to the reader, and so is what cannot be written.

    Raises:
        SpeechError: A deployment is half moved in, and the repository cannot be written.
    """
    if not repository.is_dir():
        yield
        return
    if _left_over(repository):
        with _locked(repository, fcntl.LOCK_EX):
            _sweep_if_writable(repository)
    with _locked(repository, fcntl.LOCK_SH):
        yield


def _left_over(repository: Path) -> bool:
    return any(path.name.startswith((_RUNNING, _COMPLETE)) for path in repository.iterdir())


def _sweep_if_writable(repository: Path) -> None:
    try:
        _sweep(repository)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise SpeechError(
            f"a deployment into {repository} was interrupted, and the folder cannot be written",
            hint="run riva-deploy or start-riva once where it can be",
        ) from error


def _sweep(repository: Path) -> None:
    """Finish or throw away what dead deployments left; the repository's lock is held."""
    for path in sorted(repository.glob(f"{_COMPLETE}*")):
        _log.info("Moving in what an interrupted deployment had ready in %s", path)
        _finish(path, repository)
    for path in sorted(repository.glob(f"{_RUNNING}*")):
        if not _is_held(path):
            _log.info("Removing %s, which an interrupted deployment left", path)
            shutil.rmtree(path, ignore_errors=True)


def _is_held(folder: Path) -> bool:
    """Whether the deployment that made a staging folder is still running."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # it ended just now, and removes it itself
        return True
    try:
        return not _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: Path, mode: int) -> Iterator[None]:
    """Hold a lock on a folder; it needs no file, so a repository holds models only."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, mode)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, mode: int) -> bool:
    """Take a lock; return False where another holds it and ``mode`` does not wait."""
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _log.warning("The disk of the model repository has no locks: deploy once at a time")
        return not mode & fcntl.LOCK_NB
    return True
