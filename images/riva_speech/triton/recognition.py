"""A recogniser as one model of Triton: audio in, words out.

It computes the features, lets Triton run the acoustic model, and decodes. A whole utterance is one
request. A stream is a sequence of requests; the last one carries Triton's end flag or END_FLAG 1.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

from riva_speech import repository
from riva_speech.asr.loading import load_recognizer
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.errors import SpeechError
from riva_speech.triton import joining
from riva_speech.triton.session import TritonSession, packed

if TYPE_CHECKING:
    from riva_speech.asr.results import Result
    from riva_speech.asr.streaming import Stream
    from riva_speech.audio.features import Samples


class TritonPythonModel:
    """What Triton's Python backend starts for a pipeline's folder."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the pipeline; ``model_repository`` is Triton's name for the model's own folder."""
        self._recognizer = load_recognizer(
            Path(args["model_repository"]), open_session=TritonSession
        )
        self._rate = self._recognizer.config.acoustic.features.sample_rate
        self._streams: dict[int, _OpenStream] = {}
        self._knows_how_to_join = False

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer what Triton has joined; a request that cannot be answered gets the reason."""
        if not self._knows_how_to_join:
            # Not before: while pipelines are initialised, their graphs may not be loaded yet.
            self._recognizer.learn_to_join()
            self._knows_how_to_join = True
        jobs = [self._begin(request) for request in requests]
        joining.compute(self._recognizer, [job for job in jobs if not isinstance(job, SpeechError)])
        return [_response(job) for job in jobs]

    def _begin(self, request: Any) -> joining.Job | SpeechError:  # noqa: ANN401 - Triton's types
        try:
            samples = self._samples(request)
            if isinstance(self._recognizer, OfflineRecognizer):
                return joining.WholeUtterance(self._recognizer, samples)
            control = _Control.of(request)
            return joining.StreamPart(self._stream(control), samples, ends=control.ends)
        except SpeechError as error:
            return error

    def _samples(self, request: Any) -> Samples:  # noqa: ANN401 - Triton's types
        rate = _number(request, "SAMPLE_RATE")
        if rate != self._rate:
            raise SpeechError(f"SAMPLE_RATE is {rate}, and the model takes {self._rate}")
        signal = pb_utils.get_input_tensor_by_name(request, "AUDIO_SIGNAL").as_numpy()
        if len(signal) != 1:
            raise SpeechError(
                f"AUDIO_SIGNAL holds {len(signal)} recordings: send one a request, for requests of "
                "several clients are joined here"
            )
        samples: Samples = signal[0]
        return samples

    def _stream(self, control: _Control) -> Stream:
        """Return the stream that a request goes on with.

        Raises:
            SpeechError: It has not begun, or was silent for too long.
        """
        assert isinstance(self._recognizer, StreamingRecognizer)  # the other kind has no streams
        if control.starts:
            self._forget_idle()
            self._streams[control.stream] = _OpenStream(self._recognizer.start())
        found = self._streams.get(control.stream)
        if found is None:
            raise SpeechError(f"there is no stream {control.stream}: its start was not heard")
        found.used = time.monotonic()
        if control.ends:
            del self._streams[control.stream]
        return found.stream

    def _forget_idle(self) -> None:
        """Drop the streams that Triton has given up; it does not say when it does."""
        oldest = time.monotonic() - 2 * repository.MAX_IDLE_SECONDS
        self._streams = {number: one for number, one in self._streams.items() if one.used >= oldest}


@dataclass
class _OpenStream:
    """A stream that has begun, and when it was last heard, by the monotonic clock."""

    stream: Stream
    used: float = 0.0


@dataclass(frozen=True)
class _Control:
    """Where in its stream a request stands."""

    stream: int
    starts: bool
    ends: bool

    @classmethod
    def of(cls, request: Any) -> _Control:  # noqa: ANN401 - Triton's types
        """Read the tensors that Triton adds to a request of a stream."""
        return cls(
            stream=_number(request, "CORRID"),
            starts=bool(_number(request, "START")),
            ends=bool(_number(request, "END") or _number(request, "END_FLAG")),
        )


def _response(job: joining.Job | SpeechError) -> Any:  # noqa: ANN401 - Triton's types
    error = job if isinstance(job, SpeechError) else job.error
    if isinstance(job, SpeechError) or error:
        message = error.message if error else ""
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))
    return pb_utils.InferenceResponse(_tensors(job.results()))


def _number(request: Any, name: str) -> int:  # noqa: ANN401 - Triton's types
    return int(pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)[0])


def _tensors(results: list[Result]) -> list[Any]:
    """Return the outputs of a request, with their batch of one."""
    finals = [one for one in results if one.is_final]
    partials = [one for one in results if not one.is_final]
    seconds = max((one.audio_processed for one in results), default=0.0)
    values = {
        "FINAL_TRANSCRIPTS": _texts(finals),
        "FINAL_TRANSCRIPTS_SCORE": np.array([one.confidence for one in finals], np.float32),
        "FINAL_WORDS_START_END": _times(finals),
        "PARTIAL_TRANSCRIPTS": _texts(partials),
        "PARTIAL_WORDS_START_END": _times(partials),
        "AUDIO_PROCESSED": np.array([seconds], np.float32),
    }
    return [pb_utils.Tensor(name, packed(value[np.newaxis])) for name, value in values.items()]


def _texts(results: list[Result]) -> Any:  # noqa: ANN401 - numpy has no type for these
    return np.array([one.transcript.encode() for one in results], np.object_)


def _times(results: list[Result]) -> Any:  # noqa: ANN401 - as above
    """Return the words' beginnings and ends in milliseconds, [words, 2]."""
    times = [(word.start_ms, word.end_ms) for one in results for word in one.words]
    return np.array(times, np.int32).reshape(-1, 2)
