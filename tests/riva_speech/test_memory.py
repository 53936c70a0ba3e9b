"""What requests leave of memory goes back to the system when the server rests."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.server_client import connected, stream_of
from riva_speech.server.grpc_server import Server
from riva_speech.server.memory import Reclaimer, give_back, keep_small_blocks
from riva_speech.server.options import ServerOptions
from riva_speech.sessions.onnx import OnnxSession
from riva_speech.sessions.opening import GRAPH_FILE
from support.audio import babble, pcm16
from support.memory import resident
from support.ports import free_port

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK, _BLOCKS = 100_000, 640
SECONDS = 120
TESTS = Path(__file__).parents[1]
MELS = 80
OFFLINE = "riva-onnx-tiny-offline-am-streaming-offline"

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


def test_what_is_kept_for_other_requests_is_freed_first() -> None:
    """Each rest lets everybody who keeps memory free it, in the order in which they were added."""
    freed: list[str] = []

    async def rest_twice() -> None:
        loop, rested = asyncio.get_running_loop(), asyncio.Event()
        reclaimer = Reclaimer(rest=0.0)
        reclaimer.add(lambda: freed.append("first"), lambda: freed.append("second"))
        reclaimer.add(lambda: loop.call_soon_threadsafe(rested.set))
        for _ in range(2):
            rested.clear()
            reclaimer.work()
            reclaimer.rest()
            await asyncio.wait_for(rested.wait(), SECONDS)

    asyncio.run(rest_twice())
    assert freed == ["first", "second"] * 2


def test_a_run_s_memory_is_kept_for_others_until_it_shrinks(tiny_repository: Path) -> None:
    """A large run's memory stays the session's, which afterwards answers as it did before."""
    session = OnnxSession(tiny_repository / OFFLINE / "1" / GRAPH_FILE, threads=1)
    short = utterances(count=1, frames=64)
    answer = session.run(short)["logprobs"]
    give_back()
    small = resident()

    session.run(utterances(count=16, frames=3000))
    give_back()
    kept = resident() - small
    session.shrink()
    give_back()

    assert kept > 32 << 20
    assert resident() - small < kept / 2
    np.testing.assert_array_equal(session.run(short)["logprobs"], answer)


def test_a_session_that_never_ran_has_nothing_to_free(tiny_repository: Path) -> None:
    """Nor does it need to know what a run takes."""
    OnnxSession(tiny_repository / OFFLINE / "1" / GRAPH_FILE, threads=1).shrink()


def utterances(*, count: int, frames: int) -> dict[str, NDArray[Any]]:
    """Return so much noise, as the tiny model takes it."""
    noise = np.random.default_rng(0).normal(size=(count, MELS, frames)).astype(np.float32)
    return {"audio_signal": noise, "length": np.full(count, frames)}


class Watched(OnnxSession):
    """A session that tells when it has shrunk."""

    def __init__(self, graph: Path) -> None:
        super().__init__(graph, threads=1)
        self.has_shrunk = threading.Event()

    def shrink(self) -> None:
        super().shrink()
        self.has_shrunk.set()


def test_a_server_at_rest_shrinks_its_models(tiny_repository: Path) -> None:
    """The sessions of all models are asked to, once a stream is over."""
    opened: list[Watched] = []

    def open_watched(folder: Path) -> Watched:
        opened.append(Watched(folder / "1" / GRAPH_FILE))
        return opened[-1]

    port = free_port()

    async def serve() -> bool:
        stopping = asyncio.Event()
        with ThreadPoolExecutor(2) as executor:
            server = Server(
                ServerOptions(f"127.0.0.1:{port}", tiny_repository), executor, open_watched
            )
            serving = asyncio.ensure_future(server.run(stopping))
            try:
                await asyncio.to_thread(stream)
                shrunk = [await asyncio.to_thread(one.has_shrunk.wait, SECONDS) for one in opened]
            finally:
                stopping.set()
                await serving
        return all(shrunk)

    def stream() -> None:
        with connected(port) as stub:
            list(stub.StreamingRecognize(stream_of([pcm16(babble(1.2))])))

    assert asyncio.run(serve())
    assert opened


def test_threads_give_back_what_they_freed_at_the_end_of_a_heap() -> None:
    """They share one, whose end goes back; the C library would give each its own and keep that."""
    program = """
        import ctypes, threading
        from riva_speech.server.memory import give_back, share_one_heap
        from support.memory import resident

        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        libc.malloc.argtypes = [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]

        def work():
            # Once a block as large as this was freed, smaller ones lie in the heap.
            libc.free(libc.malloc(30 << 20))
            blocks = [libc.malloc(1 << 20) for _ in range(32)]
            for block in blocks:
                ctypes.memset(block, 1, 1 << 20)
            for block in blocks:
                libc.free(block)

        share_one_heap()
        before = resident()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        give_back()
        print(resident() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert int(done.stdout) < 8 << 20


def test_a_program_begins_anew_to_keep_small_blocks() -> None:
    """It is the same process with the same arguments; what else the library is told stays."""
    program = """
        import os, sys
        from riva_speech.server.memory import keep_small_blocks

        print(os.getpid(), *sys.argv[1:], os.environ["GLIBC_TUNABLES"], flush=True)
        keep_small_blocks()
        print("goes on")
    """
    told = "glibc.malloc.mxfast=64"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), "an argument"],
        cwd=TESTS,
        env={**os.environ, "GLIBC_TUNABLES": told},
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=SECONDS)

    begins = f"{process.pid} an argument {told}"
    assert output.splitlines() == [
        begins,
        f"{begins}:glibc.malloc.tcache_count=200",
        "goes on",
    ]


def test_a_program_that_cannot_begin_anew_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be started again, an interpreter that is gone, does not end what it has begun."""
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    keep_small_blocks()
