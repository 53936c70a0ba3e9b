"""What recognisers hear of a few signals, to hold one way to run models against another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.audio import babble

if TYPE_CHECKING:
    from riva_speech.asr.loading import Recognizer

SIGNALS = [babble(seconds, seed=seed) for seed, seconds in enumerate((0.4, 1.7, 3.1))]


def heard(recognizers: list[Recognizer]) -> dict[str, list[list[Any]]]:
    """Return words and times of every signal, by the pipeline's name."""
    return {
        one.config.name: [
            [(word.text, word.start_ms, word.end_ms) for word in one.recognize(signal).words]
            for signal in SIGNALS
        ]
        for one in recognizers
    }
