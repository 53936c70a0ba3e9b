from __future__ import annotations

import re
import time
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from quickstart import client, health
from quickstart.backends.base import Exit
from quickstart.health import Check, Exited, Ready, TimedOut

if TYPE_CHECKING:
    from collections.abc import Iterator

YES, NO = Check(ok=True, detail="yes"), Check(ok=False, detail="no")
VAIN = Check(ok=False, detail="vain", settled=True)


@dataclass
class Script:
    """A service whose state moves on with every look; the last state stays."""

    states: list[tuple[Check, Check, Check]]
    asked: list[str] = field(default_factory=list)

    def alive(self) -> Check:
        if self.asked and len(self.states) > 1:
            self.states.pop(0)
        self.asked.append("alive")
        return self.states[0][0]

    def loaded(self) -> Check:
        self.asked.append("loaded")
        return self.states[0][1]

    def answers(self, timeout: float) -> Check:
        assert timeout > 0
        self.asked.append("answers")
        return self.states[0][2]

    def ended(self) -> Exit:
        return Exit(3, "the cause")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_SHORTEST_PAUSE", 0.001)
    monkeypatch.setattr(health, "_LONGEST_PAUSE", 0.01)


def test_ready_means_all_three() -> None:
    """Waiting ends only when the service is alive, loaded and answers."""
    probe = Script([(YES, NO, NO), (YES, YES, NO), (YES, YES, YES)])
    reports: list[str] = []
    outcome = health.wait(probe, 60, reports.append)
    assert outcome == Ready(health.Health(YES, YES, YES))
    assert len(reports) == 2


def test_questions_stop_at_the_first_no() -> None:
    """A service that is not alive is not asked what it has loaded."""
    assert health.examine(Script([(NO, YES, YES)])).last == NO
    probe = Script([(YES, NO, YES)])
    assert health.examine(probe).answers == health.UNASKED
    assert probe.asked == ["alive", "loaded"]


def test_an_exit_ends_the_wait_at_once() -> None:
    """A server that ends is seen at the next look, however long the limit."""
    began = time.monotonic()
    outcome = health.wait(Script([(YES, NO, NO), (NO, NO, NO)]), 3600)
    assert outcome == Exited(Exit(3, "the cause"))
    assert time.monotonic() - began < 60


def test_the_limit_ends_the_wait_with_the_last_state() -> None:
    """When the time is over, the outcome tells what was still missing."""
    outcome = health.wait(Script([(YES, NO, NO)]), 0.05)
    assert isinstance(outcome, TimedOut)
    assert outcome.health.last == NO
    assert outcome.waited >= 0.05


def test_a_settled_no_is_not_asked_for_ever() -> None:
    """An answer that asking again does not change ends the wait long before the limit."""
    probe = Script([(YES, YES, VAIN)])
    outcome = health.wait(probe, 3600)
    assert isinstance(outcome, TimedOut)
    assert outcome.health.last == VAIN
    assert probe.asked.count("answers") == 3


def test_a_long_wait_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not change is said again every so often, with how long it has lasted."""
    monkeypatch.setattr(health, "_TOLD_EVERY", 1)
    reports: list[str] = []
    health.wait(Script([(YES, NO, NO)]), 4.5, reports.append)
    assert reports[0] == "no"
    assert re.fullmatch(r"no \(\d+ of 4 s\)", reports[-1])


@dataclass
class Loading(grpc.GenericRpcHandler):  # type: ignore[misc] # untyped
    """The health service of a server that still loads when it is asked the first times."""

    left: int
    asked: int = 0

    def service(self, _: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._check)

    def _check(self, _request: bytes, _context: Any) -> bytes:
        self.asked += 1
        return b"\x08\x01" if self.asked > self.left else b"\x08\x02"


@contextmanager
def told(loading: Loading) -> Iterator[client.Client]:
    """Give a client of a server that has this health."""
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[loading])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with client.connect(f"127.0.0.1:{port}") as connected:
                yield connected
        finally:
            server.stop(None).wait()


def test_one_that_loads_is_asked_again_over_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That it is ready is known a moment later; one that is not is soon left to be looked at."""
    monkeypatch.setattr(health, "_QUICK", 100)
    soon, never = Loading(3), Loading(10**6)
    with told(never) as server:
        assert not health._serves(server)
    monkeypatch.setattr(health, "_ASKED_FOR", 100)
    with told(soon) as server:
        assert health._serves(server)
    assert soon.asked == 4
