"""How fast a verified download is, as ratios to other ways to fetch the same file, on loopback.

    PYTHONPATH=.:tests python benchmarks/download_rate.py [--mib 1024] [--rounds 7]

Three ways take turns in one run, so that a busy moment of the machine meets all of them:

- ours: `transfer.fetch`, by 8 ranges, hashed, flushed to the disk and renamed;
- curl: 8 `curl` processes, each with an eighth of the file; nothing hashed, nothing flushed;
- ngcsdk: `download_version` with ngcsdk's own settings; nothing hashed.

The file comes over plain HTTP from a process that does nothing but sendfile(2), and lists and links
from the tests' stand-in for NGC. It prints the median rates, then the median and the quartiles of
the ratios within each round. Last, a transfer is killed half way, and the server counts what the
next one asks for.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from multiprocessing import Process, Value
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart import transfer
from quickstart.catalog import Artifact
from quickstart.config import Settings
from quickstart.sources import source_of
from support.ngc import PERSONAL, Model, Ngc

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "rmir_asr_test"
REFERENCE = f"nvidia/riva/{NAME}:1.0"
CURLS = 8
_STEP = 1 << 20


@dataclass
class Blobs:
    """A process that serves one file by sendfile, and counts."""

    path: Path
    listener: socket.socket = field(
        default_factory=lambda: socket.create_server(("127.0.0.1", 0), backlog=64)
    )
    sent: Any = field(default_factory=lambda: Value("q", 0))

    @property
    def url(self) -> str:
        """The address of the file."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/{self.path.name}"

    @contextmanager
    def running(self) -> Iterator[Blobs]:
        """Serve until the end of the block."""
        process = Process(target=self._serve, daemon=True)
        process.start()
        try:
            yield self
        finally:
            process.terminate()
            process.join()

    def _serve(self) -> None:
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        """Answer the requests of one connection."""
        with suppress(OSError), client, self.path.open("rb") as file:
            while head := client.recv(65536):
                size = self.path.stat().st_size
                match = re.search(rb"(?i)\r\nrange: bytes=(\d+)-(\d*)", head)
                start = int(match[1]) if match else 0
                stop = min(int(match[2] or size - 1) + 1, size) if match else size
                status = "206 Partial Content" if match else "200 OK"
                ranged = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n" if match else ""
                lines = f"HTTP/1.1 {status}\r\nContent-Length: {stop - start}\r\n{ranged}\r\n"
                client.sendall(lines.encode())
                self._send(client, file.fileno(), start, stop)

    def _send(self, client: socket.socket, file: int, start: int, stop: int) -> None:
        while start < stop:
            count = os.sendfile(client.fileno(), file, start, min(_STEP, stop - start))
            start += count
            with self.sent.get_lock():
                self.sent.value += count


class Registry(Ngc):
    """The stand-in, whose links lead to the fast server."""

    address = ""

    def link(self, _model: Model, _path: str) -> str:
        """Return the link to the one file."""
        return self.address


@dataclass
class Bench:
    """What the ways have in common."""

    blobs: Blobs
    folder: Path
    size: int
    sdk: Any

    def ours(self) -> None:
        """Fetch and verify."""
        artifact = Artifact("asr", "", "", NAME, "1.0", "ngc", REFERENCE)
        source = source_of(artifact, Settings(ngc_api_key=PERSONAL))
        (file,) = source.files(artifact)
        transfer.fetch(source, artifact, file, self.folder / file.name, lambda _: None)

    def curl(self) -> None:
        """Fetch eighths side by side."""
        part = -(-self.size // CURLS)
        children = [
            subprocess.Popen(
                ["curl", "-sf", "-r", f"{start}-{min(start + part, self.size) - 1}"]
                + ["-o", str(self.folder / f"part{start}"), self.blobs.url]
            )
            for start in range(0, self.size, part)
        ]
        if sum(child.wait() for child in children):
            raise SystemExit("curl failed")

    def ngcsdk(self) -> None:
        """Fetch as ngcsdk does."""
        with redirect_stdout(StringIO()):
            done = self.sdk.registry.model.download_version(REFERENCE, str(self.folder))
        if done.status != "Completed":
            raise SystemExit(f"ngcsdk: {done.status}")

    def seconds(self, way: str) -> float:
        """Return how long one way takes, into an empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        os.sync()
        began = time.perf_counter()
        getattr(self, way)()
        took = time.perf_counter() - began
        got = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if got != self.size:
            raise SystemExit(f"{way} brought {got} bytes of {self.size}")
        return took

    def killed(self) -> tuple[int, int]:
        """Kill a transfer half way; return what its journal lacks, and what is sent again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        before = self.blobs.sent.value
        child = os.fork()
        if not child:
            self.ours()
            os._exit(0)
        while self.blobs.sent.value - before < self.size // 2:
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        time.sleep(0.5)
        state = (self.folder / f"{self.blobs.path.name}.partial.state").read_text()
        step = int(re.findall(r'"step": (\d+)', state)[0])
        numbers = {int(number) for number in re.findall(r"(?m)^(\d+) ", state)}
        there = sum(min(step, self.size - number * step) for number in numbers)
        before = self.blobs.sent.value
        self.ours()
        return self.size - there, self.blobs.sent.value - before


@contextmanager
def bench(folder: Path, size: int) -> Iterator[Bench]:
    """Give everything that serves and is served."""
    data = os.urandom(size)
    path = folder / "blob.rmir"
    path.write_bytes(data)
    blobs = Blobs(path)
    with blobs.running(), Registry(folder).running() as ngc:
        assert isinstance(ngc, Registry)
        ngc.address = blobs.url
        ngc.offer(Model({path.name: data}))
        os.environ.update(ngc.environment)
        # It reads its environment when it is imported.
        import ngcsdk  # noqa: PLC0415

        client = ngcsdk.Client()
        client.configure(api_key=PERSONAL, team_name="no-team")
        yield Bench(blobs, folder / "out", size, client)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=1024, help="the size of the file")
    parser.add_argument("--rounds", type=int, default=7, help="how often each way is taken")
    parser.add_argument("--folder", type=Path, help="where the files go [the system's]")
    parser.add_argument("--ways", nargs="*", default=["ours", "curl", "ngcsdk"])
    arguments = parser.parse_args()
    size = arguments.mib << 20
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        bench(Path(folder), size) as here,
    ):
        times: dict[str, list[float]] = {way: [] for way in arguments.ways}
        for way in times:
            here.seconds(way)
        for _ in range(arguments.rounds):
            for way, taken in times.items():
                taken.append(here.seconds(way))
        for way, taken in times.items():
            print(f"{way}: {arguments.mib / statistics.median(taken):.0f} MiB/s")
        for way in arguments.ways[1:]:
            ratios = [theirs / own for theirs, own in zip(times[way], times["ours"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"ours / {way}: {middle:.2f} ({low:.2f} to {high:.2f})")
        missing, again = here.killed()
        print(f"killed half way: {missing} bytes were missing, {again} were sent again")


if __name__ == "__main__":
    main()
