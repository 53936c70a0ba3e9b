"""Whether utterances of different lengths may share a run of a model, found out by trying."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable

    from riva_speech.asr.acoustic import OfflineAcousticModel
    from riva_speech.audio.features import Features

_log = logging.getLogger(__name__)

# How far log-probabilities may be from those of an utterance that is encoded alone.
_TOLERANCE = 1e-3
# Lengths within this ratio are filled up to one.
_RATIO = 1.15
_PROBE_STEPS = 16


@dataclass(frozen=True)
class Padding:
    """How utterances go into one batch.

    An utterance of some frames gives ``(frames + offset) // stride`` steps. Where utterances are
    not ``mixed``, only those of one length share a run: the graph does not mask what it is filled
    up with.
    """

    stride: int
    offset: int
    mixed: bool

    def steps(self, frames: int) -> int:
        """Return how many steps an utterance gives."""
        return (frames + self.offset) // self.stride

    def kind(self, frames: int) -> Hashable:
        """Return what utterances have in common that may share a run."""
        return int(math.log(max(frames, 1), _RATIO)) if self.mixed else frames


def learn(model: OfflineAcousticModel, stride: int, n_mels: int) -> Padding | None:
    """Try a model with two utterances at once; None if it takes but one."""
    rng = np.random.default_rng(0)
    long = rng.normal(size=(n_mels, _PROBE_STEPS * stride)).astype(np.float32)
    try:
        model.run(np.stack([long, long]), [long.shape[1]] * 2)
    except Exception as error:  # noqa: BLE001 - of whatever runs the model
        _log.info("Utterances are encoded one by one: %s", error)
        return None
    offset = _offset(model, stride, long)
    padding = Padding(stride, offset or 0, mixed=True)
    if offset is not None and _is_masked(model, padding, long):
        return padding
    # Nothing is filled up, and so nothing is to be cut off: there is at most a step a frame.
    return Padding(1, 0, mixed=False)


def _offset(model: OfflineAcousticModel, stride: int, long: Features) -> int | None:
    """Find at which lengths another step begins; None if it is no simple rule."""
    first = long.shape[1] // 2
    lengths = range(first, first + stride + 1)
    counts = [len(model(long[:, :length])) for length in lengths]
    jump = next(i for i in range(1, stride + 1) if counts[i] > counts[0] or i == stride)
    offset = counts[jump] * stride - lengths[jump]
    fits = all(
        count == (length + offset) // stride
        for length, count in (*zip(lengths, counts, strict=True), (long.shape[1], len(model(long))))
    )
    return offset if fits else None


def _is_masked(model: OfflineAcousticModel, padding: Padding, long: Features) -> bool:
    """Whether an utterance beside a longer one gives what it gives alone."""
    short = long[:, : long.shape[1] // 2 + 3]
    alone = model(short)
    model.padding = padding
    try:
        _, beside = model.encode([long, short])
    finally:
        model.padding = None
    return beside.shape == alone.shape and bool(np.allclose(beside, alone, rtol=0, atol=_TOLERANCE))
