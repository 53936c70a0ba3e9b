from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.processes import Running
from benchmarks.streaming_ladder import Server
from benchmarks.utterances import RATE, batch, sound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Silent:
    """A service that answers nothing."""

    async def stream(self, _number: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[None]:
        for _ in [chunk async for chunk in chunks][:0]:
            yield


def searched(server: Server, limit: int) -> tuple[int, int]:
    """Search once where `limit` streams hold; return what was found and the number of tries."""
    server.begin()
    tries = 0
    while not server.is_done:
        server.learn(holds=server.next_try <= limit)
        tries += 1
        assert tries < 40
    return server.low, tries


@given(st.integers(0, 700), st.lists(st.floats(0.7, 1.4), max_size=2))
def test_the_search_finds_the_most_that_hold(limit: int, drift: list[float]) -> None:
    """In every round, near the limit of that round: within a sixteenth, and never above it."""
    server = Server("x", Silent(), Running("", os.getpid()))
    for share in [1.0, *drift]:
        now = int(limit * share)
        found, _ = searched(server, now)
        server.found.append(found)
        assert found <= now <= found + max(1, found // 16)


def test_a_second_round_needs_fewer_tries() -> None:
    """It begins where the round before has ended."""
    server = Server("x", Silent(), Running("", os.getpid()))
    found, first = searched(server, 83)
    server.found.append(found)

    assert searched(server, 83)[1] < first


def test_the_computing_of_a_process_is_counted() -> None:
    """What a process computes adds up."""
    ours = Running("", os.getpid())
    before = ours.cpu_seconds()
    while ours.cpu_seconds() < before + 0.05:
        sum(range(10_000))


def test_utterances_are_the_same_every_time() -> None:
    """Everybody hears the same sounds, of 2 to 8 s."""
    first = batch(8)
    assert first == batch(8)
    assert {2 <= len(one) / (2 * RATE) <= 8 for one in first} == {True}
    assert len(sound(1.5)) == 2 * RATE * 3 // 2
