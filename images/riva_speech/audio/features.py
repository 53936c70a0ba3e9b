"""Log-mel features, as NeMo's ``AudioToMelSpectrogramPreprocessor`` computes them.

The mel filterbank and the window come with the model (they are buffers of the checkpoint), so
nothing about them is computed here a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.bounded import load_arrays
from riva_speech.errors import DamagedArchiveError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Features = NDArray[np.float32]

# Added to the standard deviation before dividing by it (NeMo's CONSTANT).
_NORMALISATION_FLOOR = 1e-5
# Windows overlap, so a recording takes several times its memory while it is transformed: that is
# done two seconds at a time, which stay in a core's cache.
_BLOCK_SAMPLES = 2 * 16000
# More than any window or filterbank has.
_MAX_ARRAY_BYTES = 64 << 20


@dataclass(frozen=True)
class FeatureConfig:
    """The numbers of a NeMo mel preprocessor.

    ``hop_length``, ``win_length`` and ``n_fft`` are in samples; ``normalize`` is ``NA`` or
    ``per_feature``; ``log_zero_guard`` is added to the mel energies, or is their floor.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    win_length: int
    preemphasis: float
    mag_power: float
    log_zero_guard_type: str
    log_zero_guard: float
    normalize: str
    n_mels: int

    @property
    def frame_ms(self) -> int:
        """Milliseconds from one frame to the next."""
        return 1000 * self.hop_length // self.sample_rate

    @classmethod
    def from_mapping(cls, values: Any) -> FeatureConfig:  # noqa: ANN401 - from YAML
        """Build from a manifest's mapping.

        Raises:
            DamagedArchiveError: A value is missing.
            UnsupportedError: A normalisation that this version does not know.
        """
        try:
            config = cls(**values)
        except TypeError as error:
            raise DamagedArchiveError(f"the feature configuration is malformed: {error}") from error
        if config.normalize not in ("NA", "per_feature"):
            raise UnsupportedError(f"feature normalisation {config.normalize!r} is not supported")
        return config


