"""Fetches the stand-in's model, in this process or as one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
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
from quickstart.transfer.ranges import THREAD
from support.ngc import PERSONAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quickstart.sources import SourceFile

# Small enough that a test's file has many ranges; failures are soon behind it. What takes time is
# put up with: a machine that is busy would do the same to a server that is not slow.
STEP = 1 << 16
LIMITS = Limits(
    smallest=STEP,
    largest=STEP,
    chunk=STEP // 4,
    worthwhile=STEP // 4,
    patience=Patience(tries=5, first=0.02, longest=2.0),
)
SILENCE = 60.0
# For servers that are slow on purpose.
HASTY = replace(LIMITS, window=1.0)
ARTIFACT = Artifact("asr", "", "", "rmir_asr_test", "1.0", "ngc", "nvidia/riva/rmir_asr_test:1.0")


def source(secret: str = PERSONAL, silence: float = SILENCE) -> NgcSource:
    """Return the source with a key, as the suite makes it but with shorter pauses."""
    found = key.find(Settings(ngc_api_key=secret))
    network = Network(silence=silence, patience=Patience(tries=3, first=0.02, longest=2.0))
    return NgcSource(found, Account(found, "nvidia"), network)


def described(silence: float = SILENCE) -> tuple[NgcSource, SourceFile]:
    """Return the source, and the first file of the model."""
    here = source(silence=silence)
    return here, here.files(ARTIFACT)[0]


def fetch(target: Path, silence: float = SILENCE, limits: Limits = LIMITS) -> list[int]:
    """Fetch the first file of the model; return what progress was told."""
    here, file = described(silence)
    seen: list[int] = []
    transfer.fetch(here, ARTIFACT, file, target, seen.append, limits)
    return seen


def settle() -> None:
    """Wait until no thread of a transfer that has failed is left in this process."""
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(100)


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
