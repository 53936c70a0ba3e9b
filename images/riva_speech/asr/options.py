"""What one request asks of a recogniser, whatever it came by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riva_speech.asr.pipeline import EndpointingConfig


@dataclass(frozen=True)
class Boost:
    """A phrase to hear more readily, or less so where ``score`` is below zero.

    ``score`` is in natural logarithms, as the client sent it: each way of decoding bounds it for
    itself. A phrase may hold the class tokens of speech hints, such as ``$MONEY``.
    """

    phrase: str
    score: float


@dataclass(frozen=True)
class VadOptions:
    """What a request says about voice activity detection; None leaves a value to the pipeline.

    ``onset`` and ``offset`` are probabilities, the durations and paddings are in seconds.
    """

    endpointing: bool | None = None
    onset: float | None = None
    offset: float | None = None
    min_duration_on: float | None = None
    min_duration_off: float | None = None
    pad_onset: float | None = None
    pad_offset: float | None = None


@dataclass(frozen=True)
class RequestOptions:
    """What a request asks for; the defaults are those of a request that says nothing.

    Finals have at most ``alternatives`` readings. Partial results are wanted where ``interim`` is
    set. ``endpointing`` of None is the pipeline's. Transcripts that are not ``verbatim`` have
    numbers and the like in their written form, partial ones only where ``partial_itn`` is set;
    ``vad_probabilities`` asks for the probabilities of speech themselves.
    """

    alternatives: int = 1
    interim: bool = True
    word_times: bool = False
    verbatim: bool = False
    partial_itn: bool = False
    punctuation: bool = False
    profanity_filter: bool = False
    boosts: tuple[Boost, ...] = ()
    endpointing: EndpointingConfig | None = None
    vad: VadOptions = field(default_factory=VadOptions)
    vad_probabilities: bool = False


# A request that says nothing.
NOTHING_ASKED = RequestOptions()
