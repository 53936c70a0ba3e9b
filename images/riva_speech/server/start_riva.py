"""``start-riva``: serve a model repository.

start-riva --riva-uri=0.0.0.0:50051 --model_repository=/data/models --asr_service=true
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from riva_speech import program
from riva_speech.server import memory
from riva_speech.server.command_line import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riva_speech.server.options import ServerOptions

# How long a thread that computes in Python may let others wait, in seconds.
_SWITCH_SECONDS = 0.001

_log = logging.getLogger("riva_speech.server")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    options = parse(sys.argv[1:] if argv is None else argv)
    if argv is None:
        memory.keep_small_blocks()
    _keep_blas_calm()
    memory.share_one_heap()
    program.start_logging(log_format=options.log_format)
    sys.exit(program.run(lambda: serve(options)))


def _keep_blas_calm() -> None:
    """Let NumPy multiply matrices in the thread that asks for it.

    Those of features are small, and OpenBLAS's own threads go on spinning after each of them: they
    took three quarters of a server's CPU time. It reads this when NumPy is first imported.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def serve(options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    asyncio.run(_serve(options))


async def _serve(options: ServerOptions) -> None:
    from riva_speech.server.grpc_server import Server  # noqa: PLC0415 - after the help text

    # Models' threads come back from a run with the interpreter's lock to wait for.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pipeline") as executor:
        server = Server(options, executor)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, number, stopping)
        await server.run(stopping)
        if server.is_loading:
            _leave()


def _leave() -> None:
    """End the process now: Python would wait for the thread that loads, which may take minutes."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _on_signal(number: signal.Signals, stopping: asyncio.Event) -> None:
    _log.info("Signal (%d) received.", number)
    stopping.set()


if __name__ == "__main__":
    main()
