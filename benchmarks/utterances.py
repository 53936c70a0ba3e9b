"""The sounds that are recognised: pieces of a recording of digits, of different lengths."""

from __future__ import annotations

import random
import wave
from pathlib import Path

RATE = 16000
_SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "digits" / "digits.wav"
_SHORTEST, _LONGEST = 2.0, 8.0
_SAMPLE_BYTES = 2


def sound(seconds: float, begin: int = 0) -> bytes:
    """Return the recording, repeated, from some byte on: 16-bit samples at 16 kHz."""
    with wave.open(str(_SAMPLE)) as source:
        assert source.getframerate() == RATE
        once = source.readframes(source.getnframes())
    size = _SAMPLE_BYTES * int(seconds * RATE)
    begin = begin % len(once) // _SAMPLE_BYTES * _SAMPLE_BYTES
    return (once * (2 + size // len(once)))[begin : begin + size]


def batch(count: int) -> list[bytes]:
    """Return utterances of 2 to 8 s, the same ones every time."""
    dice = random.Random(0)
    return [sound(dice.uniform(_SHORTEST, _LONGEST), dice.randrange(100_000)) for _ in range(count)]


def seconds(utterances: list[bytes]) -> float:
    """Return how long they last together."""
    return sum(map(len, utterances)) / (_SAMPLE_BYTES * RATE)
