"""From a source to a verified file: all of it, with the right hash, or nothing.

Bytes go to a `.partial` file in parallel ranges and are hashed on the way; the file takes its name,
in one atomic step, only when size and hash are those that the source promised.

`ranges` moves and `hashing` hashes, `course` is what their threads share, `partial` is the file on
its way with its journal, `limits` and `patience` say what is put up with, and how often something
is tried again.
"""

from __future__ import annotations

import functools
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quickstart.errors import IntegrityError, OutOfResourceError
from quickstart.files import sha256, sync_folder
from quickstart.transfer.limits import Limits
from quickstart.transfer.partial import Partial, held
from quickstart.transfer.ranges import Ledger, Mover, RangesIgnoredError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from quickstart.catalog import Artifact
    from quickstart.sources import Source, SourceFile

_SPARE = 64 << 20
_FILES_AT_ONCE = 4
_TICK = 0.1
_FAREWELL = 1.5
_WRONG_HASH = "compare the hash with what its publisher says"


def check_space(folder: Path, needed: int) -> None:
    """Raise OutOfResourceError unless `needed` bytes, and a little more, fit where `folder` is."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed + _SPARE:
        raise OutOfResourceError(
            f"{size_text(needed + _SPARE)} are needed in {folder}, and {size_text(free)} are free",
            "free some space, or set riva_model_loc to a larger disk",
        )


@dataclass(frozen=True)
class Job:
    """One file to bring, and where to."""

    source: Source
    artifact: Artifact
    file: SourceFile
    target: Path


def fetch(
    source: Source,
    artifact: Artifact,
    file: SourceFile,
    target: Path,
    progress: Callable[[int], None],
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
) -> None:
    """Bring one file to `target`, as `fetch_all` does."""
    fetch_all([Job(source, artifact, file, target)], progress, limits)


def fetch_all(
    jobs: Sequence[Job],
    progress: Callable[[int], None],
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
) -> None:
    """Bring files to their targets, several at a time, each verified before it takes its name.

    What an interruption leaves is a `.partial` file with its journal, from which the next call goes
    on. Where another process brings the same file, this one waits for it and takes what it made.

    Args:
        jobs: The files.
        progress: Called, from any thread, with numbers of bytes that add up to all sizes; what an
            earlier call had brought is among them.
        limits: How they are split, and what is put up with.

    Raises:
        IntegrityError: What came does not have the hash that was promised.
        NetworkError: The other side failed too often.
        OutOfResourceError: The disk has no room for it.
    """
    stop, slots = threading.Event(), threading.Semaphore(limits.connections)

    shared = _Shared(limits, stop, slots)
    if len(jobs) == 1:
        _bring(jobs[0], Ledger(progress), shared)
        return
    report = _one_at_a_time(progress)
    calls = [functools.partial(_bring, job, Ledger(report), shared) for job in jobs]
    _side_by_side(calls, stop)


def _one_at_a_time(progress: Callable[[int], None]) -> Callable[[int], None]:
    """Return `progress` for callers in several threads."""
    lock = threading.Lock()

    def report(more: int) -> None:
        """Count `more` bytes, one thread at a time."""
        with lock:
            progress(more)

    return report


@dataclass(frozen=True)
class _Shared:
    """What all files on their way share."""

    limits: Limits
    stop: threading.Event
    slots: threading.Semaphore


def _side_by_side(calls: Sequence[Callable[[], None]], stop: threading.Event) -> None:
    """Make calls in threads; the first failure, or an interrupt, stops all."""
    failures: list[BaseException] = []
    free = threading.Semaphore(_FILES_AT_ONCE)

    def work(call: Callable[[], None]) -> None:
        """Do it once there is room; its failure stops what has not begun."""
        try:
            with free:
                if not stop.is_set():
                    call()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=work, args=(call,), daemon=True) for call in calls]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            _join(thread)
    finally:
        stop.set()
        for thread in threads:
            thread.join(_FAREWELL / len(threads))
    if failures:
        raise failures[0]


def _join(thread: threading.Thread) -> None:
    """Wait for a thread's end, in steps that a signal's handler can come between."""
    while thread.is_alive():
        thread.join(_TICK)


def _bring(job: Job, ledger: Ledger, shared: _Shared) -> None:
    """Bring one file, alone with its `.partial` file."""
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with held(job.target, job.file, shared.limits.step(job.file.size)) as part:
        try:
            if _is_there(job):
                ledger.reach(0, job.file.size)
                part.discard()
                return
            part.resume()
            check_space(job.target.parent, part.missing())
            _verify(job, _verified(job, part, ledger, shared))
            part.publish()
        except IntegrityError:
            part.discard()
            raise
        except BaseException:
            if not part.arrived:
                part.discard()
            raise
    sync_folder(job.target.parent)


def _is_there(job: Job) -> bool:
    """Say whether the target is the file already."""
    path = job.target
    if not path.is_file() or path.stat().st_size != job.file.size:
        return False
    return sha256(path) == job.file.sha256


def _verified(job: Job, part: Partial, ledger: Ledger, shared: _Shared) -> str:
    """Bring what is missing and return the hash; what cannot be trusted is brought once more."""
    got = _move(job, part, ledger, shared)
    if got != job.file.sha256 and part.distrust_unproven():
        return _move(job, part, ledger, shared)
    return got


def _move(job: Job, part: Partial, ledger: Ledger, shared: _Shared) -> str:
    """Bring what is missing, by ranges or, where that cannot be, in one go; return the hash."""

    def mover() -> Mover:
        """Return one that begins with what is there."""
        return Mover(job.source, job.artifact, part, ledger, **vars(shared))

    try:
        return mover().move()
    except RangesIgnoredError:
        return mover().move(whole=True)


def _verify(job: Job, got: str) -> None:
    """Raise unless what is there has the hash that was promised."""
    file = job.file
    if got == file.sha256:
        return
    came_from = "install riva-qs again" if job.artifact.source == "embedded" else _WRONG_HASH
    raise IntegrityError(
        f"{file.name} is not the file that was promised: its {file.size} bytes have the SHA-256"
        f" {got[:16]}..., instead of {file.sha256[:16]}...",
        f"fetch it again; if it stays so, {came_from}",
    )


def size_text(count: int) -> str:
    """Return a number of bytes as people write it."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:  # noqa: PLR2004 - the step of decimal units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
