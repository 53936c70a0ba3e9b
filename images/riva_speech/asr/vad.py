"""Voice activity detection by Silero's model: what is no speech is silence to the recogniser.

A stream's samples pass a gate. They are held until it is settled whether they are speech, and
leave it as they came or as zeros, whose features are the smallest there are. So silence that is
not quiet gives no words, and utterances end in it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from riva_speech.asr.options import RequestOptions, VadOptions
    from riva_speech.asr.pipeline import VadConfig
    from riva_speech.audio.features import Samples
    from riva_speech.sessions import Session

    Probabilities = NDArray[np.float32]
    Mask = NDArray[np.bool_]

# New samples of a step of the model, and those before them that it hears again, by the rate.
_STEP = {8000: 256, 16000: 512}
_CONTEXT = {8000: 32, 16000: 64}
_STATE_SHAPE = (2, 1, 128)


@dataclass(frozen=True)
class Decision:
    """Which samples are speech, and how many of these are settled, whatever follows.

    ``is_over`` tells that none of it matters to what follows the settled samples; ``goes_on`` that
    all are settled, and nothing matters but that speech goes on behind them.
    """

    mask: Mask
    settled: int
    is_over: bool = False
    goes_on: bool = False


def decide(
    probabilities: Probabilities, config: VadConfig, step: int, rate: int, *, goes_on: bool = False
) -> Decision:
    """Turn a probability for each ``step`` samples into a mask of all these samples.

    Speech begins where the probability exceeds ``onset`` and ends where it falls below ``offset``.
    It is padded on both sides; then what is shorter than ``min_duration_on`` is dropped, and gaps
    shorter than ``min_duration_off`` are closed. So NeMo does it, too. What ``goes_on`` from before
    these samples is speech that has lasted for ``min_duration_on``.
    """
    on = _is_on(probabilities, config, was_on=goes_on)
    is_on = bool([goes_on, *on[-1:]][-1])
    edges = np.flatnonzero(np.diff(np.concatenate([[goes_on], on, [False]]))) * step
    before, behind = round(config.pad_onset * rate), round(config.pad_offset * rate)
    least_on, least_off = config.min_duration_on * rate, config.min_duration_off * rate
    first = 0
    if goes_on:
        first = -int(least_on) - 1
        edges = np.concatenate([[first], edges])
    padded = [(max(first, begin - before), end + behind) for begin, end in edges.reshape(-1, 2)]
    segments = _merge(padded, 0)
    kept = [one for one in segments if one[1] - one[0] >= least_on]
    mask = np.zeros(len(probabilities) * step, np.bool_)
    for begin, end in _merge(kept, least_off):
        mask[max(0, begin) : end] = True
    if is_on and kept and kept[-1] == segments[-1]:
        return Decision(mask, len(mask), goes_on=True)
    # Speech that is yet to begin may reach back so far, and make a short segment long enough.
    opens = max(first, len(mask) - before)
    if segments and segments[-1] not in kept[-1:] and (is_on or segments[-1][1] >= opens):
        opens = min(opens, segments[-1][0])
    ends = kept[-1][1] if kept else -least_off
    # What touches is one, however short the gaps are that stay.
    is_over = opens - ends >= max(1, least_off)
    settled = opens if is_over else min(len(mask), int(ends))
    return Decision(mask, settled, is_over=is_over and not is_on)


def _is_on(probabilities: Probabilities, config: VadConfig, *, was_on: bool) -> Mask:
    """Return where speech is on: what lies between both thresholds stays as it was before."""
    marks = np.zeros(len(probabilities) + 1, np.int64)
    changes = (probabilities > config.onset) | (probabilities < config.offset)
    marks[1:] = np.where(changes, np.arange(1, len(marks)), 0)
    last = np.maximum.accumulate(marks)[1:]
    above = np.concatenate([[was_on], probabilities > config.onset])
    return np.asarray(above[last], np.bool_)


def _merge(segments: list[tuple[int, int]], gap: float) -> list[tuple[int, int]]:
    """Join segments that overlap, or have a gap shorter than ``gap`` between them."""
    merged: list[tuple[int, int]] = []
    for begin, end in segments:
        if merged and (begin <= merged[-1][1] or begin - merged[-1][1] < gap):
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


class VoiceActivity:
    """The model, and how a pipeline uses it. Safe to share."""

    def __init__(self, session: Session, config: VadConfig, rate: int) -> None:
        """Wrap a session of Silero's ONNX model; ``rate`` is one of ``VAD_RATES``."""
        self.session = session
        self.config = config
        self.rate = rate

    def gate(self, options: VadOptions, *, tells: bool = False) -> Gate | None:
        """Return a stream's gate, or None for requests that want none.

        It remembers its probabilities for ``tell`` if it ``tells``.
        """
        if options.endpointing is False:
            return None
        given = {one.name: getattr(options, one.name) for one in fields(self.config)}
        chosen = replace(self.config, **{k: v for k, v in given.items() if v is not None})
        return Gate(self, chosen, tells=tells)


