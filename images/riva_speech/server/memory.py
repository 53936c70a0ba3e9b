"""How a server takes memory, and what requests leave of it.

Whoever needs memory often keeps it for the next time: streams' caches, ONNX Runtime, and the C
library what is freed between other blocks. All that the greatest rush ever took would be a
server's for as long as that runs: it is given back to the system once no request is under way.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

# Frees memory that is kept for the next time.
Shrink: TypeAlias = Callable[[], object]

_M_ARENA_MAX = -8
# How many small blocks of a size a thread keeps, in the environment from which glibc reads that.
TUNABLES = "GLIBC_TUNABLES"
KEPT_BLOCKS = "glibc.malloc.tcache_count=200"

# A pause between two requests of one client is no rest.
REST_SECONDS = 5.0


class Reclaimer:
    """Gives memory back when the server has rested for a while, in a thread of its own."""

    def __init__(self, rest: float = REST_SECONDS) -> None:
        """Wait for a rest of so many seconds."""
        self._rest = rest
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._keepers: list[Shrink] = []

    def add(self, *keepers: Shrink) -> None:
        """Let others free what they keep, each time before memory is given back."""
        self._keepers += keepers

    def work(self) -> None:
        """Note that a request is under way; it finds memory as the ones before it left it."""
        self._loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def rest(self) -> None:
        """Note that the last request is over."""
        # What ends after its loop, ends with the server.
        if self._loop and not self._loop.is_closed():
            self._timer = self._loop.call_later(self._rest, self._give_back)

    def _give_back(self) -> None:
        self._timer = None
        asyncio.get_running_loop().run_in_executor(None, give_back, self._keepers)


def share_one_heap() -> None:
    """Let threads share a heap, where the C library would give each its own (glibc).

    Each would keep what the others need, and what is free at the end of such a heap is not given
    back. It is of use before there are other threads.
    """
    if set_option := _of_c_library("mallopt"):
        set_option(_M_ARENA_MAX, 1)


def keep_small_blocks() -> None:
    """Let threads keep the small blocks that they have freed for themselves (glibc).

    A run of a model takes and frees thousands of them. The C library would keep seven of a size,
    join the others to their neighbours, and cut them out again in the next run: a thirtieth of all
    that a server computes. It can be told otherwise only by its environment, before it begins. So
    the process begins anew, once, as the same program with the same arguments. What a thread keeps
    it never gives back: with 2,000 of a size, half an hour of mixed load took a fifth more memory.
    """
    told = os.environ.get(TUNABLES, "")
    if KEPT_BLOCKS.partition("=")[0] in told or not _of_c_library("mallopt"):
        return
    os.environ[TUNABLES] = f"{told}:{KEPT_BLOCKS}" if told else KEPT_BLOCKS
    # A server that cannot begin anew serves as it is.
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell


def give_back(keepers: Iterable[Shrink] = ()) -> None:
    """Return free pages of the heap to the system, where the C library can (glibc)."""
    for shrink in keepers:
        shrink()
    if trim := _of_c_library("malloc_trim"):
        trim(0)


def _of_c_library(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)
