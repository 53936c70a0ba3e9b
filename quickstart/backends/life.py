"""The lock that a server holds as long as it lives: the kernel lets go of it when it ends."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

from quickstart.errors import RivaQsError

if TYPE_CHECKING:
    from pathlib import Path


def take(path: Path) -> int:
    """Return a descriptor that holds a server's lock, for the server to inherit.

    Raises:
        RivaQsError: A server has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + 1
    # A `status` looks at the lock for an instant; a server holds it for good.
    while not _locks(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise RivaQsError("a server runs already", "riva-qs stop ends it")
        time.sleep(0.02)
    return descriptor


def is_held(path: Path) -> bool:
    """Say whether a server holds its lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _locks(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locks(descriptor: int, mode: int) -> bool:
    """Take a lock and say whether it could be had."""
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
