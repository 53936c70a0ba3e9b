"""Whose turn it is: every request's work on its way to the models.

Each recogniser has a batcher, whose thread runs the model for all requests at once. A request is
a coroutine that awaits its runs there; it needs no thread of its own. What else computes and may
take long runs in a pool of threads, and what is quick at once: handing it over would cost more.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from riva_speech.asr.recognizer import StreamingRecognizer
from riva_speech.batching import Batcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    import grpc

    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.recognizer import Stream
    from riva_speech.asr.results import Result
    from riva_speech.audio.features import Samples
    from riva_speech.batching import BatchLimits
    from riva_speech.server.metrics import Metrics

_T = TypeVar("_T")

# Samples whose features, and bytes whose samples, take less time than handing them to a thread.
_QUICK_SAMPLES = 16_000
QUICK_BYTES = 32_768


def deadline_of(context: grpc.aio.ServicerContext) -> float:
    """Return the ``time.monotonic()`` at which a call's client gives up."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else time.monotonic() + remaining


class Scheduler:
    """The models of a server and their queues."""

    def __init__(
        self,
        recognizers: Iterable[Recognizer],
        executor: Executor,
        limits: BatchLimits,
        metrics: Metrics,
    ) -> None:
        """Start a thread for each recogniser."""
        self._executor = executor
        self._batchers = {one.config.name: _batcher(one, limits, metrics) for one in recognizers}

    def close(self) -> None:
        """End the threads; what still waits fails."""
        for batcher in self._batchers.values():
            batcher.close()

    async def compute(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Run a function in the pool."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(function, *arguments))

    async def recognize(
        self, recognizer: Recognizer, samples: Samples, options: RequestOptions, deadline: float
    ) -> Result:
        """Recognise a whole utterance.

        Raises:
            BatcherError: It was not computed, for a reason that lies not in it.
        """
        if isinstance(recognizer, StreamingRecognizer):
            stream = await self.compute(recognizer.start_whole, options)
            with closing(Turns(self, recognizer, stream, deadline)) as turns:
                await turns.push(samples)
                await turns.compute()
                return await turns.finish()
        utterance = await self.compute(recognizer.start, samples, options)
        for window in utterance.windows():
            utterance.take(await self.run(recognizer, window, utterance, deadline))
        return await self.compute(utterance.finish, options)

    async def run(self, recognizer: Recognizer, item: Any, owner: object, deadline: float) -> Any:  # noqa: ANN401 - the recogniser's own
        """Let a recogniser's model run an item of ``owner`` when it is its turn."""
        batcher = self._batchers[recognizer.config.name]
        return await asyncio.wrap_future(batcher.submit(item, stream=id(owner), deadline=deadline))


class Turns:
    """One stream's way through its model's queue."""

    def __init__(
        self, scheduler: Scheduler, recognizer: StreamingRecognizer, stream: Stream, deadline: float
    ) -> None:
        self._scheduler = scheduler
        self._recognizer = recognizer
        self._stream = stream
        self._deadline = deadline

    def close(self) -> None:
        """Give the stream's slot back."""
        self._stream.close()

    async def push(self, samples: Samples) -> None:
        """Take samples."""
        if len(samples) <= _QUICK_SAMPLES and self._stream.is_quick:
            self._stream.push(samples)
        else:
            await self._scheduler.compute(self._stream.push, samples)

    async def compute(self) -> list[Result]:
        """Compute whatever can be; return the utterances that ended."""
        finals: list[Result] = []
        while step := self._stream.next_step():
            reading = await self._scheduler.run(
                self._recognizer, step, self._stream, self._deadline
            )
            finals += await self._do(self._stream.take, reading)
        return finals

    async def accept(self, samples: Samples, *, is_last: bool) -> list[Result]:
        """Take samples; return what ``Stream.accept`` does, but nothing partial where they end."""
        await self.push(samples)
        finals = await self.compute()
        return finals if is_last else [*finals, *await self._do(self._stream.partial)]

    async def finish(self) -> Result:
        """End the stream; return what ``Stream.finish`` does."""
        await self._do(self._stream.end)
        await self.compute()
        return await self._do(self._stream.last)

    async def _do(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Do a part of the stream's work: here and now where all of it is quick."""
        if self._stream.is_quick:
            return function(*arguments)
        return await self._scheduler.compute(function, *arguments)


def _batcher(recognizer: Recognizer, limits: BatchLimits, metrics: Metrics) -> Batcher[Any, Any]:
    name = recognizer.config.name
    if isinstance(recognizer, StreamingRecognizer):
        metrics.watch_slots(name, recognizer.live_streams)
    return Batcher(
        recognizer.run,
        recognizer.limits(limits),
        name=name,
        kind=recognizer.kind,
        cost=recognizer.cost,
        observe=partial(metrics.batch, name),
    )
