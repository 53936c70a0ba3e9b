"""One streaming call: its configuration, its audio and its recogniser's stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.audio.stream import AudioStream
from riva_speech.server import messages, requests
from riva_speech.server.requests import RequestError
from riva_speech.server.scheduling import QUICK_BYTES, Turns

if TYPE_CHECKING:
    from riva.client.proto import riva_asr_pb2, riva_common_pb2

    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.results import Result
    from riva_speech.asr.streaming import StreamingRecognizer
    from riva_speech.audio.features import Samples
    from riva_speech.audio.stream import DeclaredFormat
    from riva_speech.server.calls import Call
    from riva_speech.server.registry import Registry
    from riva_speech.server.scheduling import Scheduler


def results_of_end(finals: list[Result], last: Result, *, had_final: bool) -> list[Result]:
    """Return what the end of a stream is answered with.

    Args:
        finals: The utterances that ended in the last of the audio.
        last: The utterance that the end cut off: without words it is told only where there is no
            other, and else its probabilities of speech go with the final before.
        had_final: Whether the client was sent one before.
    """
    if last.words or not (finals or had_final):
        return [*finals, last]
    return [*finals[:-1], *(one.heard_on(last) for one in finals[-1:])]


@dataclass(frozen=True)
class Opening:
    """What the first message of a stream asks for."""

    recognizer: StreamingRecognizer
    options: RequestOptions
    declared: DeclaredFormat
    request_id: riva_common_pb2.RequestId | None

    @classmethod
    def read(
        cls, registry: Registry, first: riva_asr_pb2.StreamingRecognizeRequest | None
    ) -> Opening:
        """Read the first message, None if there was none; the errors are those of ``opened``."""
        if first is None:
            raise RequestError("no messages received")
        if first.WhichOneof("streaming_request") != "streaming_config":
            raise RequestError("first message must contain streaming_config")
        streaming = first.streaming_config
        recognizer = registry.online(requests.wanted_model(streaming.config))
        requests.ends_utterance(first.runtime_config)
        return cls(
            recognizer,
            requests.options_of(
                streaming.config,
                recognizer.config,
                classes=recognizer.results.classes,
                interim=streaming.interim_results,
            ),
            requests.declared_format(streaming.config),
            first.id if first.HasField("id") else None,
        )


async def opened(
    registry: Registry,
    scheduler: Scheduler,
    first: riva_asr_pb2.StreamingRecognizeRequest | None,
    call: Call,
    deadline: float,
) -> Conversation:
    """Open the stream that a client's first message asks for.

    Args:
        registry: The models to choose from.
        scheduler: What runs them.
        first: The client's first message; None if there was none.
        call: What is told of the request.
        deadline: The ``time.monotonic()`` at which the client gives up.

    Raises:
        RequestError: The message configures no stream that could be.
        UnavailableModelError: No model fits.
    """

    def begin() -> Conversation:
        """Read the message and begin the stream, with the errors of ``opened``."""
        return Conversation(Opening.read(registry, first), scheduler, call, deadline)

    # Making phrases ready may take a second. All else takes less than handing it to a thread.
    has_phrases = first is not None and first.streaming_config.config.speech_contexts
    return await scheduler.compute(begin) if has_phrases else begin()


class Conversation:
    """Answers the messages of one stream, one at a time."""

    def __init__(self, opening: Opening, scheduler: Scheduler, call: Call, deadline: float) -> None:
        """Begin the stream; the arguments are those of ``opened``."""
        self._opening = opening
        self._scheduler = scheduler
        self._call = call
        self._deadline = deadline
        pipeline = opening.recognizer.config
        self._rate = pipeline.acoustic.features.sample_rate
        self._audio = AudioStream(opening.declared, self._rate)
        self._turns = self._begin_turns()
        # Where the audio of the present stream begins in the client's, in samples.
        self._begin = self._heard = 0
        self._had_final = False
        call.model = pipeline.name

    def close(self) -> None:
        """Give back what the stream takes."""
        self._turns.close()

    async def accept(
        self, request: riva_asr_pb2.StreamingRecognizeRequest
    ) -> riva_asr_pb2.StreamingRecognizeResponse:
        """Take a piece of audio; answer with what is new, which may be nothing."""
        ends = requests.ends_utterance(request.runtime_config)
        if request.WhichOneof("streaming_request") != "audio_content" and not ends:
            raise RequestError("Error: every message after the first must carry audio_content.")
        results = await self._hear(await self._decode(request.audio_content), is_last=ends)
        return self._respond([*results, await self._end_here()] if ends else results)

    async def finish(self) -> riva_asr_pb2.StreamingRecognizeResponse:
        """End the stream; answer with what was still to come."""
        finals = await self._hear(await self._decode_last(), is_last=True)
        last = self._late(await self._turns.finish())
        return self._respond(results_of_end(finals, last, had_final=self._had_final))

    async def _decode(self, audio: bytes) -> Samples:
        if len(audio) <= QUICK_BYTES and not self._audio.is_packed:
            return self._audio.accept(audio)
        return await self._scheduler.compute(self._audio.accept, audio)

    async def _decode_last(self) -> Samples:
        if not self._audio.is_packed:
            return self._audio.finish()
        return await self._scheduler.compute(self._audio.finish)

    async def _end_here(self) -> Result:
        """End the utterance as if the stream did, and go on with a new stream."""
        last = self._late(await self._turns.finish())
        self._turns.close()
        has_phrases = self._opening.options.boosts
        begin = self._begin_turns
        self._turns = await self._scheduler.compute(begin) if has_phrases else begin()
        self._begin = self._heard
        return last

    def _begin_turns(self) -> Turns:
        recognizer = self._opening.recognizer
        stream = recognizer.start(self._opening.options)
        return Turns(self._scheduler, recognizer, stream, self._deadline)

    async def _hear(self, samples: Samples, *, is_last: bool) -> list[Result]:
        self._heard += len(samples)
        self._call.audio_seconds = self._heard / self._rate
        results = await self._turns.accept(samples, is_last=is_last)
        return [self._late(result) for result in results]

    def _late(self, result: Result) -> Result:
        """Return a result of the present stream with the times of the client's."""
        return result.later(self._begin / self._rate) if self._begin else result

    def _respond(self, results: list[Result]) -> riva_asr_pb2.StreamingRecognizeResponse:
        self._had_final |= any(result.is_final for result in results)
        opening = self._opening
        return messages.streaming_response(results, opening.options, opening.request_id)
