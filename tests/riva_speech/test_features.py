from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riva_speech.audio.features import FeatureConfig, LogMel, LogMelStream, normalise
from support.audio import babble

CONFIG = FeatureConfig(
    sample_rate=16000,
    n_fft=512,
    hop_length=160,
    win_length=400,
    preemphasis=0.97,
    mag_power=2.0,
    log_zero_guard_type="add",
    log_zero_guard=2**-24,
    normalize="NA",
    n_mels=20,
)


@pytest.fixture(scope="module")
def log_mel() -> LogMel:
    rng = np.random.default_rng(0)
    filterbank = rng.uniform(0, 0.01, (CONFIG.n_mels, 257)).astype(np.float32)
    return LogMel(CONFIG, np.hanning(400).astype(np.float32), filterbank)


@settings(max_examples=40)
@given(
    length=st.integers(0, 5000),
    cuts=st.lists(st.integers(0, 5000), max_size=8),
    seed=st.integers(0),
)
def test_pieces_give_the_frames_of_the_whole(
    log_mel: LogMel, length: int, cuts: list[int], seed: int
) -> None:
    """However a signal is cut, its frames are those of the whole signal."""
    samples = np.random.default_rng(seed).normal(0, 0.1, length).astype(np.float32)
    stream = LogMelStream(log_mel)

    pieces = [
        stream.accept(piece) for piece in np.split(samples, sorted(min(c, length) for c in cuts))
    ]
    pieces.append(stream.finish())

    np.testing.assert_allclose(np.concatenate(pieces, axis=1), log_mel(samples), atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 159, 160, 161, 399, 400, 1600, 16001])
def test_a_signal_has_a_frame_for_each_hop(log_mel: LogMel, length: int) -> None:
    """n samples have n // hop frames, however few they are."""
    assert log_mel(np.zeros(length, np.float32)).shape == (20, length // 160)


def test_frames_equal_a_plain_fourier_sum(log_mel: LogMel) -> None:
    """A frame is the log of the filterbank over the power of a directly summed transform."""
    samples = babble(0.2)
    emphasised = samples - 0.97 * np.concatenate([[0], samples[:-1]])
    t = 7
    window = np.hanning(400) * emphasised[t * 160 - 200 : t * 160 + 200]
    bins = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512) @ window
    expected = np.log(log_mel.filterbank @ np.abs(bins) ** 2 + 2**-24)

    np.testing.assert_allclose(log_mel(samples)[:, t], expected, atol=1e-3)


def test_normalised_features_have_no_mean_and_unit_spread() -> None:
    """per_feature normalisation centres and scales each mel over the utterance."""
    features = np.random.default_rng(0).normal(3, 2, (4, 100)).astype(np.float32)

    normalised = normalise(features, "per_feature")

    np.testing.assert_allclose(normalised.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(axis=1, ddof=1), 1, atol=1e-3)


@pytest.mark.parametrize("frames", [0, 1])
def test_too_few_frames_normalise_to_finite_values(frames: int) -> None:
    """An utterance of one frame, or none, has no spread and still gives numbers."""
    assert np.isfinite(normalise(np.ones((4, frames), np.float32), "per_feature")).all()