@dataclass(frozen=True)
class LogMel:
    """Turns samples into log-mel frames.

    ``window`` has shape [win_length], ``filterbank`` [n_mels, n_fft // 2 + 1], both float32.
    Frame t is centred on sample ``t * hop_length``; a signal of n samples has
    ``n // hop_length`` frames.
    """

    config: FeatureConfig
    window: NDArray[np.float32] = field(repr=False)
    filterbank: NDArray[np.float32] = field(repr=False)

    @classmethod
    def load(cls, config: FeatureConfig, path: Path) -> LogMel:
        """Read window and filterbank from a ``featurizer.npz``.

        Raises:
            DamagedArchiveError: The file is unreadable or its arrays have other shapes.
        """
        try:
            arrays = load_arrays(path, ("window", "filterbank"), _MAX_ARRAY_BYTES)
            window = arrays["window"].astype(np.float32)
            filterbank = arrays["filterbank"].astype(np.float32)
        except (OSError, ValueError, KeyError) as error:
            raise DamagedArchiveError(f"{path} cannot be read: {error}") from error
        expected = (config.n_mels, config.n_fft // 2 + 1)
        if window.shape != (config.win_length,) or filterbank.shape != expected:
            raise DamagedArchiveError(f"{path} does not fit its feature configuration")
        return cls(config, window, filterbank)

    def __call__(self, samples: Samples) -> Features:
        """Return the features of a whole utterance, normalised: [n_mels, n // hop_length]."""
        stream = LogMelStream(self)
        blocks = np.split(samples, range(_BLOCK_SAMPLES, len(samples), _BLOCK_SAMPLES))
        frames = np.concatenate([*map(stream.accept, blocks), stream.finish()], axis=1)
        return normalise(frames, self.config.normalize)

    def of_frames(self, pieces: Sequence[NDArray[np.float32]]) -> Features:
        """Turn windows of pre-emphasised samples, [t, win_length] each piece, into [n_mels, t]."""
        # NumPy transforms float32 as float64, unless there is a factor of that type to apply: here
        # it is 1 / n_fft.
        spectrum = np.fft.rfft(self._tapered(pieces), axis=1, norm="forward")
        energies = self.filterbank @ _power(spectrum, self.config.mag_power).T
        guard = np.float32(self.config.log_zero_guard)
        if self.config.log_zero_guard_type == "add":
            return np.log(energies + guard)
        return np.log(np.maximum(energies, guard))

    def _tapered(self, pieces: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the frames of all pieces as they are transformed, [t, n_fft].

        NumPy fills up shorter ones itself, but transforms them one by one then, and else several at
        once.
        """
        ends = list(accumulate(map(len, pieces)))
        frames = np.zeros((ends[-1], self.config.n_fft), np.float32)
        for piece, end in zip(pieces, ends, strict=True):
            rows = frames[end - len(piece) : end, : self.config.win_length]
            np.multiply(piece, self._taper, out=rows)
        return frames

    @cached_property
    def _taper(self) -> NDArray[np.float32]:
        """The window, times what the transform divides by."""
        return self.window * np.float32(self.config.n_fft)


class LogMelStream:
    """Computes the frames of a signal that arrives in pieces.

    Every frame is the same as if the signal had come whole; normalisation is left to the caller,
    for it needs the whole.
    """

    def __init__(self, extractor: LogMel) -> None:
        self._extractor = extractor
        self._last_sample = np.float32(0)
        self._half = extractor.config.win_length // 2
        # The first frame is centred on sample 0: what lies before it is silence.
        self._pending = np.zeros(self._half, np.float32)
        self._received = 0
        self._emitted = 0

    def accept(self, samples: Samples) -> Features:
        """Take more samples; return the frames that are complete now, [n_mels, t]."""
        self.push(samples)
        return self._extractor.of_frames([self.take(self.ready)])

    def finish(self) -> Features:
        """Return the last frames, whose windows reach past the end of the signal."""
        self.end()
        return self._extractor.of_frames([self.take(self.ready)])

    @property
    def ready(self) -> int:
        """How many frames are complete and not taken yet."""
        config = self._extractor.config
        complete = (len(self._pending) - config.win_length) // config.hop_length + 1
        return max(0, min(complete, self._received // config.hop_length - self._emitted))

    def push(self, samples: Samples) -> None:
        """Take more samples, and compute nothing of them yet."""
        if not len(samples):
            return
        kept, self._received = len(self._pending), self._received + len(samples)
        grown = np.empty(kept + len(samples), np.float32)
        grown[:kept] = self._pending
        self._preemphasise(samples, grown[kept:])
        self._pending = grown

    def end(self) -> None:
        """Make the last frames complete: nothing follows but silence."""
        self._pending = np.concatenate([self._pending, np.zeros(self._half, np.float32)])

    def take(self, count: int) -> NDArray[np.float32]:
        """Return the windows of the next frames, [count, win_length], as ``of_frames`` takes them.

        At most ``ready`` are there. Windows of several streams may be joined into one call.
        """
        config = self._extractor.config
        if not count:
            return np.zeros((0, config.win_length), np.float32)
        step = self._pending.itemsize
        # A view, as sliding_window_view gives, which takes as long as computing the frames does.
        windows = np.ndarray(
            (count, config.win_length),
            np.float32,
            self._pending.data,
            strides=(config.hop_length * step, step),
        )
        self._pending = _compact(self._pending[count * config.hop_length :])
        self._emitted += count
        return windows

    def _preemphasise(self, samples: Samples, out: Samples) -> None:
        """Write y[i] = x[i] - a * x[i-1]; the signal's first sample stays as it is."""
        factor = np.float32(self._extractor.config.preemphasis)
        np.multiply(samples[:-1], -factor, out=out[1:])
        out[0] = -factor * self._last_sample
        out += samples
        self._last_sample = samples[-1]


def _power(spectrum: NDArray[np.complexfloating], exponent: float) -> NDArray[np.float32]:
    """Return magnitudes to the power of ``exponent``; most models take squares: no root needed."""
    if exponent == 2:  # noqa: PLR2004 - a square
        power = np.square(spectrum.real) + np.square(spectrum.imag)
    else:
        power = np.abs(spectrum) ** exponent
    return power.astype(np.float32, copy=False)


def _compact(samples: Samples) -> Samples:
    """Return samples that do not keep many more alive, which were taken already."""
    whole = samples.base
    return samples.copy() if whole is not None and len(whole) > 2 * len(samples) else samples


def normalise(features: Features, how: str, *, ddof: int = 1) -> Features:
    """Normalise a whole utterance's features, [..., n_mels, t], as NeMo's ``normalize_batch`` does.

    NeMo's buffered streaming divides by the number of frames, which is a ``ddof`` of 0.
    """
    if how == "NA" or not features.shape[-1]:
        return features
    mean = features.mean(axis=-1, keepdims=True)
    # One frame has no spread: NeMo takes 0 then.
    spread = features.std(axis=-1, ddof=ddof, keepdims=True) if features.shape[-1] > 1 else 0.0
    normalised: Features = (features - mean) / (spread + np.float32(_NORMALISATION_FLOOR))
    return normalised.astype(np.float32)
