"""Transfers that are killed, interrupted, or meet another process at the same target."""

from __future__ import annotations

import random
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from quickstart import transfer
from quickstart.errors import InterruptionError
from quickstart.transfer.partial import STATE
from quickstart.transfer.ranges import THREAD
from support import fetching
from support.fetching import ARTIFACT, LIMITS, STEP, described, fetch
from support.ngc import PERSONAL, Fault, Model, Ngc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = random.Random(8).randbytes(60 * STEP + 7)


@pytest.fixture
def target(ngc: Ngc, tmp_path: Path) -> Path:
    """Where the stand-in's only file goes, slowly."""
    ngc.offer(Model({"a.rmir": DATA}))
    ngc.fail(Fault("drip", value=8 * STEP, times=-1))
    return tmp_path / "a.rmir"


def journaled(target: Path) -> int:
    """Return how many bytes the journal says are there."""
    lines = target.with_name(target.name + STATE).read_text().splitlines(keepends=True)[1:]
    numbers = {int(line.split()[0]) for line in lines if line.endswith("\n")}
    return sum(min(STEP, len(DATA) - number * STEP) for number in numbers)


@pytest.mark.parametrize("enough", [1, 11, 37])
def test_a_killed_transfer_goes_on(
    ngc: Ngc, target: Path, wait_until: Callable[[Callable[[], object]], None], enough: int
) -> None:
    """After kill -9, what is fetched again is at most the ranges that were in flight."""
    child = fetching.start(target)
    wait_until(lambda: journaled(target) >= enough * STEP)
    child.kill()
    child.communicate()
    wait_until(lambda: not ngc.clients)
    there, spent = journaled(target), ngc.sent["a.rmir"]
    ngc.faults.clear()
    assert not target.exists()
    assert sum(fetch(target)) == len(DATA)
    assert target.read_bytes() == DATA
    again = ngc.sent["a.rmir"] - spent
    assert again == len(DATA) - there
    assert spent + again <= len(DATA) + LIMITS.connections * STEP


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_at_once(
    ngc: Ngc,
    target: Path,
    wait_until: Callable[[Callable[[], object]], None],
    number: signal.Signals,
) -> None:
    """Ctrl-C ends a transfer long before a silent server is given up, and it can go on."""
    ngc.fail(Fault("silence", times=3, skip=20))
    child = fetching.start(target)
    wait_until(lambda: journaled(target) >= 14 * STEP)
    child.send_signal(number)
    child.communicate(timeout=120)
    assert child.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)
    wait_until(lambda: not ngc.clients)
    there, spent = journaled(target), ngc.sent["a.rmir"]
    ngc.faults.clear()
    fetch(target)
    assert ngc.sent["a.rmir"] - spent == len(DATA) - there
    assert target.read_bytes() == DATA


def test_an_interrupt_with_nothing_arrived_leaves_nothing(
    ngc: Ngc, target: Path, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    """Before the first range is there, Ctrl-C leaves no file at all."""
    ngc.fail(Fault("silence", times=-1))
    child = fetching.start(target)
    wait_until(lambda: ngc.asked("/blob/"))
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=100)
    assert child.returncode == 130
    assert not list(target.parent.glob("a.rmir*"))


def test_two_processes_fetch_once(ngc: Ngc, target: Path) -> None:
    """The second process waits for the first, and takes what it made."""
    ngc.faults.clear()
    children = [fetching.start(target) for _ in range(3)]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert (child.returncode, errors) == (0, "")
    assert ngc.sent["a.rmir"] == len(DATA)
    assert target.read_bytes() == DATA
    assert not list(target.parent.glob("a.rmir.*"))


def test_the_second_goes_on_where_the_first_was_killed(
    ngc: Ngc, target: Path, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    """A process that waits for one that is killed takes over, ranges and all."""
    first = fetching.start(target)
    wait_until(lambda: journaled(target) >= 3 * STEP)
    second = fetching.start(target)
    wait_until(lambda: journaled(target) >= 20 * STEP)
    first.kill()
    first.communicate()
    _, errors = second.communicate(timeout=120)
    assert (second.returncode, errors) == (0, "")
    assert target.read_bytes() == DATA
    assert ngc.sent["a.rmir"] <= len(DATA) + LIMITS.connections * STEP


def test_threads_at_one_target_fetch_once(ngc: Ngc, target: Path) -> None:
    """Threads of one process wait for each other too."""
    ngc.faults.clear()
    here, file = described()
    jobs = [transfer.Job(here, ARTIFACT, file, target)] * 3
    transfer.fetch_all(jobs, lambda _: None, LIMITS)
    assert ngc.sent["a.rmir"] == len(DATA)


def test_an_exception_of_a_signal_handler_stops_several_files(ngc: Ngc, target: Path) -> None:
    """An interrupt stops files that come side by side, and each can go on."""
    ngc.models[0].files = {"a.rmir": DATA, "b.rmir": DATA}
    here = fetching.source()
    jobs = [
        transfer.Job(here, ARTIFACT, file, target.with_name(file.name))
        for file in here.files(ARTIFACT)
    ]

    def interrupt(_number: int, _frame: object) -> None:
        raise InterruptionError("stopped by SIGALRM")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.7)
        with pytest.raises(InterruptionError):
            transfer.fetch_all(jobs, lambda _: None, LIMITS)
    finally:
        signal.signal(signal.SIGALRM, before)
    ngc.faults.clear()
    transfer.fetch_all(jobs, lambda _: None, LIMITS)
    assert target.with_name("b.rmir").read_bytes() == target.read_bytes() == DATA
    fetching.settle()
    assert THREAD not in {thread.name for thread in threading.enumerate()}


def test_the_key_is_in_no_argument_and_no_output(ngc: Ngc, target: Path) -> None:
    """No key shows in what a process prints when it fails, nor in how an object is shown."""
    ngc.faults.clear()
    ngc.fail(Fault("status", value=500, times=-1))
    child = fetching.start(target)
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 1
    assert PERSONAL not in output + errors
    assert PERSONAL not in repr(fetching.source())
    assert "Signature" not in output + errors
