"""What requests leave of memory goes back to the system when the server rests."""

from __future__ import annotations

import asyncio
import ctypes

import pytest

from riva_speech.server.memory import Reclaimer
from support.memory import resident

_BLOCK, _BLOCKS = 100_000, 640

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)


def leave_behind() -> int:
    """Free all blocks but the last, which keeps the heap from shrinking; return that."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(_BLOCK) for _ in range(_BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, _BLOCK)
    for block in blocks[:-1]:
        libc.free(block)
    return int(blocks[-1])


def test_memory_goes_back_once_no_request_is_under_way() -> None:
    """A request keeps it, as the next may want it; a rest gives back what was freed."""
    kept, given_back = asyncio.run(work_and_rest())
    assert not kept
    assert given_back


async def work_and_rest() -> tuple[bool, bool]:
    """Say whether memory went back while a request was under way, and whether it did after it."""
    reclaimer = Reclaimer(rest=0.05)
    reclaimer.work()
    reclaimer.rest()
    reclaimer.work()
    last = leave_behind()
    before = resident()
    early = await falls_below(before - _BLOCKS * _BLOCK // 4, seconds=0.3)
    reclaimer.rest()
    late = await falls_below(before - _BLOCKS * _BLOCK // 2, seconds=60)
    ctypes.CDLL(None).free(ctypes.c_void_p(last))
    return early, late


async def falls_below(size: int, *, seconds: float) -> bool:
    """Say whether this process's memory falls below a size within some seconds."""
    for _ in range(int(seconds / 0.02)):
        await asyncio.sleep(0.02)
        if resident() < size:
            return True
    return False
