"""Requests of several clients in one run: each gets what it would have got alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.errors import SpeechError
from riva_speech.triton.joining import Job, StreamPart, WholeUtterance, compute
from support.audio import babble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.asr.ctc import Reading
    from riva_speech.asr.streaming import Step
    from riva_speech.audio.features import Features

RATE = 16000


@dataclass(frozen=True)
class CountedUtterances(OfflineRecognizer):
    """A recogniser that remembers how many windows each of its runs had."""

    sizes: list[int] = field(default_factory=list)

    def run(self, windows: Sequence[Features]) -> list[LogProbs]:
        self.sizes.append(len(windows))
        return super().run(windows)


@dataclass(frozen=True)
class CountedStreams(StreamingRecognizer):
    """A recogniser that remembers how many streams each of its runs had, and fails at one."""

    sizes: list[int] = field(default_factory=list)
    failing: object = None

    def run(self, steps: Sequence[Step]) -> list[Reading]:
        self.sizes.append(len(steps))
        if any(step.state is self.failing for step in steps):
            raise SpeechError("no memory for this one")
        return super().run(steps)


def join(
    recognizer: OfflineRecognizer | StreamingRecognizer,
    jobs: Sequence[Job],
    failing: object = None,
) -> list[int]:
    """Compute what jobs want; return the sizes of the runs."""
    counted: CountedUtterances | CountedStreams
    if isinstance(recognizer, OfflineRecognizer):
        counted = CountedUtterances(**vars(recognizer))
    else:
        counted = CountedStreams(**vars(recognizer), failing=failing)
    compute(counted, jobs)
    return counted.sizes


@pytest.fixture(scope="module")
def streaming(tiny_repository: Path) -> StreamingRecognizer:
    (found,) = (
        one for one in load_recognizers(tiny_repository) if isinstance(one, StreamingRecognizer)
    )
    return found


@pytest.fixture(scope="module")
def offline(tiny_repository: Path) -> OfflineRecognizer:
    (found,) = (
        one for one in load_recognizers(tiny_repository) if isinstance(one, OfflineRecognizer)
    )
    return found


def sounds() -> list[NDArray[np.float32]]:
    return [babble(3.0)[begin:] for begin in (0, 5000, 9000)]


def test_streams_share_runs(streaming: StreamingRecognizer) -> None:
    """Streams of different lengths have their own words, in the runs of the longest."""
    alone = []
    for samples in sounds():
        stream = streaming.start()
        alone.append([*stream.accept(samples), stream.finish()])

    jobs = [StreamPart(streaming.start(), samples, ends=True) for samples in sounds()]
    sizes = join(streaming, jobs)

    longest = [StreamPart(streaming.start(), sounds()[0], ends=True)]
    assert len(sizes) <= len(join(streaming, longest)) + 2
    assert max(sizes) == 3
    for job, results in zip(jobs, alone, strict=True):
        heard = job.results()
        assert " ".join(one.transcript for one in heard if one.is_final) == " ".join(
            one.transcript for one in results if one.is_final
        )
        assert heard[-1].confidence == pytest.approx(results[-1].confidence, abs=1e-3)


def test_a_stream_goes_on_over_many_requests(streaming: StreamingRecognizer) -> None:
    """Beside another that begins and ends meanwhile, it hears what it hears alone."""
    samples = babble(3.0)
    expected = streaming.recognize(samples)
    stream, results = streaming.start(), []
    pieces = np.split(samples, range(RATE // 5, len(samples), RATE // 5))
    for number, piece in enumerate(pieces):
        mine = StreamPart(stream, piece, ends=number == len(pieces) - 1)
        other = StreamPart(streaming.start(), babble(1.0), ends=True)
        join(streaming, [mine, other])
        results += mine.results()

    finals = [one for one in results if one.is_final]
    assert " ".join(one.transcript for one in finals).split() == expected.transcript.split()
    assert finals[-1].audio_processed == pytest.approx(3.0, abs=0.01)


def test_utterances_share_runs(offline: OfflineRecognizer) -> None:
    """Utterances of different lengths are encoded together, and each is decoded as alone."""
    offline.learn_to_join()
    jobs = [WholeUtterance(offline, samples) for samples in sounds()]

    sizes = join(offline, jobs)

    assert len(sizes) < 3
    for job, samples in zip(jobs, sounds(), strict=True):
        (heard,), alone = job.results(), offline.recognize(samples)
        assert heard.transcript == alone.transcript
        assert heard.audio_processed == alone.audio_processed


def test_a_run_is_no_longer_than_one_window_may_be(offline: OfflineRecognizer) -> None:
    """Utterances that are as long as there may be are run one by one."""
    brief = replace(
        offline,
        config=replace(
            offline.config, chunk_size=0.96, left_padding_size=0.0, right_padding_size=0.0
        ),
    )

    sizes = join(brief, [WholeUtterance(brief, babble(0.96)) for _ in range(3)])

    assert sum(sizes) >= 3
    assert set(sizes) == {1}


def test_nothing_said_wants_nothing(offline: OfflineRecognizer) -> None:
    """A request without sound is answered without a run."""
    job = WholeUtterance(offline, np.zeros(0, np.float32))

    assert join(offline, [job]) == []
    assert [one.transcript for one in job.results()] == [""]


def test_one_that_cannot_be_computed_harms_no_other(streaming: StreamingRecognizer) -> None:
    """After a run fails its requests are tried one by one; the error is that of its own only."""
    streams = [streaming.start() for _ in range(3)]
    alone = streaming.recognize(babble(2.0)).transcript
    jobs = [StreamPart(stream, babble(2.0), ends=True) for stream in streams]

    join(streaming, jobs, failing=streams[1]._state)

    assert [job.error is not None for job in jobs] == [False, True, False]
    assert str(jobs[1].error) == "no memory for this one"
    for job in (jobs[0], jobs[2]):
        assert " ".join(one.transcript for one in job.results()).split() == alone.split()
