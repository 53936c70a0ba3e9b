"""Whose turn it is: every request's work on its way to the models.

Each recogniser has a batcher, whose thread runs the model for all requests at once. A request is
a coroutine that awaits its runs there; it needs no thread of its own. What else computes and may
take long runs in a pool of threads, and what is quick at once: handing it over would cost more.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.batching import Batcher, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor, Future

    import grpc

    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.results import Result
    from riva_speech.asr.streaming import Stream
    from riva_speech.audio.features import Samples
    from riva_speech.batching import BatchLimits
    from riva_speech.server.metrics import Metrics

_T = TypeVar("_T")

# Samples whose features, and bytes whose samples, take less time than handing them to a thread.
_QUICK_SAMPLES = 16_000
QUICK_BYTES = 32_768
# How long the silence behind a stream may wait for sound, in seconds: it comes all at once, several
# steps of every stream that ends, while others speak on.
_SILENCE_PATIENCE = 0.25


def deadline_of(context: grpc.aio.ServicerContext) -> float:
    """Return the ``time.monotonic()`` at which a call's client gives up."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else time.monotonic() + remaining


class Waiting:
    """Coroutines of one loop that wait for futures of other threads.

    Futures that end together wake the loop once; each by itself would write into the loop's pipe.
    """

    def __init__(self) -> None:
        self._waiters: dict[Future[Any], asyncio.Future[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self, submit: Callable[[], Future[_T]]) -> _T:
        """Submit something, and return the result of its future, which may end at once."""
        self._loop = asyncio.get_running_loop()
        future = submit()
        self._waiters[future] = waiter = self._loop.create_future()
        try:
            await waiter
            return future.result()
        finally:
            del self._waiters[future]
            future.cancel()
            # An error refers to this frame: it must not refer to what holds the error.
            del future

    def wake(self, futures: Iterable[Future[Any]]) -> None:
        """Go on with who waits for futures, which have ended; from any thread."""
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            if self._loop:
                self._loop.call_soon_threadsafe(self._wake, futures)

    def _wake(self, futures: Iterable[Future[Any]]) -> None:
        for future in futures:
            waiter = self._waiters.get(future)
            if waiter and not waiter.done():
                waiter.set_result(None)


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
        self._waiting = Waiting()
        self._batchers = {
            one.config.name: self._batcher(one, limits, metrics) for one in recognizers
        }

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

    async def run(
        self,
        recognizer: Recognizer,
        item: Any,  # noqa: ANN401 - the recogniser's own
        owner: object,
        deadline: float,
        patience: float = 0.0,
    ) -> Any:  # noqa: ANN401 - as above
        """Let a recogniser's model run an item of ``owner`` when it is its turn."""
        batcher = self._batchers[recognizer.config.name]
        return await self._waiting.wait(
            lambda: batcher.submit(item, stream=id(owner), deadline=deadline, patience=patience)
        )

    def _batcher(
        self, recognizer: Recognizer, limits: BatchLimits, metrics: Metrics
    ) -> Batcher[Any, Any]:
        name = recognizer.config.name
        if isinstance(recognizer, StreamingRecognizer):
            metrics.watch_slots(name, recognizer.live_streams)
        return Batcher(
            recognizer.run,
            recognizer.limits(limits),
            name=name,
            kind=recognizer.kind,
            cost=recognizer.cost,
            watch=Watch(partial(metrics.batch, name), self._waiting.wake),
        )


class Turns:
    """One stream's way through its model's queue."""

    def __init__(
        self, scheduler: Scheduler, recognizer: StreamingRecognizer, stream: Stream, deadline: float
    ) -> None:
        self._scheduler = scheduler
        self._recognizer = recognizer
        self._stream = stream
        self._deadline = deadline
        self._patience = 0.0

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
                self._recognizer, step, self._stream, self._deadline, self._patience
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
        self._patience = _SILENCE_PATIENCE
        await self._do(self._stream.end)
        await self.compute()
        return await self._do(self._stream.last)

    async def _do(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Do a part of the stream's work: here and now where all of it is quick."""
        if self._stream.is_quick:
            return function(*arguments)
        return await self._scheduler.compute(function, *arguments)
