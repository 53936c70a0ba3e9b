"""Kills a program and all that it started, again and again, at moments that nobody chose."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Killer:
    """Runs a command and kills its process group after a random part of its usual time.

    Attributes:
        command: The command line.
        folder: Where it runs.
        environment: Its environment.
        duration: How long it takes when nobody kills it, in seconds.
        killed: How many runs were killed; the others ended first.
    """

    command: list[str]
    folder: Path
    environment: dict[str, str]
    duration: float = 0.0
    killed: int = 0
    moments: random.Random = field(default_factory=lambda: random.Random(7))

    def whole(self) -> None:
        """Run the command to its end, which must be a good one, and learn how long it takes."""
        began = time.monotonic()
        done = self._started()
        _, err = done.communicate(timeout=200)
        assert done.returncode == 0, err.decode()
        self.duration = time.monotonic() - began

    def once(self) -> None:
        """Run the command and kill it."""
        running = self._started()
        try:
            running.communicate(timeout=self.moments.uniform(0, self.duration))
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
            self.killed += 1

    def _started(self) -> subprocess.Popen[bytes]:
        """Return the command, running in a process group of its own."""
        return subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def until(self, times: int, prepare: Callable[[int], None]) -> Iterator[int]:
        """Yield after each kill, until there were so many; each run has something new to do."""
        number = 0
        while self.killed < times:
            before = self.killed
            number += 1
            prepare(number)
            self.once()
            if self.killed > before:
                yield self.killed
