"""Decoders of what needs no codec: linear PCM, and the companded codes of ITU-T G.711."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from riva_speech.audio.encoding import SampleType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from riva_speech.audio.features import Samples

_INT_16, _SCALE_16 = np.dtype("<i2"), np.float32(1 / 2**15)


class PcmDecoder:
    """Linear PCM of one sample type."""

    def __init__(self, sample_type: SampleType) -> None:
        self._width, self._convert = _CONVERSIONS[sample_type]
        self._rest = b""

    def decode(self, data: bytes) -> Iterator[Samples]:
        """Give the samples that are complete with these bytes."""
        data = self._rest + data
        whole = len(data) - len(data) % self._width
        self._rest = data[whole:]
        yield self._convert(data[:whole])

    def finish(self) -> Iterator[Samples]:
        """Give nothing: a part of a sample is no sample."""
        yield from ()


def _unsigned_8(data: bytes) -> Samples:
    return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) * np.float32(1 / 2**7)


def _signed_16(data: bytes) -> Samples:
    samples: Samples = np.multiply(np.frombuffer(data, _INT_16), _SCALE_16, dtype=np.float32)
    return samples


def _signed_24(data: bytes) -> Samples:
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    # In the upper three bytes of a number of 32 bits, the sign is where it belongs.
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return _signed_32(wide.tobytes())


def _signed_32(data: bytes) -> Samples:
    return np.frombuffer(data, "<i4").astype(np.float32) * np.float32(1 / 2**31)


def _float_32(data: bytes) -> Samples:
    return _bounded(np.frombuffer(data, "<f4"))


def _float_64(data: bytes) -> Samples:
    return _bounded(np.frombuffer(data, "<f8"))


def _bounded(values: NDArray[np.floating]) -> Samples:
    """Return numbers as samples; those that are none are silence, and no sound is over full."""
    bounded: Samples = np.clip(np.nan_to_num(values), -1, 1).astype(np.float32)
    return bounded


_CONVERSIONS: dict[SampleType, tuple[int, Callable[[bytes], Samples]]] = {
    SampleType.UNSIGNED_8: (1, _unsigned_8),
    SampleType.SIGNED_16: (2, _signed_16),
    SampleType.SIGNED_24: (3, _signed_24),
    SampleType.SIGNED_32: (4, _signed_32),
    SampleType.FLOAT_32: (4, _float_32),
    SampleType.FLOAT_64: (8, _float_64),
}


class CompandedDecoder:
    """8-bit mu-law or A-law: each byte stands for one sample."""

    def __init__(self, table: NDArray[np.float32]) -> None:
        self._table = table

    def decode(self, data: bytes) -> Iterator[Samples]:
        """Give a sample for each byte."""
        yield self._table[np.frombuffer(data, np.uint8)]

    def finish(self) -> Iterator[Samples]:
        """Give nothing: no byte is held back."""
        yield from ()


def _mulaw_table() -> NDArray[np.float32]:
    """Return the 256 values of mu-law."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = ((2 * mantissa + 33) << exponent) - 33
    sign = np.where(code & 0x80, -1, 1)
    return (sign * magnitude * 4).astype(np.float32) * _SCALE_16


def _alaw_table() -> NDArray[np.float32]:
    """Return the 256 values of A-law."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    linear = 2 * mantissa + 1
    magnitude = np.where(exponent == 0, linear, (linear + 32) << np.maximum(exponent, 1) - 1)
    sign = np.where(code & 0x80, 1, -1)
    return (sign * magnitude * 8).astype(np.float32) * _SCALE_16


MULAW = _mulaw_table()
ALAW = _alaw_table()
