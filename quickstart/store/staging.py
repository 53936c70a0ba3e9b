"""Where files wait on this machine for their way into a volume, one folder for each claim.

Whoever uses a folder holds a lock on it, which falls with its holder. So a folder that nobody holds
was left by a run that was killed: the next one of the same file goes on with it, and `gc` may
remove it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart.errors import IntegrityError
from quickstart.store import locking

if TYPE_CHECKING:
    from collections.abc import Iterator

# In the folder; a lock on the folder itself could not be had on NFS.
_LOCK = ".lock"


def staging() -> Path:
    """Return the folder of this user for everything that waits."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "riva-qs" / "staged"


def claim(folder: Path) -> int:
    """Make a folder and return a descriptor that holds it, once nobody else does."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            descriptor = locking.hold(folder / _LOCK, fcntl.LOCK_EX)
            if descriptor is not None:
                return descriptor


def waiting(folder: Path) -> bool:
    """Say whether a claimed folder holds a file: two of one content may have two names."""
    return any(path.name != _LOCK for path in folder.iterdir())


def release(folder: Path, descriptor: int) -> None:
    """Remove a folder that is claimed, and let go of it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    descriptor = claim(folder)
    try:
        yield folder
    finally:
        release(folder, descriptor)


def abandoned() -> Iterator[Path]:
    """Yield the folders that nobody holds."""
    for folder in sorted(staging().glob("*")):
        with suppress(FileNotFoundError, NotADirectoryError):
            descriptor = locking.hold(folder / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if descriptor is not None:
                os.close(descriptor)
                yield folder


def drop(folder: Path) -> None:
    """Remove a folder, unless somebody has begun to use it."""
    if folder.parent != staging():
        raise IntegrityError(f"{folder} is not a staged download")
    with suppress(FileNotFoundError):
        descriptor = locking.hold(folder / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if descriptor is not None:
            release(folder, descriptor)
