"""What happens to speech on its way to a recogniser: speed, rooms, telephones, noise, level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recipes.corpus import RATE, resample

if TYPE_CHECKING:
    import random

    from numpy.random import Generator

    from recipes.corpus import Samples

MU = 255.0
# Shares of the clips that have an echo, come by an old telephone, and lose their edges of the band.
_IN_A_ROOM = 0.3
_BY_TELEPHONE = 0.2
_NARROWED = 0.3


def speed(samples: Samples, factor: float) -> Samples:
    """Make speech faster and higher, or slower and lower, as from another vocal tract."""
    return resample(samples, RATE * factor)


def fade(samples: Samples, seconds: float = 0.005) -> Samples:
    """Soften the edges, so that joining clips makes no clicks."""
    ramp = np.linspace(0, 1, int(seconds * RATE), dtype=np.float32)
    envelope = np.ones(len(samples), np.float32)
    envelope[: len(ramp)] = ramp
    envelope[len(samples) - len(ramp) :] = ramp[::-1]
    return samples * envelope


def band(samples: Samples, low: float, high: float) -> Samples:
    """Keep only the frequencies between `low` and `high` Hz."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    return np.asarray(np.fft.irfft(spectrum, len(samples)), np.float32)


def companded(samples: Samples) -> Samples:
    """Keep what 8-bit mu-law leaves of the samples."""
    bounded = np.clip(samples, -1, 1)
    code = np.sign(bounded) * np.log1p(MU * np.abs(bounded)) / np.log1p(MU)
    steps = np.round(code * 127) / 127
    return np.asarray(np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(MU)) / MU, np.float32)


def telephone(samples: Samples) -> Samples:
    """Narrow the band and compand, as an old line does."""
    return band(companded(band(samples, 300, 3400)), 0, 4000)


def room(samples: Samples, generator: Generator, decay: float, wetness: float) -> Samples:
    """Add a random echo tail that falls by 60 dB in `decay` seconds."""
    times = np.arange(int(decay * RATE)) / RATE
    tail = generator.standard_normal(len(times)) * 10 ** (-3 * times / decay)
    impulse = wetness * tail / np.linalg.norm(tail)
    impulse[0] = 1
    size = len(samples) + len(impulse)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(impulse, size), size)
    return np.asarray(wet[: len(samples)], np.float32)


def coloured_noise(length: int, slope: float, generator: Generator) -> Samples:
    """Make noise of level 1 whose power falls as frequency to the `slope`: 0 is white, 1 pink."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    frequencies = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20)
    shaped = np.fft.irfft(spectrum / frequencies ** (slope / 2), length)
    return np.asarray(shaped / shaped.std(), np.float32)


def level(samples: Samples) -> float:
    """Measure the louder half, so that silence around speech does not count."""
    power = np.square(samples, dtype=np.float64)
    return float(np.sqrt(power[power >= np.median(power)].mean() + 1e-12))


def distort(samples: Samples, rng: random.Random, *, noise: float = 1.0) -> Samples:
    """Send speech a random way to a recogniser; a share of `noise` gets noise."""
    generator = np.random.default_rng(rng.getrandbits(64))
    if rng.random() < _IN_A_ROOM:
        samples = room(samples, generator, rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.8))
    if rng.random() < noise:
        hiss = coloured_noise(len(samples), rng.uniform(0, 2), generator)
        samples = samples + hiss * level(samples) * 10 ** (-rng.uniform(3, 45) / 20)
    kind = rng.random()
    if kind < _BY_TELEPHONE:
        samples = telephone(samples)
    elif kind < _BY_TELEPHONE + _NARROWED:
        samples = band(samples, rng.uniform(0, 200), rng.uniform(3600, 7600))
    peak = float(np.abs(samples).max()) + 1e-6
    return np.asarray(samples / peak * 10 ** (-rng.uniform(0.2, 30) / 20), np.float32)
