"""What requests leave of memory, given back to the system once none is under way.

The C library keeps what is freed between other blocks, for whoever asks next. After a rush it would
be a server's for as long as that runs.
"""

from __future__ import annotations

import asyncio
import ctypes

# A pause between two requests of one client is no rest.
REST_SECONDS = 5.0


class Reclaimer:
    """Gives memory back when the server has rested for a while, in a thread of its own."""

    def __init__(self, rest: float = REST_SECONDS) -> None:
        """Wait for a rest of so many seconds."""
        self._rest = rest
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

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
        asyncio.get_running_loop().run_in_executor(None, give_back)


def give_back() -> None:
    """Return free pages of the heap to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
