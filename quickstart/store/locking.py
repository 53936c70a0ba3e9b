"""Locks in files: held through a descriptor, so each falls with its holder.

`take` is that of a model location.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from quickstart import platforms
from quickstart.errors import RivaQsError

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 5.0


def take(path: Path, verb: str, pid: int, patience: float) -> int:
    """Return a descriptor that holds the lock in `path`, with a note of who has it.

    Raises:
        RivaQsError: Another riva-qs holds it; the message says which.
    """
    descriptor = _take(path, time.monotonic() + patience)
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": pid, "verb": verb}).encode(), 0)
    return descriptor


def hold(path: Path, how: int) -> int | None:
    """Return a descriptor that holds the lock in `path`, which is made where it is not there.

    Args:
        path: The file of the lock.
        how: As `fcntl.flock` takes it.

    Returns:
        None where another holds it, or has removed or replaced the file meanwhile.

    Raises:
        FileNotFoundError: Its folder is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, how)
            if _is_still(path, descriptor):
                return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def wait(path: Path) -> int:
    """Return a descriptor that holds the lock in `path`, once nobody else does."""
    while (descriptor := hold(path, fcntl.LOCK_EX)) is None:
        pass
    return descriptor


def _take(path: Path, deadline: float) -> int:
    """Return a descriptor that holds the lock in `path`."""
    while (descriptor := hold(path, fcntl.LOCK_EX | fcntl.LOCK_NB)) is None:
        if time.monotonic() > deadline:
            raise _busy(path)
        time.sleep(0.1)
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    """Say whether a descriptor is of the file now at `path`: `clean` may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _busy(path: Path) -> RivaQsError:
    """Return the error that says who holds the lock."""
    owner = platforms.holder(path)
    who = str(owner) if owner else "another process"
    with suppress(OSError, ValueError, KeyError):
        noted = json.loads(path.read_text("utf-8"))
        if owner is None or owner.pid == noted["pid"]:
            who = f"riva-qs {noted['verb']} (pid {noted['pid']})"
    message = f"{who} is at work in {path.parent}"
    return RivaQsError(message, "wait until it is done, or stop it")
