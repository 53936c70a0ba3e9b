"""What happens to speech on its way to a recogniser, to a whole batch at once on the GPU.

Rooms, noise, other people, microphones and telephone bands are all products or sums of spectra,
so a batch goes through one Fourier transform and back.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch

from recipes.corpus import RATE

Tensor: TypeAlias = Any

TAIL_SECONDS = 0.6
MU = 255.0
LOUDNESS = (-38.0, -12.0)
# So many utterances go through nothing but a level: most of what a recogniser hears is clean.
UNSPOILED = 0.45


def uniform(size: int, low: float, high: float, device: Any) -> Tensor:
    """Draw one number an utterance, [batch, 1]."""
    return torch.rand(size, 1, device=device) * (high - low) + low


def happens(size: int, share: float, device: Any) -> Tensor:
    """Draw which utterances something happens to, [batch, 1]."""
    return torch.rand(size, 1, device=device) < share


def spoil(audio: Tensor) -> Tensor:
    """Send speech, [batch, samples], through rooms, noise, microphones and lines."""
    size, length = audio.shape
    device = audio.device
    padded = _even(length + int(TAIL_SECONDS * RATE))
    spectrum = torch.fft.rfft(audio, padded)
    hertz = torch.fft.rfftfreq(padded, 1 / RATE, device=device)
    power = spectrum.abs().square().mean(1, keepdim=True)
    wet = spectrum * rooms(size, padded, device) * microphones(size, hertz)
    wet = wet * (power / wet.abs().square().mean(1, keepdim=True).clamp(min=1e-12)).sqrt()
    total = wet + babble(spectrum) + noise(power, hertz)
    phone = happens(size, 0.15, device)
    heard = torch.fft.irfft(total * bands(size, hertz, phone), padded)[:, :length]
    clean = happens(size, UNSPOILED, device)
    return loudness(torch.where(clean, audio, lines(heard, phone)))


def _even(length: int) -> int:
    """Round up to a length that transforms quickly."""
    return math.ceil(length / 4000) * 4000


def rooms(size: int, padded: int, device: Any) -> Tensor:
    """Draw the spectra of echo tails; most utterances have none."""
    steps = int(TAIL_SECONDS * RATE)
    times = torch.arange(steps, device=device) / RATE
    decay = uniform(size, 0.08, 0.6, device)
    tail = torch.randn(size, steps, device=device) * 10 ** (-3 * times / decay)
    tail = tail / tail.norm(dim=1, keepdim=True)
    tail = tail * uniform(size, 0.1, 1.2, device) * happens(size, 0.4, device)
    tail[:, 0] = 1
    return torch.fft.rfft(tail, padded)


def microphones(size: int, hertz: Tensor) -> Tensor:
    """Draw smooth responses over the logarithm of frequency, up to some 10 dB each way."""
    place = torch.log2(hertz.clamp(min=60) / 60) / math.log2(8000 / 60)
    decibels = torch.zeros(size, len(hertz), device=hertz.device)
    for waves in (0.5, 1, 2, 3):
        height = torch.randn(size, 1, device=hertz.device) * 4 / max(waves, 1)
        phase = uniform(size, 0, 2 * math.pi, hertz.device)
        decibels += height * torch.cos(2 * math.pi * waves * place + phase)
    return 10 ** (decibels * happens(size, 0.7, hertz.device) / 20)


def babble(spectrum: Tensor) -> Tensor:
    """Let a few utterances have another one of the batch behind them, 5 to 25 dB quieter."""
    size, other = len(spectrum), spectrum.roll(1, 0)
    ratio = uniform(size, 5, 25, spectrum.device)
    own, others = (
        one.abs().square().mean(1, keepdim=True).clamp(min=1e-12) for one in (spectrum, other)
    )
    scale = (own / others).sqrt() * 10 ** (-ratio / 20)
    return other * scale * happens(size, 0.15, spectrum.device)


def noise(power: Tensor, hertz: Tensor) -> Tensor:
    """Draw coloured noise: strong for some, far below speech for the others."""
    size, bins, device = len(power), len(hertz), hertz.device
    slope = uniform(size, -0.5, 2.2, device)
    shape = (hertz.clamp(min=40) / 1000) ** (-slope / 2)
    drawn = torch.randn(size, bins, 2, device=device)
    shaped = torch.view_as_complex(drawn) * shape
    level = shaped.abs().square().mean(1, keepdim=True)
    strong = happens(size, 0.6, device)
    ratio = torch.where(strong, uniform(size, 0, 35, device), uniform(size, 40, 70, device))
    return shaped * (power / level).sqrt() * 10 ** (-ratio / 20)


def bands(size: int, hertz: Tensor, phone: Tensor) -> Tensor:
    """Draw which frequencies a line lets through; codecs cut the high ones, telephones both."""
    device = hertz.device
    low = torch.where(phone, uniform(size, 150, 350, device), uniform(size, 0, 120, device))
    cut = torch.where(happens(size, 0.35, device), uniform(size, 3500, 7500, device), 8100.0)
    high = torch.where(phone, uniform(size, 3200, 3800, device), cut)
    rising = torch.sigmoid((hertz - low) / 15)
    falling = torch.sigmoid((high - hertz) / 60)
    return rising * falling


def lines(audio: Tensor, phone: Tensor) -> Tensor:
    """Compand what telephones carry, and overdrive a few of the others."""
    size, device = len(audio), audio.device
    peak = audio.abs().amax(1, keepdim=True).clamp(min=1e-6)
    bounded = audio / peak
    code = bounded.sign() * torch.log1p(MU * bounded.abs()) / math.log1p(MU)
    steps = (code * 127).round() / 127
    companded = steps.sign() * torch.expm1(steps.abs() * math.log1p(MU)) / MU
    driven = torch.tanh(bounded * uniform(size, 2, 8, device))
    overdriven = happens(size, 0.08, device)
    coded = phone & happens(size, 0.7, device)
    return torch.where(coded, companded, torch.where(overdriven, driven, bounded))


def loudness(audio: Tensor) -> Tensor:
    """Give each utterance a random level."""
    return at_level(audio, 10 ** (uniform(len(audio), *LOUDNESS, audio.device) / 20))


def at_level(audio: Tensor, wanted: Any) -> Tensor:  # a number or one each
    """Give each utterance a level, as root mean square."""
    level = audio.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)
    return (audio * wanted / level).clamp(-1, 1)


def warps(bank: int, mels: int, device: Any) -> Tensor:
    """Make matrices that move features along the mel axis, as other vocal tracts do.

    They multiply frequency by 0.88 to 1.14, [bank, mels, mels].
    """
    edges = _mel(torch.tensor([0.0, RATE / 2]))
    centres = _hertz(torch.linspace(0, 1, mels + 2)[1:-1] * (edges[1] - edges[0]))
    factors = torch.linspace(0.88, 1.14, bank)
    wanted = _mel((centres[None] * factors[:, None]).clamp(max=RATE / 2)) / edges[1] * (mels + 1)
    wanted = (wanted - 1).clamp(0, mels - 1)
    low = wanted.floor().long().clamp(max=mels - 2)
    share = wanted - low
    matrices = torch.zeros(bank, mels, mels)
    matrices.scatter_(2, low[..., None], (1 - share)[..., None])
    matrices.scatter_add_(2, low[..., None] + 1, share[..., None])
    return matrices.to(device)


def _mel(hertz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hertz / 700)


def _hertz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)


def warp(features: Tensor, bank: Tensor) -> Tensor:
    """Give most utterances another vocal tract, [batch, mels, frames]."""
    size = len(features)
    matrices = bank[torch.randint(len(bank), (size,), device=features.device)]
    own = torch.eye(bank.shape[1], device=features.device).expand_as(matrices)
    chosen = torch.where(happens(size, 0.6, features.device)[..., None], matrices, own)
    return chosen @ features


def mask(features: Tensor, lengths: Tensor, bands_wide: int = 18, times: int = 10) -> Tensor:
    """Hide bands and moments behind each utterance's mean, [batch, mels, frames]."""
    _, mels, frames = features.shape
    device = features.device
    mean = features.mean((1, 2), keepdim=True)
    low = torch.arange(mels, device=device)
    hidden = _spans(low, 2, torch.full_like(lengths, bands_wide), torch.full_like(lengths, mels))
    moments = _spans(torch.arange(frames, device=device), times, lengths * 0.045, lengths)
    return torch.where(hidden[:, :, None] | moments[:, None, :], mean, features)


def _spans(places: Tensor, count: int, widest: Tensor, limit: Tensor) -> Tensor:
    """Draw spans of random widths below a limit; say which places are in one, [batch, places]."""
    width = torch.rand(len(limit), count, device=places.device) * widest[:, None]
    start = torch.rand(len(limit), count, device=places.device) * (limit[:, None] - width)
    inside = (places >= start[..., None]) & (places < (start + width)[..., None])
    return inside.any(1)
