"""Fetches the stand-in's model, in this process or as one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart import transfer
from quickstart.catalog import Artifact
from quickstart.config import Settings
from quickstart.errors import RivaQsError
from quickstart.sources import key
from quickstart.sources.account import Account
from quickstart.sources.network import Network
from quickstart.sources.ngc import NgcSource
from quickstart.transfer.limits import Limits
from quickstart.transfer.patience import Patience
from support.ngc import PERSONAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quickstart.sources import SourceFile

# Small enough that a test's file has many ranges, and quick to lose patience.
STEP = 1 << 16
LIMITS = Limits(
    smallest=STEP,
    largest=STEP,
    chunk=STEP // 4,
    window=0.5,
    worthwhile=STEP // 4,
    patience=Patience(tries=5, first=0.02, longest=2.0),
)
ARTIFACT = Artifact("asr", "", "", "rmir_asr_test", "1.0", "ngc", "nvidia/riva/rmir_asr_test:1.0")


def source(secret: str = PERSONAL, silence: float = 1.0) -> NgcSource:
    """Return the source with a key, as the suite makes it but less patient."""
    found = key.find(Settings(ngc_api_key=secret))
    network = Network(silence=silence, patience=Patience(tries=3, first=0.02, longest=2.0))
    return NgcSource(found, Account(found, "nvidia"), network)


def described(secret: str = PERSONAL) -> tuple[NgcSource, SourceFile]:
    """Return the source, and the first file of the model."""
    here = source(secret)
    return here, here.files(ARTIFACT)[0]


def fetch(target: Path) -> list[int]:
    """Fetch the first file of the model; return what progress was told."""
    here, file = described()
    seen: list[int] = []
    transfer.fetch(here, ARTIFACT, file, target, seen.append, LIMITS)
    return seen


def start(target: Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Fetch the first file of the model in a process of its own."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", "support.fetching", str(target)],
        env={**os.environ, "PYTHONPATH": paths, **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        fetch(Path(sys.argv[1]))
    except RivaQsError as error:
        sys.stderr.write(f"{error.message}\n")
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)
