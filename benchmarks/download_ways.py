"""Ways to fetch one file from the stand-in for NGC, and what each takes of time and processors."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
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
from quickstart.transfer.limits import Limits

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.ngc import PERSONAL, Model, Ngc
from support.nginx import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "rmir_asr_test"
REFERENCE = f"nvidia/riva/{NAME}:1.0"
ARTIFACT = Artifact("asr", "", "", NAME, "1.0", "ngc", REFERENCE)
WAYS = ("ours", "curl", "verified", "ngcsdk")
"""The names of the methods of ``Bench`` that fetch the file, each in its way."""
CURLS = 8


class Registry(Ngc):
    """The stand-in, whose links lead to the fast server."""

    address = ""

    def link(self, _model: Model, _path: str) -> str:
        """Return the link to the one file."""
        return self.address


@dataclass(frozen=True)
class Run:
    """What one way took, in seconds.

    Attributes:
        whole: In all.
        listed: From the list on.
        fetching: Of processors, in this process and its children.
        serving: Of processors, in nginx.
    """

    whole: float
    listed: float
    fetching: float
    serving: float


@dataclass
class Bench:
    """What the ways have in common."""

    ngc: Registry
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
        command = [shutil.which("curl") or "curl", "-sf", *trust, self.ngc.address]
        children = []
        for number, start in enumerate(range(0, self.size, part)):
            bounds = f"{start}-{min(start + part, self.size) - 1}"
            output = str(self.folder / f"part{number}")
            children.append(subprocess.Popen([*command, "-r", bounds, "-o", output]))
        if sum(child.wait() for child in children):
            raise SystemExit("curl failed")

    def verified(self) -> None:
        """Fetch eighths side by side, and hash them when all are there."""
        self.curl()
        parts = [str(path) for path in sorted(self.folder.glob("part*"))]
        with subprocess.Popen(["cat", *parts], stdout=subprocess.PIPE) as all_parts:  # noqa: S607 - as below
            subprocess.run(
                ["sha256sum"],  # noqa: S607 - whichever is installed
                stdin=all_parts.stdout,
                stdout=subprocess.DEVNULL,
                check=True,
            )

    def ngcsdk(self) -> None:
        """Fetch as ngcsdk does."""
        with redirect_stdout(StringIO()):
            done = self.sdk.registry.model.download_version(REFERENCE, str(self.folder))
        if done.status != "Completed":
            raise SystemExit(f"ngcsdk: {done.status}")

    def empty(self) -> None:
        """Begin with an empty folder and a source that knows nothing yet."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.source = self.signed_in()
        os.sync()

    def run(self, way: str) -> Run:
        """Return what one way takes, into an empty folder."""
        self.empty()
        fetching, serving = _processors(), self.blobs.processors()
        began = time.perf_counter()
        getattr(self, way)()
        ended = time.perf_counter()
        fetching, serving = _processors() - fetching, self.blobs.processors() - serving
        got = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if got != self.size:
            raise SystemExit(f"{way} brought {got} bytes of {self.size}")
        since = self.listed if way == "ours" else began
        return Run(ended - began, ended - since, fetching, serving)

    def killed(self) -> tuple[int, int]:
        """Kill a transfer half way; return what its journal lacks, and what is sent again."""
        self.empty()
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


def _processors() -> float:
    """Return the processor time of this process and its ended children so far, in seconds."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@contextmanager
def bench(folder: Path, size: int, scheme: str, slow: int = 8) -> Iterator[Bench]:
    """Give everything that serves and is served."""
    data = os.urandom(size)
    path = folder / "blob.rmir"
    path.write_bytes(data)
    blobs = Nginx(path, scheme, slow)
    with Registry(folder).running() as ngc, blobs.running():
        assert isinstance(ngc, Registry)
        ngc.address = blobs.url()
        ngc.offer(Model({path.name: data}))
        os.environ.update(ngc.environment)
        # It reads its environment when it is imported.
        import ngcsdk

        client = ngcsdk.Client()
        client.configure(api_key=PERSONAL, team_name="no-team")
        yield Bench(ngc, blobs, folder / "out", size, client)
