"""The requests of several clients, computed in as few runs of the model as can be.

Nothing here knows of Triton. A job is one request: it says what it wants computed next, and takes
the answer, until it wants nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.errors import SpeechError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.asr.ctc import Reading
    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.results import Result
    from riva_speech.asr.streaming import Step, Stream
    from riva_speech.audio.features import Features, Samples

# Windows are filled up to the longest of a run. Together they are at most as long as one may be.
_MOST_COST = 1.0


class Job(Protocol):
    """What one request wants."""

    error: SpeechError | None
    """Why it cannot be answered, if so."""

    def wanted(self) -> Any:  # noqa: ANN401 - what the recogniser's run takes
        """Return what is to be computed next, or None."""

    def take(self, answer: Any) -> None:  # noqa: ANN401 - what the recogniser's run gives
        """Take what was computed."""

    def results(self) -> list[Result]:
        """Return what was heard, once nothing more is wanted."""


class WholeUtterance:
    """A request for one utterance."""

    def __init__(self, recognizer: OfflineRecognizer, samples: Samples) -> None:
        self.error: SpeechError | None = None
        self._utterance = recognizer.start(samples)
        self._windows = self._utterance.windows()

    def wanted(self) -> Features | None:
        """Return the next window, [n_mels, frames]."""
        return next(self._windows, None)

    def take(self, answer: LogProbs) -> None:
        """Take the steps of a window."""
        self._utterance.take(answer)

    def results(self) -> list[Result]:
        """Return the utterance, decoded."""
        return [self._utterance.finish()]


class StreamPart:
    """A request with the next samples of a stream; after the last ones it is heard out."""

    def __init__(self, stream: Stream, samples: Samples, *, ends: bool) -> None:
        self.error: SpeechError | None = None
        self._stream = stream
        self._ends, self._ended = ends, False
        self._finals: list[Result] = []
        stream.push(samples)

    def wanted(self) -> Step | None:
        """Return the stream's next step."""
        step = self._stream.next_step()
        if step is None and self._ends and not self._ended:
            self._ended = True
            self._stream.end()
            step = self._stream.next_step()
        return step

    def take(self, answer: Reading) -> None:
        """Take what a step read."""
        self._finals += self._stream.take(answer)

    def results(self) -> list[Result]:
        """Return the utterances that ended, then what is heard of the one in progress."""
        rest = [self._stream.last()] if self._ends else self._stream.partial()
        return [*self._finals, *rest]


def compute(recognizer: Recognizer, jobs: Sequence[Job]) -> None:
    """Run the model until no job wants anything; one that cannot be computed has an ``error``."""
    pending = list(jobs)
    while asking := [(job, item) for job in pending if (item := job.wanted()) is not None]:
        for run in _runs(recognizer, asking):
            _compute(recognizer, run)
        pending = [job for job, _ in asking if job.error is None]


def _runs(
    recognizer: Recognizer, asking: Sequence[tuple[Job, Any]]
) -> Iterator[list[tuple[Job, Any]]]:
    """Split what is wanted into runs of one kind that cost no more than one run may."""
    kinds: dict[Hashable, list[tuple[Job, Any]]] = {}
    for job, item in asking:
        kinds.setdefault(recognizer.kind(item), []).append((job, item))
    for alike in kinds.values():
        most = len(alike)
        if isinstance(recognizer, OfflineRecognizer):
            dearest = max(recognizer.cost(item) for _, item in alike)
            most = max(1, int(_MOST_COST / dearest))
        for begin in range(0, len(alike), most):
            yield alike[begin : begin + most]


def _compute(recognizer: Recognizer, run: Sequence[tuple[Job, Any]]) -> None:
    """Make one run; where it fails, each by itself, so that none harms another."""
    try:
        answers: Sequence[Any] = recognizer.run([item for _, item in run])
    except SpeechError as error:
        if len(run) == 1:
            run[0][0].error = error
            return
        for one in run:
            _compute(recognizer, [one])
        return
    for (job, _), answer in zip(run, answers, strict=True):
        job.take(answer)
