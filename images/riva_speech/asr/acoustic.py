"""Running an acoustic model: features in, log-probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from riva_speech.asr.pipeline import StreamingConfig
    from riva_speech.audio.features import Features
    from riva_speech.sessions import Session

    LogProbs = NDArray[np.float32]


class OfflineAcousticModel:
    """Encodes whole utterances."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, features: Features) -> LogProbs:
        """Turn features, [n_mels, frames], into log-probabilities, [steps, tokens + 1]."""
        outputs = self._session.run(
            {
                "audio_signal": features[np.newaxis],
                "length": np.array([features.shape[1]], np.int64),
            }
        )
        log_probs: LogProbs = outputs["logprobs"][0]
        return log_probs


@dataclass
class EncoderState:
    """The caches of one stream, with a batch dimension of 1, and the last feature frames."""

    channel: NDArray[np.float32]
    time: NDArray[np.float32]
    channel_length: NDArray[np.int64]
    history: Features


class StreamingAcousticModel:
    """Encodes streams chunk by chunk with a cache-aware graph.

    The graph drops the encoder steps of its ``history_frames`` first frames, so a stream begins
    behind frames of zeros: what NeMo calls ``pad_and_drop_preencoded``.
    """

    def __init__(self, session: Session, config: StreamingConfig, n_mels: int) -> None:
        self.config = config
        self._session = session
        self._n_mels = n_mels

    def start(self) -> EncoderState:
        """Return the state of a stream that has heard nothing."""
        return EncoderState(
            channel=np.zeros((1, *self.config.channel_cache), np.float32),
            time=np.zeros((1, *self.config.time_cache), np.float32),
            channel_length=np.zeros(1, np.int64),
            history=np.zeros((self._n_mels, self.config.history_frames), np.float32),
        )

    def step(self, state: EncoderState, chunk: Features) -> LogProbs:
        """Encode up to ``chunk_frames`` new frames, [n_mels, t], and advance the state.

        Only the last chunk of a stream may be shorter than ``chunk_frames``.
        """
        signal = np.concatenate([state.history, chunk], axis=1)
        outputs = self._session.run(
            {
                "audio_signal": self._pad(signal)[np.newaxis],
                "length": np.array([signal.shape[1]], np.int64),
                "cache_last_channel": state.channel,
                "cache_last_time": state.time,
                "cache_last_channel_len": state.channel_length,
            }
        )
        state.channel = outputs["cache_last_channel_next"]
        state.time = outputs["cache_last_time_next"]
        state.channel_length = outputs["cache_last_channel_next_len"]
        state.history = signal[:, signal.shape[1] - self.config.history_frames :]
        log_probs: LogProbs = outputs["logprobs"][0, : int(outputs["encoded_lengths"][0])]
        return log_probs

    def _pad(self, signal: Features) -> Features:
        """Fill a last, short chunk: the graph always sees one shape."""
        missing = self.config.history_frames + self.config.chunk_frames - signal.shape[1]
        return np.pad(signal, ((0, 0), (0, missing)))
