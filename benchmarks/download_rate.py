"""How fast a verified download is, as ratios to other ways to fetch the same file, on loopback.

    PYTHONPATH=.:tests python benchmarks/download_rate.py [--mib 1024] [--rounds 7]

Three ways take turns in one run, so that a busy moment of the machine meets all of them:

- ours: list, link, and `transfer.fetch` by 8 ranges, hashed, flushed to the disk and renamed;
- curl: 8 `curl` processes, each with an eighth of the file; nothing hashed, nothing flushed;
- ngcsdk: list, link and all, `download_version` with ngcsdk's own settings; nothing hashed.

The file comes from nginx, over plain HTTP or over TLS as from NGC; lists and links come from the
tests' stand-in for NGC. It prints the median rates, then the median and the quartiles of the ratios
within each round; against curl, which is given the address, ours counts from the list on. Last, a
transfer is killed half way, and the server counts what the next one asks for.
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
import time
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart import transfer
from quickstart.catalog import Artifact
from quickstart.config import Settings
from quickstart.sources.ngc import NgcSource
from quickstart.transfer.ranges import Limits
from support.ngc import PERSONAL, Model, Ngc

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "rmir_asr_test"
REFERENCE = f"nvidia/riva/{NAME}:1.0"
ARTIFACT = Artifact("asr", "", "", NAME, "1.0", "ngc", REFERENCE)
WAYS = ("ours", "curl", "ngcsdk")
CURLS = 8
NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; user root;
events {{ worker_connections 256; }}
http {{
    log_format sent '$body_bytes_sent';
    access_log {folder}/sent.log sent;
    client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
    uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
    sendfile on; sendfile_max_chunk 2m;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    server {{ listen 127.0.0.1:{port} {ssl}; root {folder}; }}
}}
"""


def _free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@dataclass
class Nginx:
    """nginx, which serves one file and counts in its log."""

    path: Path
    scheme: str
    port: int = field(default_factory=_free_port)

    @property
    def url(self) -> str:
        """The address of the file."""
        return f"{self.scheme}://127.0.0.1:{self.port}/{self.path.name}"

    def sent(self) -> int:
        """Return how many bytes of the file were sent so far."""
        return sum(map(int, (self.path.parent / "sent.log").read_text().split()))

    @contextmanager
    def running(self) -> Iterator[Nginx]:
        """Serve until the end of the block."""
        folder = self.path.parent
        configuration = folder / "nginx.conf"
        ssl = "ssl" if self.scheme == "https" else ""
        text = NGINX.format(folder=folder, port=self.port, ssl=ssl)
        configuration.write_text(text)
        command = [shutil.which("nginx") or "nginx", "-c", str(configuration)]
        with subprocess.Popen([*command, "-e", str(folder / "error.log")]) as process:
            try:
                yield self
            finally:
                process.terminate()


class Registry(Ngc):
    """The stand-in, whose links lead to the fast server."""

    address = ""

    def link(self, _model: Model, _path: str) -> str:
        """Return the link to the one file."""
        return self.address


@dataclass
class Bench:
    """What the ways have in common."""

    blobs: Nginx
    folder: Path
    size: int
    sdk: Any
    source: NgcSource = field(init=False)
    listed: float = 0.0

    def signed_in(self) -> NgcSource:
        """Return a source of its own that NGC knows."""
        source = NgcSource.of(Settings(ngc_api_key=PERSONAL))
        source.account.headers("nvidia", "riva")
        return source

    def ours(self) -> None:
        """Fetch and verify."""
        (file,) = self.source.files(ARTIFACT)
        self.listed = time.perf_counter()
        transfer.fetch(self.source, ARTIFACT, file, self.folder / file.name, lambda _: None)

    def curl(self) -> None:
        """Fetch eighths side by side."""
        part = -(-self.size // CURLS)
        trust = ["--cacert", os.environ["REQUESTS_CA_BUNDLE"]]
        command = [shutil.which("curl") or "curl", "-sf", *trust, self.blobs.url]
        children = []
        for start in range(0, self.size, part):
            bounds = f"{start}-{min(start + part, self.size) - 1}"
            output = str(self.folder / f"part{start}")
            children.append(subprocess.Popen([*command, "-r", bounds, "-o", output]))
        if sum(child.wait() for child in children):
            raise SystemExit("curl failed")

    def ngcsdk(self) -> None:
        """Fetch as ngcsdk does."""
        with redirect_stdout(StringIO()):
            done = self.sdk.registry.model.download_version(REFERENCE, str(self.folder))
        if done.status != "Completed":
            raise SystemExit(f"ngcsdk: {done.status}")

    def seconds(self, way: str) -> tuple[float, float]:
        """Return how long one way takes, into an empty folder: in all, and from the list on."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.source = self.signed_in()
        os.sync()
        began = time.perf_counter()
        getattr(self, way)()
        ended = time.perf_counter()
        got = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if got != self.size:
            raise SystemExit(f"{way} brought {got} bytes of {self.size}")
        return ended - began, ended - (self.listed if way == "ours" else began)

    def killed(self) -> tuple[int, int]:
        """Kill a transfer half way; return what its journal lacks, and what is sent again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.source = self.signed_in()
        child = os.fork()
        if not child:
            self.ours()
            os._exit(0)
        while len(self._arrived()) < self.size // (2 * self._step()):
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        time.sleep(0.5)
        there = sum(min(self._step(), self.size - n * self._step()) for n in self._arrived())
        before = self.blobs.sent()
        self.source = self.signed_in()
        self.ours()
        time.sleep(0.5)
        return self.size - there, self.blobs.sent() - before

    def _step(self) -> int:
        """Return the length of the ranges."""
        return Limits().step(self.size)

    def _arrived(self) -> set[int]:
        """Return the numbers of the ranges that the journal says are there."""
        state = self.folder / f"{self.blobs.path.name}.partial.state"
        text = state.read_text() if state.exists() else ""
        return {int(number) for number in re.findall(r"(?m)^(\d+) ", text)}


@contextmanager
def bench(folder: Path, size: int, scheme: str) -> Iterator[Bench]:
    """Give everything that serves and is served."""
    data = os.urandom(size)
    path = folder / "blob.rmir"
    path.write_bytes(data)
    blobs = Nginx(path, scheme)
    with Registry(folder).running() as ngc, blobs.running():
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
    parser.add_argument("--scheme", choices=["http", "https"], default="https")
    parser.add_argument("--folder", type=Path, help="where the files go [the system's]")
    arguments = parser.parse_args()
    size = arguments.mib << 20
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        bench(Path(folder), size, arguments.scheme) as here,
    ):
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for way in times:
            here.seconds(way)
        for _ in range(arguments.rounds):
            for way, taken in times.items():
                taken.append(here.seconds(way))
        print(f"{arguments.mib} MiB over {arguments.scheme}, {os.cpu_count()} cores")
        for way, taken in times.items():
            print(f"{way}: {arguments.mib / statistics.median(t for t, _ in taken):.0f} MiB/s")
        for way, which in (("curl", 1), ("ngcsdk", 0)):
            pairs = zip(times[way], times["ours"], strict=True)
            ratios = [theirs[which] / own[which] for theirs, own in pairs]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"ours / {way}: {middle:.2f} ({low:.2f} to {high:.2f})")
        missing, again = here.killed()
        print(f"killed half way: {missing} bytes were missing, {again} were sent again")


if __name__ == "__main__":
    main()
