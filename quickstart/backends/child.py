"""A program of this machine that is listened to until it ends."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quickstart.backends.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path


class _EndedError(Exception):
    """The program that is listened to has ended."""


def run(
    who: str,
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    report: Callable[[str], None],
    silence: float,
) -> tuple[int, list[str]]:
    """Run a program in a folder, and return its exit code and its lines, each reported as it comes.

    Raises:
        NotReadyError: It said nothing for `silence` seconds, and was ended.
    """
    child = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with _ended_with_us(child):
        lines = list(_said(child, Watch(who, report, silence, _Look(child))))
    return child.returncode, lines


def _said(child: subprocess.Popen[bytes], watch: Watch) -> Iterator[str]:
    """Yield the lines of a program until it has ended.

    What it started may hold its output open for longer, with nothing to say: it is left alone then.
    """
    assert child.stdout is not None
    output = child.stdout
    with suppress(_EndedError):
        yield from watch.follow(raw.decode(errors="replace").rstrip() for raw in output)
        output.close()


@dataclass
class _Look:
    """What is asked in each pause of a program: whether it has ended.

    Only the second pause after its end counts: what it said last may have been on its way before.
    """

    child: subprocess.Popen[bytes]
    gone: bool = False

    def __call__(self) -> str:
        if self.gone:
            raise _EndedError
        self.gone = self.child.poll() is not None
        return ""


@contextmanager
def _ended_with_us(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a program when we are interrupted, or give it up."""
    try:
        yield
        child.wait()
    except BaseException:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(5)
        child.kill()
        raise
