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
from riva_speech.asr.recognizer import OfflineRecognizer
from riva_speech.errors import SpeechError
from riva_speech.triton.session import TritonSession, packed

if TYPE_CHECKING:
    from riva_speech.asr.recognizer import Stream, StreamingRecognizer
    from riva_speech.asr.results import Result
    from riva_speech.audio.features import Samples


class TritonPythonModel:
    """What Triton's Python backend starts for a pipeline's folder."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the pipeline; ``model_repository`` is Triton's name for the model's own folder."""
        recognizer = load_recognizer(Path(args["model_repository"]), open_session=TritonSession)
        self._rate = recognizer.config.acoustic.features.sample_rate
        self._whole, self._streams = None, None
        if isinstance(recognizer, OfflineRecognizer):
            self._whole = recognizer
        else:
            self._streams = _Streams(recognizer)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; one that cannot be answered gets the reason."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 - Triton's types
        try:
            results = self._hear(request)
        except SpeechError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(error.message))
        return pb_utils.InferenceResponse(_tensors(results))

    def _hear(self, request: Any) -> list[Result]:  # noqa: ANN401 - Triton's types
        rate = _number(request, "SAMPLE_RATE")
        if rate != self._rate:
            raise SpeechError(f"SAMPLE_RATE is {rate}, and the model takes {self._rate}")
        signal = pb_utils.get_input_tensor_by_name(request, "AUDIO_SIGNAL")
        samples: Samples = signal.as_numpy().reshape(-1)
        if self._streams:
            return self._streams.accept(_Control.of(request), samples)
        assert self._whole
        return [self._whole.recognize(samples)]


@dataclass(frozen=True)
class _Control:
    """Where in its stream a request stands."""

    stream: int
    starts: bool
    ends: bool

    @classmethod
    def of(cls, request: Any) -> _Control:  # noqa: ANN401 - Triton's types
        return cls(
            stream=_number(request, "CORRID"),
            starts=bool(_number(request, "START")),
            ends=bool(_number(request, "END") or _number(request, "END_FLAG")),
        )


class _Streams:
    """The streams that this instance has begun to hear."""

    def __init__(self, recognizer: StreamingRecognizer) -> None:
        self._recognizer = recognizer
        self._open: dict[int, Stream] = {}
        self._used: dict[int, float] = {}

    def accept(self, control: _Control, samples: Samples) -> list[Result]:
        """Take the next samples of a stream.

        Raises:
            SpeechError: The stream has not begun, or was silent for too long.
        """
        if control.starts:
            self._forget_idle()
            self._open[control.stream] = self._recognizer.start()
        if control.stream not in self._open:
            raise SpeechError(f"there is no stream {control.stream}: its start was not heard")
        self._used[control.stream] = time.monotonic()
        results = self._open[control.stream].accept(samples)
        return self._finish(control.stream, results) if control.ends else results

    def _finish(self, stream: int, results: list[Result]) -> list[Result]:
        del self._used[stream]
        last = self._open.pop(stream).finish()
        return [*(one for one in results if one.is_final), last]

    def _forget_idle(self) -> None:
        """Drop the streams that Triton has given up; it does not say when it does."""
        oldest = time.monotonic() - 2 * repository.MAX_IDLE_SECONDS
        for stream in [stream for stream, used in self._used.items() if used < oldest]:
            del self._used[stream], self._open[stream]


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