def gate_for(activity: VoiceActivity | None, options: RequestOptions) -> Gate | None:
    """Return the gate of a request's stream; None where there is no model, or none is wanted."""
    return activity.gate(options.vad, tells=options.vad_probabilities) if activity else None


class Gate:
    """Lets the speech of one stream through, and gives silence for the rest."""

    def __init__(self, activity: VoiceActivity, config: VadConfig, *, tells: bool) -> None:
        self._activity = activity
        self._config = config
        self._step = _STEP[activity.rate]
        self._state = np.zeros(_STATE_SHAPE, np.float32)
        self._context = np.zeros(_CONTEXT[activity.rate], np.float32)
        # Samples that have not left yet, and where they and the probabilities begin.
        self._held = np.zeros(0, np.float32)
        self._begin = 0
        self._heard = 0
        self._probabilities = np.zeros(0, np.float32)
        self._first = 0
        # Whether speech goes on from before them.
        self._goes_on = False
        # Probabilities that nobody was told, where somebody wants to be.
        self._tells = tells
        self._untold: list[float] = []

    def tell(self) -> tuple[float, ...]:
        """Return the probabilities of speech since this was asked last, one for each step."""
        told, self._untold = tuple(self._untold), []
        return told

    def push(self, samples: Samples) -> Samples:
        """Take samples; return those that are settled."""
        self._held = np.concatenate([self._held, samples])
        new = []
        while self._heard + self._step <= self._begin + len(self._held):
            place = self._heard - self._begin
            new.append(self._hear(self._held[place : place + self._step]))
            self._heard += self._step
        self._untold += new if self._tells else []
        self._probabilities = np.append(self._probabilities, np.array(new, np.float32))
        decision = self._decide()
        released = self._release(decision.mask, self._first + decision.settled)
        if decision.is_over or decision.goes_on:
            self._forget()
            self._goes_on = decision.goes_on
        return released

    def end(self) -> Samples:
        """Return the samples that are held; no more follow."""
        missing = -(self._begin + len(self._held)) % self._step
        settled = self.push(np.zeros(missing, np.float32))
        rest = self._release(self._decide().mask, self._heard)
        released = np.concatenate([settled, rest])
        return released[: len(released) - missing]

    def _forget(self) -> None:
        """Drop the steps whose samples have left: they are looked at no more."""
        steps = (self._begin - self._first) // self._step
        self._probabilities = self._probabilities[steps:]
        self._first += steps * self._step

    def _hear(self, samples: Samples) -> float:
        signal = np.concatenate([self._context, samples]).astype(np.float32)
        outputs = self._activity.session.run(
            {
                "input": signal[np.newaxis],
                "state": self._state,
                "sr": np.array(self._activity.rate, np.int64),
            }
        )
        self._state = outputs["stateN"]
        self._context = signal[-len(self._context) :]
        return float(outputs["output"].reshape(-1)[0])

    def _decide(self) -> Decision:
        return decide(
            self._probabilities,
            self._config,
            self._step,
            self._activity.rate,
            goes_on=self._goes_on,
        )

    def _release(self, mask: Mask, until: int) -> Samples:
        """Give held samples up to a place of the stream."""
        count = max(0, until - self._begin)
        place = self._begin - self._first
        released = np.where(mask[place : place + count], self._held[:count], np.float32(0))
        self._held = self._held[count:]
        self._begin += count
        return released.astype(np.float32)
